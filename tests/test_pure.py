"""Tests of the tests of the core: one command runs them alone, in seconds, and they touch nothing."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PURE_TESTS
from test_house import PURE, is_one_of

TESTS = Path(__file__).parent
HELPERS = {"example_run", "support"}
"""Modules of the tests from which values come, and that start nothing where they are imported."""


def imports(path: Path) -> set[str]:
    """What a file imports: the names of modules."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def is_of_the_core(path: Path) -> bool:
    """Whether a test file uses pure modules of ours, and nothing that would reach outside of the process."""
    names = imports(path)
    ours = {name.removeprefix("runnable_ci.") for name in names if name.startswith("runnable_ci")}
    reaching = {"subprocess", "socket"} | {file.stem for file in TESTS.glob("*.py")} - HELPERS
    return bool(ours) and all(is_one_of(module, PURE) for module in ours) and not names & reaching


def test_all_tests_of_the_core_are_listed() -> None:
    """Each test file that uses nothing but pure modules is run by the one command, and what it names is there."""
    files = {path.relative_to(TESTS.parent).as_posix(): path for path in TESTS.rglob("test_*.py")}
    assert {name for name, path in files.items() if is_of_the_core(path)} - EXEMPT.keys() <= PURE_TESTS <= files.keys()
    assert EXEMPT.keys().isdisjoint(PURE_TESTS)


EXEMPT = {
    "tests/docs/test_schemas.py": "compares files of the documentation, made by a program",
    "tests/util/test_threads.py": "waits for threads",
}


@pytest.mark.parametrize(
    "leave",
    [
        lambda: subprocess.run([sys.executable, "--version"], check=False),
        lambda: os.system("true"),  # noqa: S605
        lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    ],
    ids=["a process", "a shell", "a socket"],
)
def test_a_pure_test_cannot_leave(leave: object) -> None:
    """What would start a process or reach the network fails the test, which is how the command stays quick."""
    assert callable(leave)
    with pytest.raises(AssertionError, match=r"tests/test_pure\.py is in tests/pure\.txt"):
        leave()
