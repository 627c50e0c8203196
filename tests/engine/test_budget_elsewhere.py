"""A time budget and steps that wait for a worker: what would not end in time is not begun, and waiting is no work."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace
from test_time_budget import log_of

from runnable_ci.analysis.report.timeline import timeline_of
from runnable_ci.api.rows import step_rows
from runnable_ci.engine.elsewhere.flights import end_by_own_clock
from runnable_ci.engine.outliving.known_durations import known_durations
from runnable_ci.engine.planning.consent import finished_seconds
from runnable_ci.errors import STOPPED_IN_TIME
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt, StepLog
from runnable_ci.util.text import format_duration, seconds_between

STEP = """
[steps.{0}]
run = "echo {0} >> ../begun; sleep 3; echo {0} >> ../ended"
needs = []
executor = "node"
"""
DAY = "2026-11-28T"


def code_of(made: Workspace, *arguments: str) -> int:
    """The exit code of a command that has twelve seconds."""
    with made.start(*arguments, "--time-budget", "12s") as process:
        process.communicate()
    return process.returncode


def test_no_step_is_begun_that_would_not_end(tmp_path: Path) -> None:
    """One worker has four steps: those for which the time does not suffice are called back, and run another time."""
    node = '[executors.node]\ncommand = "sh -c {}"\nmax-parallel = 1\n'
    pipeline = node + "".join(map(STEP.format, "abcd"))
    made = workspace(tmp_path, {"runnable.toml": pipeline, ".gitignore": ".runnable\n"})
    made.runnable("run", "--run-id", "before")
    first, *_, last = (step.attempts[-1] for step in log_of(made, "before").steps.values())
    assert first.waited_s < last.waited_s
    assert last.waited_s > 6
    for name in ("begun", "ended"):
        (tmp_path / name).unlink()
    codes = [code_of(made, "run", "--run-id", "r1")]
    waiting = [step.attempts[-1] for step in log_of(made).steps.values() if step.attempts[-1].outcome == "cancelled"]
    assert waiting
    assert all("left for steps, and the step took 3." in one.message for one in waiting)
    assert {one.not_seen for one in waiting} == {"no worker had begun it"}
    while codes[-1] == STOPPED_IN_TIME and len(codes) < 6:
        codes.append(code_of(made, "retry", "r1"))
    assert codes[-1] == 0, codes
    assert sorted((tmp_path / "begun").read_text().split()) == [*"abcd"]
    assert sorted((tmp_path / "ended").read_text().split()) == [*"abcd"]


def test_waiting_is_no_part_of_what_a_step_took(tmp_path: Path) -> None:
    """All say the time that its worker took for a step, as the terminal does while it runs."""
    node = '[executors.node]\ncommand = "sh -c {}"\nmax-parallel = 1\n'
    made = workspace(tmp_path, {"runnable.toml": node + "".join(map(STEP.format, "ab")), ".gitignore": ".runnable\n"})
    made.runnable("run", "--run-id", "r")
    log = log_of(made, "r")
    waited = max(log.steps.values(), key=lambda step: step.attempts[-1].waited_s)
    last = waited.attempts[-1]
    assert last.waited_s > 3
    [seconds] = [row["seconds"] for row in step_rows(log.model_dump(mode="json")) if row["name"] == waited.name]
    assert 3 <= seconds < (seconds_between(last.start_time, last.end_time) or 0) - 3
    shown = format_duration(seconds)
    assert shown in made.runnable("show", "r").out
    assert last.seconds == seconds
    assert finished_seconds(log) < 2 * seconds + 3
    drawn = timeline_of(log, dict.fromkeys("ab", "x"), dict.fromkeys("ab", "succeeded"), {})
    assert drawn
    first, second = (row.bars[0] for row in drawn.rows)
    assert second.left >= first.left + first.width - 1  # one after the other, by one worker


@pytest.mark.parametrize(
    ("there", "took_s", "expected"),
    [
        ("10:01:40", 10, "10:01:40"),
        ("09:00:00", 10, "10:00:10"),
        ("11:00:00", 10, "10:05:00"),
        ("11:00:00", float("nan"), "11:00:00"),
        ("11:00:00", 1e300, "11:00:00"),
    ],
    ids=["as here", "it is behind", "it is ahead", "no number", "too much"],
)
def test_a_clock_that_differs(there: str, took_s: float, expected: str) -> None:
    """An attempt has ended neither before it can have, nor after what it gave was here, whatever its machine says."""
    attempt = StepAttempt(start_time=f"{DAY}10:00:00+00:00", end_time=f"{DAY}{there}+00:00")
    found = end_by_own_clock(attempt, took_s, f"{DAY}10:05:00+00:00")
    assert found.replace(".000000", "") == f"{DAY}{expected}+00:00"


def test_waiting_is_no_part_of_what_a_step_takes() -> None:
    """Neither of one that ended, nor of one whose time was over while it waited."""
    times = {"start_time": "2026-11-28T10:00:00+00:00", "end_time": "2026-11-28T10:01:40+00:00"}
    done = StepAttempt(**times, status="SUCCESS", outcome="succeeded", waited_s=90)
    never = StepAttempt(**times, status="FAIL", outcome="cancelled", waited_s=100)
    log = RunLog(
        run_id="r",
        invocations=[Invocation(number=1, command="run", start_time="", ended_by="time-budget")],
        steps={
            name: StepLog(name=name, internal_name=name, attempts=[one])
            for name, one in (("done", done), ("never", never))
        },
    )
    known = known_durations([log], ["done", "never"])
    assert known["done"].seconds == 10
    assert known["never"].seconds == 1
