"""The reference pages are what the command line and the models generate."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import runnable_ci
from runnable_ci.cli.compare.diff import DIFFERS, FAILED
from runnable_ci.cli.compare.reproduce import EXIT_CODES
from runnable_ci.errors import STOPPED_IN_TIME
from runnable_ci.util.signals import CANCEL_SIGNALS

DOCS = Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
assert _spec and _spec.loader
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("name", generate.pages())
def test_a_generated_file_is_up_to_date(name: str) -> None:
    """`python docs/generate.py` would change nothing."""
    assert (DOCS / name).read_text(encoding="utf-8") == generate.pages()[name]


def exit_codes_written() -> Iterator[int]:
    """Yield the numbers that the code has as exit codes of the program: of errors, of `sys.exit`, of results."""
    package = Path(runnable_ci.__file__).parent
    for file in package.rglob("*.py"):
        if file.is_relative_to(package / "steps"):
            continue  # these are of the user's steps
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name("exit_code")], value=ast.Constant(int(code))):
                    yield code
                case ast.Call(ast.Attribute(ast.Name("sys"), "exit") | ast.Name("Exit"), [ast.Constant(int(code))]):
                    yield code
                case ast.Call(ast.Attribute(ast.Name("typer"), "Exit"), [ast.Constant(int(code))]):
                    yield code


def test_the_guide_has_all_exit_codes() -> None:
    """Those of the code are in the guide's table, and no others."""
    text = (DOCS / "guide.md").read_text(encoding="utf-8").partition("\n## In scripts")[2]
    cells = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    documented = [int(code) for cell in cells for code in cell.split(",")]
    signals = {128 + number for number in CANCEL_SIGNALS}
    known = {0, DIFFERS, FAILED, STOPPED_IN_TIME, *EXIT_CODES.values(), *signals, *exit_codes_written()}
    assert documented == sorted(known)
