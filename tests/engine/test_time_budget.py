"""A run ends before its time is over, and the next invocation resumes it."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry as docker_registry
from support import wait_until

from runnable_ci.engine.outliving.known_durations import known_durations
from runnable_ci.engine.outliving.time_budget import TimeBudget
from runnable_ci.errors import STOPPED_IN_TIME
from runnable_ci.pipeline.keys.durations import TimeLimit
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt, StepLog
from runnable_ci.runs.recorder import Recorder
from runnable_ci.util.clock import elapsed_s
from runnable_ci.util.process import Supervisor

EPOCHS = 60
TRAIN = """
import json, os, pathlib, random, time

checkpoint = pathlib.Path("ckpt/state.json")
checkpoint.parent.mkdir(exist_ok=True)
state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"epoch": 0, "weight": 0.5, "losses": []}
for epoch in range(state["epoch"], EPOCHS):
    data = random.Random(epoch)
    for _ in range(1000):
        state["weight"] -= 0.01 * (state["weight"] - data.random())
    state["losses"].append(state["weight"] ** 2)
    state["epoch"] = epoch + 1
    new = pathlib.Path("ckpt/state.json.new")
    new.write_text(json.dumps(state))
    new.replace(checkpoint)
    with open(os.environ["DONE"], "a") as done:
        done.write(f"{epoch + 1}\\n")
    time.sleep(0.2)
pathlib.Path("losses.json").write_text(json.dumps(state["losses"]))
""".replace("EPOCHS", str(EPOCHS))
TRAINING = f"""
[steps.train]
run = "{sys.executable} train.py"
checkpoint = {{ path = ["ckpt/**"], every-minutes = 0.01 }}
catalog = {{ put = ["losses.json"] }}

[steps.report]
run = "cat losses.json"
"""
BUDGET = "8s"


def losses() -> list[float]:
    """What the training gives that nothing breaks."""
    import random

    weight, found = 0.5, []
    for epoch in range(EPOCHS):
        data = random.Random(epoch)  # noqa: S311
        for _ in range(1000):
            weight -= 0.01 * (weight - data.random())
        found.append(weight**2)
    return found


def project(tmp_path: Path, pipeline: str) -> Workspace:
    """A clone with this pipeline, and the training beside it."""
    made = workspace(tmp_path, {"runnable.toml": pipeline, "train.py": TRAIN, ".gitignore": ".runnable\n"})
    made.environ["DONE"] = str(tmp_path / "done")
    return made


def log_of(made: Workspace, run: str = "r1") -> RunLog:
    """The log of a run."""
    return RunLog.model_validate_json(made.runnable("show", run, "--json").out)


def test_a_training_goes_on_from_invocation_to_invocation(tmp_path: Path) -> None:
    """Each ends in its time with the exit code 75 and says so; the curve is that of a training that nothing ended."""
    made = project(tmp_path, TRAINING)
    begun = time.monotonic()
    first = made.runnable("run", "--run-id", "r1", "--time-budget", BUDGET, code=STOPPED_IN_TIME)
    assert time.monotonic() - begun < 9.5
    assert "run r1: FAIL, stopped by its time budget of 8s" in first.err
    assert "hint: runnable-ci retry r1" in first.err
    log = log_of(made)
    assert (log.status, log.outcome, log.ended_by) == ("FAIL", "cancelled", "time-budget")
    assert log.invocations[0].ended_by == "time-budget"
    assert log.steps["train"].attempts[0].outcome == "cancelled"
    codes = [STOPPED_IN_TIME]
    while codes[-1] == STOPPED_IN_TIME and len(codes) < 10:
        with made.start("retry", "r1", "--time-budget", BUDGET) as retry:
            retry.communicate()
        codes.append(retry.returncode)
    assert codes == [STOPPED_IN_TIME] * (len(codes) - 1) + [0]
    assert len(codes) > 2
    log = log_of(made)
    assert (log.status, log.ended_by) == ("SUCCESS", "")
    assert log.steps["train"].attempts[1].checkpoint_used is not None
    assert json.loads(made.read("losses.json")) == losses()
    done = (tmp_path / "done").read_text().split()
    assert len(done) - EPOCHS < 2 * len(codes), done  # what is repeated is since the last checkpoint


def test_the_file_says_it_and_the_option_counts_before_it(tmp_path: Path) -> None:
    """`time-budget` at the top of the file bounds a run; `--time-budget` takes its place."""
    made = project(tmp_path, 'time-budget = "6s"\n[steps.a]\nrun = "sleep 20"\n')
    assert "stopped by its time budget of 6s" in made.runnable("run", "--run-id", "r1", code=STOPPED_IN_TIME).err
    made.write({"runnable.toml": 'time-budget = "6s"\n[steps.a]\nrun = "sleep 7"\n'})
    made.runnable("run", "--run-id", "r2", "--time-budget", "1h")


def test_a_moment(tmp_path: Path) -> None:
    """The end may be a moment; where that has passed, no step begins."""
    made = project(tmp_path, '[steps.a]\nrun = "sleep 20"\n[steps.b]\nrun = "true"\n')
    moment = (datetime.now(UTC) + timedelta(seconds=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    begun = time.monotonic()
    done = made.runnable("run", "--run-id", "r1", "--time-budget", moment, code=STOPPED_IN_TIME)
    assert time.monotonic() - begun < 9.5
    assert f"stopped by its time budget until {moment}" in done.err
    made.runnable("retry", "r1", "--time-budget", "2020-01-01T00:00:00Z", code=STOPPED_IN_TIME)
    made.runnable("run", "--run-id", "r2", "--time-budget", "2020-01-01T00:00:00Z", code=STOPPED_IN_TIME)
    assert not any(step.attempts for step in log_of(made, "r2").steps.values())
    log = log_of(made)
    assert len(log.steps["a"].attempts) == 1
    assert log.steps["a"].message == "the time budget until 2020-01-01T00:00:00Z is over"
    assert log.invocations[1].ended_by == "time-budget"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("soon", "must be such as `90m` or `5h30m`"),
        ("", "must be such as"),
        ("0h", "must be such as"),
        ("2s", "must be from 5s"),
        ("900d", "must be from 5s"),
        ("-5m", "must be such as"),
        ("2026-11-27T10:00:00", "has no offset"),
        ("2026-13-27T10:00:00Z", "must be a length such as"),
    ],
)
def test_a_wrong_one(tmp_path: Path, text: str, says: str) -> None:
    """What is no time is an error with a hint, and nothing runs."""
    made = project(tmp_path, '[steps.a]\nrun = "touch ran"\n')
    done = made.runnable("run", f"--time-budget={text}", code=2)
    assert says in done.err
    assert "hint: " in done.err
    made.write({"runnable.toml": f'time-budget = "{text}"\n[steps.a]\nrun = "touch ran"\n'})
    assert "time-budget" in made.runnable("run", code=2).err
    assert not (made.folder / "ran").exists()


def test_a_step_that_failed_by_itself_is_no_matter_of_time(tmp_path: Path) -> None:
    """The run failed then, with the exit code 1: to resume it in another job would only repeat that."""
    made = project(tmp_path, '[steps.a]\nrun = "exit 3"\n[steps.b]\nneeds = []\nrun = "sleep 20"\n')
    made.runnable("run", "-j", "2", "--run-id", "r1", "--time-budget", "6s", code=1)
    log = log_of(made)
    assert (log.outcome, log.ended_by) == ("failed", "")
    assert log.steps["b"].outcome == "cancelled"


def test_a_run_that_is_over_in_time_succeeds(tmp_path: Path) -> None:
    """A time budget that suffices changes nothing."""
    made = project(tmp_path, '[steps.a]\nrun = "true"\n')
    made.runnable("run", "--run-id", "r1", "--time-budget", "1m")
    assert log_of(made).outcome == "succeeded"


def test_a_signal_beside_the_end(tmp_path: Path) -> None:
    """A signal while the run is ended in time is the first one: it kills nothing, and the run was cancelled."""
    made = project(tmp_path, TRAINING.replace("train.py", "stubborn.py"))
    stubborn = 'import signal, time\nsignal.signal(15, lambda *_: open("asked", "w").close())\n'
    stubborn += "until = time.time() + 20\nwhile time.time() < until:\n    time.sleep(0.05)\n"
    made.write({"stubborn.py": stubborn})
    with made.start("run", "--run-id", "r1", "--time-budget", "7s") as run:
        wait_until((made.folder / "asked").exists, "the step is asked to end")
        run.send_signal(signal.SIGINT)
        _, err = run.communicate()
    assert run.returncode == 128 + signal.SIGINT, err
    log = log_of(made)
    assert (log.outcome, log.ended_by, log.message) == ("cancelled", "", "cancelled by SIGINT")


def test_signals_at_the_same_moment(tmp_path: Path) -> None:
    """Whichever comes first, the run ends once, its log says by which, and a retry resumes it."""
    made = project(tmp_path, TRAINING)
    for number, after_s in enumerate((3.6, 3.9, 4.2)):
        run_id = f"r{number}"
        with made.start("run", "--run-id", run_id, "--time-budget", "7s") as run:
            begun = time.monotonic()
            time.sleep(after_s)
            run.send_signal(signal.SIGTERM)
            _, err = run.communicate()
        assert time.monotonic() - begun < 8
        assert run.returncode in (STOPPED_IN_TIME, 128 + signal.SIGTERM), err
        log = log_of(made, run_id)
        assert log.outcome == "cancelled"
        assert (log.ended_by == "time-budget") == (log.message != "cancelled by SIGTERM")
    made.runnable("retry", "r2")
    assert json.loads(made.read("losses.json")) == losses()


def test_killed_while_the_time_ends_it(tmp_path: Path) -> None:
    """`kill -9` then leaves a log that says so, and a retry resumes the training from its checkpoint."""
    slow = "import os, signal, time\ndef end(*_):\n    open('asked', 'w').close()\n    time.sleep(20)\n"
    made = project(tmp_path, TRAINING)
    made.write({"train.py": f"{slow}\nsignal.signal(15, end)\n{TRAIN}"})
    with made.start("run", "--run-id", "r1", "--time-budget", "8s") as run:
        wait_until((made.folder / "asked").exists, "the step is asked to end")
        run.kill()
        run.communicate()
    made.write({"train.py": TRAIN})
    made.runnable("retry", "r1")
    log = log_of(made)
    assert (log.invocations[0].outcome, log.invocations[0].ended_by) == ("interrupted", "")
    assert log.steps["train"].attempts[1].checkpoint_used is not None
    assert json.loads(made.read("losses.json")) == losses()


CHAIN = """
[steps.a]
run = "sleep 1"
[steps.long]
run = "sleep 4"
[steps.other]
needs = ["a"]
run = "true"
[steps.last]
needs = ["long", "other"]
if = "always()"
run = "true"
"""


def test_a_step_that_does_not_fit_is_held_back(tmp_path: Path) -> None:
    """Steps that fit are run, it waits for the next invocation, and the run ends at once then."""
    made = project(tmp_path, CHAIN)
    made.runnable("run", "-j", "1", "--run-id", "whole")
    plan = made.runnable("run", "-n", "-j", "1", "--time-budget", "8s")
    assert "note: the time budget of 8s: step `long` does not fit: it would begin after 1." in plan.err
    assert "and the step took 4." in plan.err
    begun = time.monotonic()
    said = made.runnable("run", "-j", "1", "--run-id", "r1", "--time-budget", "8s", code=STOPPED_IN_TIME).err
    assert time.monotonic() - begun < 5
    log = log_of(made)
    assert {name: step.status for name, step in log.steps.items()} == {
        "a": "SUCCESS",
        "long": "SKIPPED",
        "other": "SUCCESS",
        "last": "SUCCESS",
    }
    assert "left for steps, and the step took 4." in log.steps["long"].message
    assert log.ended_by == "time-budget"
    assert "stopped by its time budget of 8s" in said
    made.runnable("retry", "r1", "-j", "1", "--time-budget", "9s")
    assert [len(step.attempts) for step in log_of(made).steps.values()][:3] == [1, 1, 1]


def test_a_step_that_never_fits_is_not_ended(tmp_path: Path) -> None:
    """A time shorter than a step without a checkpoint is said, and the step runs on; the time counts again after it."""
    made = project(tmp_path, '[steps.a]\nrun = "sleep 6"\n[steps.b]\nrun = "true"\n')
    made.runnable("run", "--run-id", "r1", "--time-budget", "5s", code=STOPPED_IN_TIME)
    said = made.runnable("retry", "r1", "-n", "--time-budget", "5s").err
    assert "note: the time budget of 5s: step `a` is not ended by it" in said
    said = made.runnable("retry", "r1", "--time-budget", "5s", code=STOPPED_IN_TIME).err
    assert "note: the time budget of 5s does not end this step" in said
    log = log_of(made)
    assert log.steps["a"].status == "SUCCESS"
    assert log.steps["b"].message == "the time budget of 5s is over"
    made.runnable("retry", "r1", "--time-budget", "5s")


def test_a_time_limit_counts_where_nothing_is_known(tmp_path: Path) -> None:
    """A step that may take longer than is left waits; of one that may take longer than all, that is said."""
    made = project(
        tmp_path,
        "[steps.a]\nrun = 'sleep 1'\n[steps.b]\ntimeout-minutes = 0.075\nrun = 'true'\n"
        "[steps.c]\ntimeout-minutes = 5\nrun = 'true'\n",
    )
    made.runnable("run", "--run-id", "r1", "--time-budget", "8s", code=STOPPED_IN_TIME)
    assert "`timeout-minutes` are 4.5 s" in log_of(made).steps["b"].message
    said = made.runnable("retry", "r1", "--time-budget", "9s").err
    assert "does not end this step" in said
    assert "its `timeout-minutes` are 5 min 00 s" in said


def test_runs_and_show_say_so(tmp_path: Path) -> None:
    """A run that the time ended has failed in no step: `runs` says that it stopped, `show` how it is resumed."""
    made = project(tmp_path, '[steps.a]\nrun = "true"\n')
    made.runnable("run", "--run-id", "r1", "--time-budget", "2020-01-01T00:00:00Z", code=STOPPED_IN_TIME)
    assert "r1   STOPPED" in made.runnable("runs").out
    assert json.loads(made.runnable("runs", "--json").out)[0]["ended_by"] == "time-budget"
    assert "resume       runnable-ci retry r1\n" in made.runnable("show", "r1").out


def test_a_sweep_ends_with_the_first_run_that_has_no_time(tmp_path: Path) -> None:
    """The others are not begun."""
    made = project(tmp_path, '[parameters]\nn = 1\n[steps.a]\nrun = "sleep 20; echo $n"\n')
    words = ("run", "--sweep", "n=1,2", "--run-id", "s", "--time-budget", "6s")
    made.runnable(*words, code=STOPPED_IN_TIME)
    assert [run["run_id"] for run in json.loads(made.runnable("runs", "--json").out)] == ["s-1"]


def test_it_is_published_and_resumed_elsewhere(tmp_path: Path) -> None:
    """A run that the time ended is whole in the registry, and another clone resumes it under the same id."""
    made = project(tmp_path, TRAINING)
    with docker_registry(tmp_path / "registry") as registry:
        where = registry.repository()
        to = ("--publish=as-you-go", "--to", where)
        made.runnable("run", "--run-id", "r1", "--time-budget", "9s", *to, code=STOPPED_IN_TIME)
        other = elsewhere(made, tmp_path)
        other.environ["DONE"] = made.environ["DONE"]
        assert "STOPPED" in other.runnable("runs", "--from", where).out
        said = other.runnable("retry", f"{where}:r1", "--publish=as-you-go").err
        assert "resumes from the checkpoint of attempt 1" in said
        assert json.loads(other.read("losses.json")) == losses()


def test_without_a_thread_for_it(tmp_path: Path) -> None:
    """Steps that do not fit are held back nevertheless, and what it cannot do is said."""
    made = project(tmp_path, '[steps.a]\nrun = "sleep 6"\n[steps.b]\nrun = "true"\n')
    done = made.with_threads("0-", "run", "--time-budget", "6s", code=STOPPED_IN_TIME)
    assert "the time budget of 6s ends no step that runs: the system allows no thread for it" in done.err


def test_what_it_takes_to_end_is_left() -> None:
    """Twice what the last publish took, and what a checkpoint takes, are left beside the signals and the record."""
    took = [0.0, 0.0]
    budget = TimeBudget(TimeLimit("60s", 60.0), elapsed_s() + 60.0, {}, lambda *_, **__: None, lambda: took[1])
    supervisor = Supervisor()
    with closing(supervisor), budget.beside(lambda *_: nullcontext(lambda: took[0]))(cast(Recorder, None), supervisor):
        assert 56.5 < budget.left_s() <= 57.0
        took[:] = 5.0, 7.0
        assert 39.5 < budget.left_s() <= 40.0


def log(run_id: str, *attempts: tuple[str, float], ended_by: str = "") -> RunLog:
    """A run with attempts at one step, by their outcomes and seconds."""
    made = [
        StepAttempt(
            attempt_number=number,
            outcome=outcome,
            start_time="2026-01-01T00:00:00+00:00",
            end_time=(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat(),
        )
        for number, (outcome, seconds) in enumerate(attempts, start=1)
    ]
    invocation = Invocation(number=1, command="run", start_time="", ended_by=ended_by)
    step = StepLog(name="a", internal_name="a", attempts=made)
    return RunLog(run_id=run_id, steps={"a": step}, invocations=[invocation])


@pytest.mark.parametrize(
    ("logs", "seconds"),
    [
        ([], None),
        ([log("new", ("succeeded", 5))], 5),
        ([log("new", ("succeeded", 5)), log("old", ("succeeded", 50))], 5),
        ([log("new", ("failed", 5)), log("old", ("succeeded", 50))], 50),
        ([log("new", ("cancelled", 100))], None),
        ([log("new", ("cancelled", 100), ended_by="time-budget")], 106),
        ([log("new", ("cancelled", 100), ended_by="time-budget"), log("old", ("succeeded", 50))], 106),
        ([log("new", ("cancelled", 10), ended_by="time-budget"), log("old", ("succeeded", 50))], 50),
    ],
)
def test_how_long_a_step_is_known_to_take(logs: list[RunLog], seconds: float | None) -> None:
    """The newest success counts, and what was too little since; neither a failure nor what a person cancelled."""
    found = known_durations(logs, ["a"])
    assert found["a"].seconds == seconds if seconds is not None else not found
