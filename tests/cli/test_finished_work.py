"""Finished hours are asked for: a retry that would repeat them unasked asks, or stops and prints both commands."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, workspace

from runnable_ci.runs.model import FAIL, SUCCESS

LONG = "0.001"
"""Minutes: less than what `load` takes."""
STEPS = """
[parameters]
rate = 1
[steps.load]
run = "bash load.sh; echo load >> ran.log; sleep 0.2; echo $rate > data.csv"
catalog = { put = ["data.csv"] }
[steps.fit]
run = "cat data.csv; echo fit >> ran.log; sleep 0.2"
[steps.report]
run = "echo report >> ran.log; exit 1"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A run `r` whose last step has failed, after which a script of its first was changed."""
    files = {"runnable.toml": STEPS, "load.sh": "echo 1\n", "notes.txt": "1\n", ".gitignore": "*.log\n*.csv\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "r", code=1)
    project.environ["RUNNABLE_CI_ASK_MINUTES"] = LONG
    ran(project)
    return project


def ran(project: Workspace) -> list[str]:
    """The steps that ran since this was asked last."""
    names = project.read("ran.log").split()
    (project.folder / "ran.log").unlink(missing_ok=True)
    return names


def change(project: Workspace, text: str = "echo 2\n") -> None:
    """Change a script that `load` reads."""
    project.write({"load.sh": text})


def test_it_stops_without_a_terminal(project: Workspace) -> None:
    """Nothing ran or was recorded, and each of the two commands works as it is printed."""
    change(project)
    done = project.runnable("retry", "latest", "--jobs", "1", code=2)
    assert ran(project) == []
    assert len(project.log().invocations) == 1
    error, again, reuse = done.err.splitlines()[-3:]
    assert error.startswith("error: this would repeat 0.")
    assert "`load` (0." in error
    assert "`fit` (0." in error
    again, reuse = again.removeprefix("hint: to repeat it: "), reuse.removeprefix("to reuse it: ")
    assert again == "runnable-ci retry r --jobs 1 --rerun-changed"
    assert reuse == "runnable-ci retry r --jobs 1 --accept load --reason '…'"
    project.runnable(*shlex.split(reuse)[1:], code=1)
    assert ran(project) == ["report"]
    change(project, "echo 3\n")
    project.runnable(*shlex.split(again)[1:], code=1)
    assert ran(project) == ["load", "report"]  # what `fit` gets is the same


def test_short_work_and_what_was_asked_for(project: Workspace) -> None:
    """Ten minutes are the default. `--from`, a parameter and a step that failed are the person's own reasons."""
    project.runnable("retry", "r", "--from", "load", code=1)
    assert ran(project) == ["load", "fit", "report"]
    project.runnable("retry", "r", "-p", "rate=2", code=1)
    assert ran(project) == ["load", "fit", "report"]
    project.runnable("retry", "r", code=1)
    assert ran(project) == ["report"]
    change(project)
    project.runnable("retry", "r", code=1, RUNNABLE_CI_ASK_MINUTES="")
    assert ran(project)[0] == "load"


def test_one_reason_does_not_give_another(project: Workspace) -> None:
    """A parameter that re-runs one step says nothing of a step that changed otherwise."""
    change(project)
    err = project.runnable("retry", "r", "--from", "fit", code=2).err
    assert "`load` (0." in err
    assert "`fit`" not in err
    assert "ask_minutes" in project.runnable("retry", "r", code=2, RUNNABLE_CI_ASK_MINUTES="-1").err.lower()


def test_a_dry_run_asks_nothing(project: Workspace) -> None:
    """The plan is shown whatever it would cost."""
    change(project)
    assert "load.sh changed" in project.runnable("retry", "r", "--dry-run").out


@pytest.mark.parametrize(("answer", "code"), [("y", 1), ("yes", 1), ("n", 2), ("", 2)])
def test_it_asks_at_a_terminal(project: Workspace, answer: str, code: int) -> None:
    """The plan is shown before the question; only a yes repeats the work."""
    change(project)
    master, slave = pty.openpty()
    words = [PROGRAM, "retry", "r"]
    with subprocess.Popen(words, cwd=project.folder, env=project.environ, stdin=slave, stdout=slave, stderr=slave) as r:
        os.close(slave)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(master, 4096)
        os.write(master, f"{answer}\n".encode())
        while True:
            try:
                shown += os.read(master, 4096)
            except OSError:
                break
        assert r.wait() == code
    os.close(master)
    plan, _, after = shown.decode().partition("Repeat 0.")
    assert "load    run    load.sh changed" in plan
    assert ("to reuse it: " in after) == (code == 2)
    assert ran(project) == ([] if code == 2 else ["load", "report"])


def test_a_job_stops_too(project: Workspace, tmp_path: Path) -> None:
    """A job has no terminal: it stops, and the command's own error is left for the job's summary."""
    change(project)
    (tmp_path / "runnable-ci").mkdir()
    job = {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(tmp_path)}
    out = project.runnable("retry", "--file=.", "r", code=2, **job).out
    assert "runnable-ci retry r --rerun-changed" in out
    assert "--accept load" in (tmp_path / "runnable-ci" / "refused.json").read_text()


def test_an_accepted_change_is_recorded_and_remembered(project: Workspace) -> None:
    """Who and why are in the log, plan and listing; the same change is not asked for again, another one is."""
    change(project)
    project.runnable("retry", "r", "--accept", "load:code", "--reason", "only a  comment", code=1)
    decision = project.log().invocations[-1].decisions["load"]
    assert (decision.action, decision.accepted_by, decision.accepted_reason) == ("reuse", "A", "only a comment")
    assert decision.reason == "load.sh changed, which it read; accepted by A: only a comment"
    assert decision.reason in project.runnable("show", "r").out
    project.runnable("retry", "r", code=1)
    assert project.log().invocations[-1].decisions["load"].accepted_by == "A"
    assert ran(project) == ["report", "report"]
    change(project, "echo 3\n")
    project.runnable("retry", "r", code=2)
    change(project)
    project.runnable("retry", "r", code=1)
    assert ran(project) == ["report"]
    project.runnable("retry", "r", "--from", "load", code=1)  # this attempt knows the change
    project.runnable("retry", "r", code=1)
    assert project.log().invocations[-1].decisions["load"].accepted_by == ""


def test_one_kind_is_accepted(project: Workspace) -> None:
    """Code that is accepted is not data that is accepted; the step alone is both."""
    steps = STEPS.replace("bash load.sh", "bash load.sh; cat notes.txt")
    project.write({"runnable.toml": steps})
    project.runnable("run", "--run-id", "s", code=1)
    ran(project)
    change(project)
    project.write({"notes.txt": "2\n"})
    for kind in ("code", "data"):
        project.runnable("retry", "s", "--accept", f"load:{kind}", "--reason", "x", code=2)
    project.runnable("retry", "s", "--accept", "load:code", "--accept", "load:data", "--reason", "x", code=1)
    assert ran(project) == ["report"]


def test_a_definition_is_code(project: Workspace) -> None:
    """What a step did may be accepted, also in a run that has succeeded: that is recorded though nothing runs."""
    project.write({"runnable.toml": STEPS.replace("exit 1", "true")})
    project.runnable("retry", "r")
    project.write({"runnable.toml": STEPS.replace("exit 1", "true").replace("bash load.sh", "bash ./load.sh")})
    ran(project)
    project.runnable("retry", "r", "--accept", "load:code", "--reason", "same script")
    log = project.log()
    assert log.status == SUCCESS
    assert log.invocations[-1].decisions["load"].accepted_reason == "same script"
    project.runnable("retry", "r")
    assert ran(project) == []


def test_a_step_below_may_be_accepted(project: Workspace) -> None:
    """Its need runs again; whatever that gives it, its own result stays."""
    project.runnable("retry", "r", "-p", "rate=2", "--accept", "fit", "--reason", "good enough", code=1)
    assert ran(project) == ["load", "report"]
    assert project.log().invocations[-1].decisions["fit"].accepted_reason == "good enough"
    assert project.log().status == FAIL


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--accept", "load"], "--accept needs a reason"),
        (["--accept", "load", "--reason", " "], "--accept needs a reason"),
        (["--reason", "x"], "--reason is for --accept"),
        (["--accept", "lod", "--reason", "x"], "did you mean `load`?"),
        (["--accept", "load:text", "--reason", "x"], "`text` is no kind of change"),
        (["--accept", "report", "--reason", "x"], "has not succeeded"),
        (["--accept", "fit", "--from", "load", "--reason", "x"], "--from load runs the step again"),
    ],
)
def test_what_cannot_be_accepted(project: Workspace, words: list[str], complaint: str) -> None:
    """It is an error of usage, before anything runs."""
    assert complaint in project.runnable("retry", "r", *words, code=2).err
    assert ran(project) == []


def test_a_secret_in_a_reason(project: Workspace) -> None:
    """A reason is a text like any other of the log."""
    change(project)
    words = ("--accept", "load", "--reason", "key is hidden-word")
    project.runnable("retry", "r", *words, code=1, RUNNABLE_CI_SECRETS="KEY", KEY="hidden-word")
    assert project.log().invocations[-1].decisions["load"].accepted_reason == "key is ***"


def test_what_is_accepted_in_vain_is_said(project: Workspace) -> None:
    """A step that is reused anyway, or runs for another kind of change, has not been helped."""
    done = project.runnable("retry", "r", "--accept", "load", "--reason", "x", code=1)
    assert "note: --accept load has no effect: the step is reused anyway (unchanged since attempt 1)\n" in done.err
    change(project)
    words = ["retry", "r", "--accept", "load:data", "--accept", "fit", "--reason", "x"]
    done = project.runnable(*words, code=1, RUNNABLE_CI_ASK_MINUTES="")
    assert "note: --accept load:data has no effect: the step runs (load.sh changed, which it read)\n" in done.err
    change(project, "echo 3\n")
    planned = project.runnable(*words, "--dry-run", RUNNABLE_CI_ASK_MINUTES="")
    assert "fit     reuse  whatever steps before it change; accepted by A: x\n" in planned.out
