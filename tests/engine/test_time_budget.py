"""A run ends before its time is over, and the next invocation resumes it."""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli import Workspace, workspace
from support import wait_until

from runnable_ci.errors import STOPPED_IN_TIME
from runnable_ci.runs.model import RunLog

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
