"""What a step reads that runs elsewhere is what it would read here, whatever else looks at the workspace meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace

PIPELINE = """
[executors.sh]
command = "sh -c {}"
[steps.warm]
run = "true"
[steps.count]
run = 'echo "n=$(ls data | wc -l)" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
[steps.use]
run = "test -e ok"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A step that lists a folder as soon as it begins, right after the run has looked at the code."""
    return workspace(
        tmp_path,
        {"runnable.toml": PIPELINE, "data/a": "", "data/b": "", ".gitignore": ".runnable\nok\ndata/c\n"},
    )


@pytest.mark.promise
def test_a_listing_at_the_beginning_counts(project: Workspace) -> None:
    """A file that is new in the folder has the step run again, as it has here."""
    assert project.runnable("run", "--run-id", "r", "--executor", "sh", code=1)
    project.write({"data/c": "", "ok": ""})
    project.runnable("retry", "r", "--executor", "sh")
    count = project.log("r").steps["count"]
    assert [attempt.output_parameters["n"].value for attempt in count.attempts] == [2, 3]


BESIDE = """
[executors.sh]
command = "sh -c {}"
[steps.long]
needs = []
run = "sleep 4; echo done > long.txt"
catalog = { put = ["long.txt"] }
[steps.b]
needs = []
run = "sleep 0.3; echo b > b.txt"
catalog = { put = ["b.txt"] }
[steps.c]
needs = ["b"]
run = "sleep 0.3; cat b.txt > c.txt"
catalog = { put = ["c.txt"] }
"""


def test_what_workers_look_at_is_no_step_s_read(tmp_path: Path) -> None:
    """Beside a long step others begin and end, on workers of their own: to it that is nothing that it read."""
    project = workspace(
        tmp_path, {"runnable.toml": BESIDE, "data/x/a": "", ".gitignore": ".runnable\n*.txt\n"}, name="beside"
    )
    project.runnable("run", "--run-id", "r", "--executor", "sh")
    shown = project.runnable("show", "r").out.partition("READ\n")[2].partition("\n\n")[0]
    assert [line.split(maxsplit=1) for line in shown.splitlines()] == [
        ["long", "nothing"],
        ["b", "nothing"],
        ["c", "1 file: b.txt"],
    ]
