"""What commands in another terminal look at while a step runs is no step's read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import PROGRAM, Workspace, workspace
from support import start, wait_until

PIPELINE = """
[executors.sh]
command = "sh -c {}"
[steps.load]
python = "work:load"
[steps.long]
run = "cat data/x > long.txt; ls sub > /dev/null; touch $PLACE/began; until [ -e $PLACE/go ]; do sleep 0.05; done"
catalog = { put = ["long.txt"] }
[steps.last]
run = "exit 1"
"""
FILES = {
    "runnable.toml": PIPELINE,
    "work.py": "def load():\n    pass\n",
    "data/x": "1\n",
    "data/y": "2\n",
    "sub/one": "",
    ".gitignore": ".runnable\n*.txt\n",
}


OTHER = '[steps.b]\nrun = "true"\n'


def reads_beside(project: Workspace, place: Path, commands: list[tuple[str, list[str]]], *more: str) -> dict[str, Any]:
    """What is recorded of a step during which these commands were typed."""
    place.mkdir()
    environ = {**project.environ, "PLACE": str(place)}
    with start(project.folder, "run", "--run-id", "r", *more, environ=environ, log=place / "said") as process:
        try:
            wait_until((place / "began").exists, "the step")
            for at, words in commands:
                project.runnable(*words, at=at)
        finally:
            (place / "go").touch()
    assert process.returncode == 1, (place / "said").read_text()
    found: dict[str, Any] = json.loads(project.runnable("show", "r", "long", "--reads").out)
    return found


WHERE = pytest.mark.parametrize("more", [(), ("--executor", "sh")], ids=["here", "elsewhere"])


def failed(folder: Path) -> Workspace:
    """A project with a failed run `old`, of which a file has changed since."""
    project = workspace(folder, FILES)
    (folder / "old").mkdir()
    (folder / "old" / "go").touch()
    project.runnable("run", "--run-id", "old", code=1, PLACE=str(folder / "old"))
    project.write({"data/y": "3\n", "new": ""})
    return project


@pytest.mark.promise
@WHERE
def test_what_commands_in_another_terminal_open(tmp_path: Path, more: tuple[str, ...]) -> None:
    """The pipeline file, code, git's own files and folders are looked at by these commands, and not by the step."""
    project = failed(tmp_path)
    commands = [
        *(["check"], ["run", "-n"], ["runs"], ["show", "r"], ["logs", "r", "long"], ["explain", "old"]),
        *(["report", "old", "-o", str(tmp_path / "page.html")], ["tag", "old", "best"], ["retry", "old", "-n"]),
    ]
    reads = reads_beside(project, tmp_path / "place", [(".", words) for words in commands], *more)
    assert list(reads["files"]) == ["data/x"]
    assert list(reads["listings"]) == ["sub"]
    assert "asked_git" not in reads


@WHERE
def test_what_git_lists_for_a_command_may_be_the_step_s(tmp_path: Path, more: tuple[str, ...]) -> None:
    """`preflight` asks git what is in the folders, and who listed them cannot be seen: what the step did is sure."""
    reads = reads_beside(failed(tmp_path), tmp_path / "place", [(".", ["preflight"])], *more)
    grades = {path: read.get("grade", "seen") for path, read in {**reads["files"], **reads["listings"]}.items()}
    assert [path for path, grade in grades.items() if grade == "seen"] == ["data/x", "sub"]
    assert grades[""] == "possible"
    assert "asked_git" not in reads


CALLS = {
    "as it is": "$PROGRAM check other.toml",
    "in a clean environment": "env -i PATH=$PATH $PROGRAM check other.toml",
    "in a session of its own": "setsid -w env -i PATH=$PATH $PROGRAM check other.toml",
}


@pytest.mark.promise
@WHERE
@pytest.mark.parametrize("call", CALLS)
def test_what_a_step_reads_through_this_program_is_its_own(tmp_path: Path, call: str, more: tuple[str, ...]) -> None:
    """A step that calls it reads what that reads, though the run's own process knows of such looks."""
    pipeline = f"[executors.sh]\ncommand = 'sh -c {{}}'\n[steps.a]\nrun = '{CALLS[call]} > out.txt'\n"
    files = {"runnable.toml": pipeline, "other.toml": "[steps.b]\nrun = 'true'\n", ".gitignore": ".runnable\n*.txt\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "r", *more, PROGRAM=PROGRAM)
    assert "other.toml" in json.loads(project.runnable("show", "r", "a", "--reads").out)["files"]


@pytest.mark.parametrize("runs", [False, True])
def test_commands_in_another_project_of_the_repository(tmp_path: Path, runs: bool) -> None:
    """It is watched as a whole: what they open, from there or from its root, is no read; what git opens is possible."""
    project = workspace(tmp_path, {**{f"a/{name}": text for name, text in FILES.items()}, "b/runnable.toml": OTHER})
    beside, place = Workspace(project.folder / "a", project.environ), tmp_path / "place"
    commands = [("../b", ["check"]), ("../b", ["run", "-n"]), ("..", ["check", "a/runnable.toml"])]
    reads = reads_beside(beside, place, [*commands, ("../b", ["run"])] if runs else commands)
    assert [path for path, read in reads["files"].items() if read.get("grade") != "possible"] == ["data/x"]
    assert runs or list(reads["files"]) == ["data/x"]
    assert "asked_git" not in reads
