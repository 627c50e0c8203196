"""No test sees what lies above its folder: the program's own rule and git's ceiling end there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cli import workspace

# What looks upwards the most: for a pipeline file, a store, a registry, a repository, its commit.
LOOKING_UP = (
    "tests/pipeline/test_project.py",
    "tests/vcs/test_identity.py",
    "tests/github/test_action_commands.py::test_a_retry_with_a_fix",
)
FOREIGN = """
name = "foreign"
registry = "foreign.invalid/o/r"
[parameters]
foreign = 1
[steps.other]
run = "true"
"""


def test_the_tests_pass_below_a_foreign_repository_and_store(tmp_path: Path) -> None:
    """A repository, a pipeline file and a store with a run of a test's own id above them change nothing, and stay."""
    foreign = workspace(tmp_path, {"runnable.toml": FOREIGN, ".gitignore": "tests\n"}, name="foreign")
    for run_id in ("pipeline-1000", "r", "a", "latest-of-all"):
        foreign.runnable("run", "--run-id", run_id)
    runs = foreign.runnable("runs", "--json").out
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            f"--basetemp={foreign.folder / 'tests'}",
            *LOOKING_UP,
        ],
        cwd=Path(__file__).parent.parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    assert foreign.runnable("runs", "--json").out == runs
