"""`show` says what was read: in short, attempt by attempt, and as the whole record."""

from __future__ import annotations

import json
from pathlib import Path

from cli import Workspace, workspace
from support import blobs, sha256

PIPELINE = """
[steps.shell]
run = "cat a.txt b.txt c.txt d.txt; ls data; echo x > made.txt"
[steps.nothing]
run = "true"
[steps.python]
python = "work:look"
"""
WORK = """
import os
def look():
    try:
        open("absent.txt")
    except OSError:
        pass
    open("a.txt").read()
"""


def finished(tmp_path: Path) -> Workspace:
    """A project with a finished run."""
    files = {f"{name}.txt": f"{name}\n" for name in "abcd"}
    more = {"data/x": "", "work.py": WORK, "runnable.toml": PIPELINE, ".gitignore": "made.txt\n__pycache__\n"}
    made = workspace(tmp_path, {**files, **more})
    made.runnable("run", "--run-id", "r", "-j", "1")
    return made


def test_in_short(tmp_path: Path) -> None:
    """The run's page has a line a step: how many, the first names, and what else by kind."""
    shown = finished(tmp_path).runnable("show", "r").out
    assert "shell    4 files: a.txt, b.txt, c.txt and 1 more; listed: 1\n" in shown
    assert "nothing  nothing\n" in shown
    assert "python   2 files: a.txt, work.py; listed: 1; absent: 1" in shown


def test_a_step_attempt_by_attempt(tmp_path: Path) -> None:
    """A step's page has each attempt with the digest of its record, and what it made beside its products."""
    project = finished(tmp_path)
    project.write({"a.txt": "other\n"})
    project.runnable("retry", "r", "-j", "1")
    attempts = project.log().steps["shell"].attempts
    shown = project.runnable("show", "r", "shell").out.splitlines()
    assert [line.split(",")[0] for line in shown if line.startswith("shell.")] == [
        "shell.1  SUCCESS",
        "shell.2  SUCCESS",
    ]
    assert shown[1].startswith("  machine   ")
    assert shown[2:6] == [
        f"  reads     sha256:{attempts[0].reads}",
        "  files     4: a.txt, b.txt, c.txt and 1 more",
        "  listed    1: data",
        "  made      1: made.txt",
    ]
    parsed = json.loads(project.runnable("show", "r", "shell", "--json").out)
    assert [attempt["reads"] for attempt in parsed["attempts"]] == [attempt.reads for attempt in attempts]


def test_the_whole_record(tmp_path: Path) -> None:
    """`--reads` prints the document whose digest the log has: each file with its sha256."""
    project = finished(tmp_path)
    record = json.loads(project.runnable("show", "r", "shell", "--reads").out)
    assert {name: file["digest"] for name, file in record["files"].items()} == {
        f"{name}.txt": sha256(f"{name}\n".encode()) for name in "abcd"
    }
    assert record["listings"]["data"]["names"] == ["x"]
    last = project.log().steps["shell"].attempts[-1]
    blobs(project.store)[last.reads].unlink()
    assert project.runnable("show", "r", "shell").out.splitlines()[3] == "  not in this store"
    gone = project.runnable("show", "r", "shell", "--reads", code=1)
    assert "hint: `runnable-ci pull r --only log` downloads it" in gone.err


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    """An unknown step and `--reads` without a step are errors that say what to type."""
    project = finished(tmp_path)
    assert "hint: did you mean `shell`?" in project.runnable("show", "r", "shel", code=2).err
    assert "hint: runnable-ci show r STEP --reads" in project.runnable("show", "r", "--reads", code=2).err
