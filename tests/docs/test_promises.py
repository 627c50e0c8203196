"""Each promise of the documentation names the tests that hold it, and they say so themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "docs/concepts.md")
ROW = re.compile(r"\| ([^|]+) \| ((?:`[^`|]+::[^`|]+`(?:<br>|, )?)+) \|")
MARKER = "pytest.mark.promise"


def promises(page: str) -> list[tuple[str, list[str]]]:
    """The promises in the tables of a page, each with its tests as `path::name`, from the folder `tests`."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [row for line in lines if (row := ROW.fullmatch(line))]
    return [(row[1], re.findall(r"`([^`]+)`", row[2])) for row in rows]


def marked() -> Iterator[tuple[str, bool]]:
    """Each test there is, as `path::name`, and whether it has the marker."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                place = path.relative_to(ROOT / "tests").as_posix()
                yield f"{place}::{node.name}", MARKER in map(ast.unparse, node.decorator_list)


def test_each_promise_has_its_tests_and_no_other_test_says_that_it_holds_one() -> None:
    """The tables and the markers of the tests name the same tests; all of them exist."""
    tests = dict(marked())
    named = [test for page in PAGES for _, its in promises(page) for test in its]
    assert len(named) > 50
    assert [test for test in named if test not in tests] == []
    assert {test for test, is_marked in tests.items() if is_marked} == set(named)


def test_every_row_of_the_tables_is_a_promise() -> None:
    """No row of a table of promises is without a test."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        (table,) = re.findall(r"\| promise \| held by \|\n\| --- \| --- \|\n((?:\|.*\n)+)", text)
        assert len(promises(page)) == len(table.splitlines()), page
