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
LONG = "pytest.mark.long("


def promises(page: str) -> list[tuple[str, list[str]]]:
    """The promises in the tables of a page, each with its tests as `path::name`, from the folder `tests`."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [row for line in lines if (row := ROW.fullmatch(line))]
    return [(row[1], re.findall(r"`([^`]+)`", row[2])) for row in rows]


def marked() -> Iterator[tuple[str, list[str]]]:
    """Each test there is, as `path::name`, and its decorators; what marks a file is said of each of its tests."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assigned = [node for node in body if isinstance(node, ast.Assign)]
        of_file = [ast.unparse(node.value) for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"]
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                place = path.relative_to(ROOT / "tests").as_posix()
                yield f"{place}::{node.name}", [*of_file, *map(ast.unparse, node.decorator_list)]


def test_each_promise_has_its_tests_and_no_other_test_says_that_it_holds_one() -> None:
    """The tables and the markers of the tests name the same tests; all of them exist."""
    tests = dict(marked())
    named = [test for page in PAGES for _, its in promises(page) for test in its]
    assert len(named) > 50
    assert [test for test in named if test not in tests] == []
    assert {test for test, marks in tests.items() if MARKER in marks} == set(named)


def test_each_promise_is_held_each_time() -> None:
    """By a test that is not `long`: of those, a run has some only."""
    long = {test for test, marks in marked() if any(mark.startswith(LONG) for mark in marks)}
    assert len(long) > 10
    assert [promise for page in PAGES for promise, its in promises(page) if long.issuperset(its)] == []


def test_every_row_of_the_tables_is_a_promise() -> None:
    """No row of a table of promises is without a test."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        (table,) = re.findall(r"\| promise \| held by \|\n\| --- \| --- \|\n((?:\|.*\n)+)", text)
        assert len(promises(page)) == len(table.splitlines()), page
