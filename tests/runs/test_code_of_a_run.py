"""Tests of which code is a run's: that of its newest own attempt, or of a newer invocation that only took results."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from cli import Workspace, workspace

from runnable_ci import open_run

STEPS = """
reuse = "any-run"
[steps.a]
run = "cat data.txt > a.txt"
catalog = { put = ["a.txt"] }
[steps.b]
needs = ["a"]
run = "cat a.txt > b.txt"
catalog = { get = ["a.txt"], put = ["b.txt"] }
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project of two steps that read one file, with a run of its first commit."""
    made = workspace(tmp_path, {"runnable.toml": STEPS, "data.txt": "1", "notes.md": "", ".gitignore": "[ab].txt\n"})
    made.runnable("run", "--run-id", "first")
    return made


def said(project: Workspace, run: str) -> tuple[str, bool | None]:
    """Return the commit of a run and whether its tree was dirty, on which all that say it must agree."""
    log = project.log(run)
    code = log.code()
    assert code is not None
    commit = code.code_identifier
    assert commit[:12] in project.runnable("show", run).out
    rows: list[dict[str, Any]] = json.loads(project.runnable("runs", "--json").out)
    row = next(row for row in rows if row["run_id"] == run)
    assert row["commit"] == commit
    compared = json.loads(project.runnable("diff", "first", run, "--json").out)
    assert compared["b"]["commit"] == commit == compared["code"]["commit_b"]
    opened = open_run(run, folder=project.folder)
    assert opened.code["code_identifier"] == commit
    tree = Path(mkdtemp(dir=project.folder.parent))
    project.runnable("checkout", run, str(tree))
    assert (tree / "notes.md").read_text() == project.git("show", f"{commit}:notes.md") + "\n" * row["dirty"]
    return commit, row["dirty"]


def test_a_run_that_took_all(project: Workspace) -> None:
    """A run that took all results of another one has the commit that was checked out, though no step ran there."""
    first = project.git("rev-parse", "HEAD")
    assert said(project, "first") == (first, False)
    project.write({"notes.md": "a note"})
    second = project.commit()
    project.runnable("run", "--run-id", "second")
    log = project.log("second")
    assert [step.attempts[-1].taken_from for step in log.steps.values()] == ["first/a.1", "first/b.1"]
    assert said(project, "second") == (second, False)
    assert said(project, "first") == (first, False)
    project.write({"notes.md": "another note"})
    project.commit()
    project.runnable("retry", "second")
    assert said(project, "second") == (second, False)  # it took nothing, and ran nothing


def test_a_run_that_took_all_with_uncommitted_changes(project: Workspace) -> None:
    """What differed from the commit is kept with such a run, too."""
    project.write({"notes.md": "\n"})
    project.runnable("run", "--run-id", "second")
    assert said(project, "second") == (project.git("rev-parse", "HEAD"), True)


def test_a_run_that_took_some(project: Workspace) -> None:
    """A run that took one result and ran a step has the code of that, not of an attempt that it took."""
    project.replace("runnable.toml", "cat a.txt >", "cat a.txt a.txt >")
    second = project.commit()
    project.runnable("run", "--run-id", "second")
    log = project.log("second")
    assert [bool(step.attempts[-1].taken_from) for step in log.steps.values()] == [True, False]
    assert log.invocations[-1].code_identities == []
    assert said(project, "second") == (second, False)


def test_a_log_of_an_earlier_version(project: Workspace) -> None:
    """Where an invocation that only took says nothing of its code, what it took is all that is known."""
    log = project.log("first")
    for step in log.steps.values():
        step.attempts[-1].taken_from = "other/a.1"
    code = log.code()
    assert code is not None
    assert code.code_identifier == project.git("rev-parse", "HEAD")
