"""Tests of which long tests are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from long_tests import drawn

TESTS = """
import pytest
@pytest.mark.long("why")
@pytest.mark.parametrize("number", range(8))
def test_long(number): ...
def test_short(): ...
"""


def test_each_is_drawn_by_some_seed_and_the_same_by_the_same() -> None:
    """A quarter of them at a time, in whatever order they come; where there are few, one."""
    tests = [f"test_{number}" for number in range(8)]
    assert {test for seed in range(40) for test in drawn(tests, 4, seed)} == {*tests}
    assert len(drawn(tests, 4, 1)) == 2
    assert drawn(tests, 4, 1) == drawn(tests[::-1], 4, 1)
    assert drawn(["test_1"], 4, 1) == {"test_1"}
    assert drawn([], 4, 1) == set()


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """By a worker too, with the seed by which the same are run again."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["long_tests"]\n')
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "LONG_TESTS": "4"}
    environ.pop("LONG_TESTS_SEED", None)
    seen = []
    for _ in range(2):
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
        assert "3 passed" in done.stdout, done.stdout + done.stderr
        (head,) = re.findall(r"long tests left out: 6, LONG_TESTS=4 LONG_TESTS_SEED=(\d+)", done.stdout)
        environ["LONG_TESTS_SEED"] = head
        seen.append(sorted(re.findall(r"^test_it\.py::test_long\[\d]$", done.stdout, re.MULTILINE)))
    assert len(seen[0]) == 6
    assert seen[0] == seen[1]
