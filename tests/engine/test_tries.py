"""Tests of steps that are tried more than once, and of those that run though the run was cancelled."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from support import WAIT_S, wait_until

from runnable_ci.engine.planning.schedule import Tries, is_retried
from runnable_ci.pipeline.keys.tables import Attempts
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.model import RunOutcome, StepAttempt

FLAKY = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) > count; echo try $n; test $n -ge {0}"


def project_of(folder: Path, steps: str, **files: str) -> Workspace:
    """Return a workspace with a pipeline of these steps; `count` is no file of theirs."""
    return workspace(folder, {"runnable.toml": steps, ".gitignore": ".runnable\ncount\n", **files})


def attempts(project: Workspace, step: str = "a", run: str = "r") -> list[dict[str, Any]]:
    """The attempts at a step."""
    return [one.model_dump() for one in project.log(run).steps[step].attempts]


@pytest.mark.parametrize("key", ["attempts = 3", "attempts = { max = 3 }"])
def test_a_step_is_tried_until_it_succeeds(tmp_path: Path, key: str) -> None:
    """Each try is an attempt with a log of its own, and what follows begins after the one that succeeded."""
    steps = f"[steps.a]\nrun = '{FLAKY.format(2)}'\n{key}\nignore-reads = ['count']\n[steps.b]\nrun = 'echo after'\n"
    project = project_of(tmp_path, steps)
    done = project.runnable("run", "--run-id", "r")
    made = attempts(project)
    assert [(one["attempt_number"], one["status"]) for one in made] == [(1, "FAIL"), (2, "FAIL"), (3, "SUCCESS")]
    assert len({one["log"]["data_hash"] for one in made}) == 3
    assert made[0]["definition"] == made[2]["definition"]
    assert made[1]["reason"] == "attempt 1 failed: exit code 1"
    assert "attempt 1 failed after" in done.err
    assert "exit code 1; trying again (2 of 3)" in done.err
    assert "exit code 1; trying again (3 of 3)" in done.err
    assert project.log("r").status == "SUCCESS"
    assert "nothing to do" in project.runnable("retry", "r").err
    project.write({"runnable.toml": steps.replace(key, "")})
    assert "nothing to do" in project.runnable("retry", "r").err


def test_a_step_that_fails_each_time_has_failed(tmp_path: Path) -> None:
    """After the last try the run fails; a retry tries as often again."""
    project = project_of(tmp_path, f"[steps.a]\nrun = '{FLAKY.format(5)}'\nattempts = 2\n[steps.b]\nrun = 'true'\n")
    assert "failed: a" in project.runnable("run", "--run-id", "r", code=1).err
    assert len(attempts(project)) == 2
    project.runnable("retry", "r", code=1)
    assert len(attempts(project)) == 4
    project.runnable("retry", "r")
    assert [one["status"] for one in attempts(project)] == ["FAIL"] * 5 + ["SUCCESS"]


def test_what_a_failed_try_put_is_set_aside(tmp_path: Path) -> None:
    """Each try begins without the files of the one before it."""
    run = f"test ! -e out.txt && echo 1 > out.txt && {FLAKY.format(1)}"
    project = project_of(tmp_path, f"[steps.a]\nrun = '{run}'\nattempts = 2\ncatalog.put = ['out.txt']\n")
    project.runnable("run")


def test_others_run_while_a_step_waits(tmp_path: Path) -> None:
    """The wait takes no place: with one job another step runs meanwhile, and the try comes after it."""
    steps = f"[steps.a]\nrun = '{FLAKY.format(1)}'\nattempts = {{ max = 2, wait-seconds = 0.5 }}\n"
    project = project_of(tmp_path, f"{steps}[steps.b]\nneeds = []\nrun = 'true'\n")
    done = project.runnable("run", "--run-id", "r", "--jobs", "1")
    assert "trying again in 0.5 s (2 of 2)" in done.err
    first, second = attempts(project)
    (other,) = attempts(project, "b")
    assert first["end_time"] <= other["start_time"] <= second["start_time"]


def test_only_the_ends_that_are_listed(tmp_path: Path) -> None:
    """An exit code that is not in `on` ends it; a time-out that is begins another try."""
    steps = "[steps.a]\nrun = 'exit 7'\nattempts = { max = 3, on = ['timeout', 8] }\n"
    steps += f"[steps.b]\nneeds = []\nrun = '{FLAKY.format(1)} || sleep 60'\ntimeout-minutes = 0.01\n"
    steps += "attempts = { max = 2, on = ['timeout'] }\n"
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    assert [one["exit_code"] for one in attempts(project)] == [7]
    assert [one["outcome"] for one in attempts(project, "b")] == ["timed_out", "succeeded"]


def test_a_function_whose_process_is_lost(tmp_path: Path) -> None:
    """A worker that a signal ends is tried again, one whose function raises is not."""
    code = (
        "import os, pathlib\ndef lost():\n    if not os.path.exists('count'):\n        pathlib.Path('count').touch()\n"
    )
    code += "        os.kill(os.getpid(), 9)\ndef wrong():\n    raise ValueError\n"
    steps = "[steps.a]\npython = 'f:lost'\nattempts = { max = 3, on = ['lost'] }\n"
    steps += "[steps.b]\npython = 'f:wrong'\nattempts = { max = 3, on = ['lost'] }\n"
    project = project_of(tmp_path, steps, **{"f.py": code})
    project.runnable("run", "--run-id", "r", code=1)
    assert [one["exit_code"] for one in attempts(project)] == [-9, 0]
    assert len(attempts(project, "b")) == 1


def wait_for(project: Workspace, text: str) -> None:
    """Wait until the run's journal has a text."""
    journal = project.store / "runs" / "r" / "journal.jsonl"
    wait_until(lambda: journal.exists() and text in journal.read_text(encoding="utf-8"), text)


def test_a_run_that_is_cancelled_while_a_step_waits(tmp_path: Path) -> None:
    """The wait ends at once, the step has failed, and a retry tries it again."""
    project = project_of(tmp_path, "[steps.a]\nrun = 'test -e ok'\nattempts = { max = 2, wait-seconds = 600 }\n")
    process = project.start("run", "--run-id", "r")
    wait_for(project, '"status":"FAIL"')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert [one["status"] for one in attempts(project)] == ["FAIL"]
    assert project.log("r").outcome == "cancelled"
    project.write({"ok": ""})
    project.runnable("retry", "r")


def test_a_run_that_is_killed_while_a_step_waits(tmp_path: Path) -> None:
    """A retry tries the step again: nothing of the wait is needed for that."""
    project = project_of(tmp_path, "[steps.a]\nrun = 'test -e ok'\nattempts = { max = 2, wait-seconds = 600 }\n")
    process = project.start("run", "--run-id", "r")
    wait_for(project, '"status":"FAIL"')
    process.kill()
    process.communicate(timeout=WAIT_S)
    project.write({"ok": ""})
    project.runnable("retry", "r")
    assert [one["status"] for one in attempts(project)] == ["FAIL", "SUCCESS"]


CANCELLED = """
[steps.work]
run = "touch started; sleep 60"
[steps.success]
run = "touch success"
[steps.failure]
needs = ["work"]
if = "failure()"
run = "touch failure"
[steps.clean]
needs = ["work"]
if = "always()"
with = { how = "${{ steps.work.outcome }}" }
run = "echo cleaned after $how; touch cleaned"
[steps.told]
if = "cancelled()"
run = "touch told"
[steps.not]
if = "!cancelled()"
run = "touch not"
"""


def test_what_runs_in_a_run_that_was_cancelled(tmp_path: Path) -> None:
    """`always()` and `cancelled()` run after the first signal, to their end; all else is skipped."""
    project = project_of(tmp_path, CANCELLED)
    process = project.start("run", "--run-id", "r")
    wait_until_there(project, "started")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert b"cleaned after cancelled" in out
    names = ("success", "failure", "cleaned", "told", "not")
    assert [name for name in names if (project.folder / name).exists()] == ["cleaned", "told"]
    log = project.log("r")
    assert log.outcome == "cancelled"
    assert log.steps["clean"].status == "SUCCESS"
    assert log.invocations[-1].decisions["success"].reason == "`work` was cancelled"


def test_a_second_signal_ends_those_too(tmp_path: Path) -> None:
    """Steps that run after a cancellation do not outlive the second one."""
    steps = "[steps.work]\nrun = 'touch started; sleep 60'\n"
    steps += "[steps.clean]\nif = 'always()'\nrun = 'echo $$ > pid; touch cleaning; sleep 60'\n"
    project = project_of(tmp_path, steps)
    process = project.start("run", "--run-id", "r")
    wait_until_there(project, "started")
    process.send_signal(signal.SIGINT)
    wait_until_there(project, "cleaning")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert process.returncode in (130, 143)
    with pytest.raises(ProcessLookupError):
        os.kill(int(project.read("pid")), 0)


def wait_until_there(project: Workspace, name: str) -> None:
    """Wait for a file that a step makes."""
    wait_until((project.folder / name).exists, name)


@pytest.mark.parametrize(
    ("outcome", "code", "on", "retried"),
    [
        ("failed", 1, None, True),
        ("timed_out", 0, None, True),
        ("cancelled", -2, None, False),
        ("failed", 1, (), False),
        ("failed", 1, (1,), True),
        ("failed", None, (1, "lost"), False),
        ("failed", None, None, True),
        ("failed", -9, ("lost",), True),
        ("failed", -9, (137,), True),
        ("failed", 137, (137,), True),
        ("failed", 137, ("lost",), False),
        ("timed_out", -15, ("lost", 143), False),
        ("timed_out", -15, ("timeout",), True),
    ],
)
def test_which_ends_are_tried_again(
    outcome: RunOutcome, code: int | None, on: tuple[str | int, ...] | None, retried: bool
) -> None:
    """A signal that nobody here sent is `lost`, and the code that a shell would have for it."""
    attempt = StepAttempt(exit_code=code)
    attempt.end(outcome)
    assert is_retried(attempt, Attempts(most=2, on=on)) is retried


def test_the_time_of_tries() -> None:
    """A step is due once its wait is over, and waits no more then."""
    tries, failed = Tries(), StepAttempt(exit_code=1)
    failed.end("failed")
    table = {"steps": {"a": {"run": "true", "attempts": {"max": 3, "wait-seconds": 90}}}}
    step = resolve(table, file="runnable.toml", default_name="x").steps["a"]
    assert tries.again(step, failed, 100.0) == "trying again in 1 min 30 s (2 of 3)"
    assert "a" in tries
    assert tries.wait_s(189.5, at_most=1.0) == 0.5
    assert list(tries.due(189.0)) == []
    assert list(tries.due(190.0)) == ["a"]
    assert not tries
    assert tries.again(step, failed, 200.0)
    assert list(tries.dropped()) == ["a"]
    assert tries.again(step, failed, 300.0) == ""
