"""A training over jobs that may take seconds, and whose machines are lost: it ends as one that nothing broke.

The real action in a real workflow runner, a real registry, and the workflows that `init --github` writes. A job whose
time is over has the next one started, by the API. A machine is lost as machines are: all its processes end at once, and
nothing of its disk is seen again. What is left is what the registry has, from which the next job takes the run over
once its writer has been silent for long enough; the clock that tells it is the registry's, which is set forward here
instead of waiting.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from act import ACT_TIMEOUT_S, ACT_TOKEN, REPOSITORY, ROOT, Machine, Runner, git_host, wheelhouse
from cli import Workspace, elsewhere, workspace
from github_api import Run, github
from published_runs import opened, run_tags
from registry_server import Reply, Seen, registry, serving

from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.runs.remote.pull import find

KILLS = int(os.environ.get("JOB_KILLS", "2"))
EPOCHS = 10
EPOCH_S = 1.5
EVERY_S = 2.0
"""The interval of the checkpoint."""
SENT_S = 4.0
"""How long it may take until a checkpoint is in the registry: publishing takes 2.5 % of the time of a run at most, so
that between two of these there are seconds."""
BUDGET = "17s"
"""Some of it is left for the end of the run: nine seconds are for the training."""
SET_UP_S = 8.0
"""What a job takes until the training begins, on a machine that does nothing else."""
SILENCE_S = 600.0
TRAIN = """
import json, os, pathlib, random, time

EPOCHS, EPOCH_S = 10, float(os.environ.get("EPOCH_S", "0"))
checkpoint = pathlib.Path("ckpt/state.json")
if checkpoint.exists():
    state = json.loads(checkpoint.read_text())
else:
    checkpoint.parent.mkdir(exist_ok=True)
    state = {"epoch": 0, "weights": [0.0] * 8, "curve": [], "chance": random.Random(7).getstate()}
kind, numbers, gauss = state["chance"]
chance = random.Random()
chance.setstate((kind, tuple(numbers), gauss))
ledger = open(os.environ["LEDGER"], "a")
print(time.time(), "begin", state["epoch"], "$", file=ledger, flush=True)
weights, wanted = state["weights"], [0.5 - n / 8 for n in range(8)]
for epoch in range(state["epoch"] + 1, EPOCHS + 1):
    begun_s, total = time.monotonic(), 0.0
    for _ in range(500):
        sample = [chance.gauss(0, 1) for _ in weights]
        error = sum((w - t) * x for w, t, x in zip(weights, wanted, sample)) + chance.gauss(0, 0.1)
        weights = [w - 0.01 * error * x for w, x in zip(weights, sample)]
        total += error * error
    state.update(epoch=epoch, weights=weights, curve=[*state["curve"], (total / 500).hex()], chance=chance.getstate())
    time.sleep(max(0.0, EPOCH_S - (time.monotonic() - begun_s)))
    new = checkpoint.with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(checkpoint)
    print(f"epoch {epoch}: loss {total / 500:.6f}", flush=True)
    print(time.time(), "epoch", epoch, state["curve"][-1], "$", file=ledger, flush=True)
pathlib.Path("curve.txt").write_text("".join(f"{loss}\\n" for loss in state["curve"]))
"""
PIPELINE = f"""
name = "training"
time-budget = "{BUDGET}"
[steps.prepare]
run = "echo prepared > prepared.txt; echo prepared >> $LEDGER.steps"
catalog = {{ put = ["prepared.txt"] }}
[steps.train]
run = "python3 train.py"
checkpoint = {{ path = ["ckpt/**"], every-minutes = {EVERY_S / 60} }}
catalog = {{ put = ["curve.txt"] }}
[steps.report]
run = "cat prepared.txt curve.txt"
catalog = {{ get = ["prepared.txt", "curve.txt"] }}
"""


@dataclass
class Clock:
    """That of the registry, which tells whether a writer is silent."""

    ahead_s: float = 0.0

    def hook(self, _seen: Seen, forward: Callable[[], Reply]) -> Reply:
        """Answer as the registry does, at its time."""
        reply = forward()
        date = parsedate_to_datetime(reply.headers["Date"]) + timedelta(seconds=self.ahead_s)
        return Reply(reply.status, {**reply.headers, "Date": format_datetime(date, usegmt=True)}, reply.body)


class Job(NamedTuple):
    """One job of GitHub."""

    workflow: str
    number: int
    """Of its workflow run."""
    attempt: int = 1
    inputs: Mapping[str, str] | None = None

    def again(self) -> Job:
        """What "Re-run failed jobs" starts."""
        return self._replace(attempt=self.attempt + 1)


class Line(NamedTuple):
    """What the training wrote down, outside of all that the jobs have."""

    at_s: float
    kind: str
    """`begin` or `epoch`."""
    epoch: int
    loss: str = ""


class End(NamedTuple):
    """How a job ended before the training did."""

    at_s: float
    is_lost: bool
    """Else its time was over."""
    lines: int
    """So many had been written down."""
    pace: float
    """How many times longer than on a quiet machine its set-up took."""
    text: str
    """Its log."""


@dataclass
class Training:
    """A repository with a training in it, and what its jobs did."""

    project: Workspace
    runner: Runner
    clock: Clock
    where: str
    """The registry."""
    ledger: Path
    asked: list[Run] = field(default_factory=list)
    """Jobs that jobs have asked for."""
    number: int = 6
    """Of the newest workflow run."""
    run_number: int = 0
    """Of the workflow run that began the newest run."""
    pushes: list[int] = field(default_factory=list)
    """How many lines there were when each run was begun."""
    ends: list[End] = field(default_factory=list)

    def push(self) -> Job:
        """Return the first job of another run."""
        self.number += 1
        self.run_number = self.number
        self.pushes.append(len(self.lines()))
        return Job("ci.yml", self.number)

    def after(self, lost: Job) -> Job:
        """Return the job after one whose machine is gone, for so long that nobody believes in it any more."""
        self.clock.ahead_s += SILENCE_S
        run_id = self.run_id()
        if not run_id:
            return lost.again()
        self.number += 1
        return Job("retry.yml", self.number, inputs={"run-id": run_id, "ref": "main"})

    def run_id(self) -> str:
        """Return the newest run, as the registry has it; empty before it has anything of it."""
        tags = run_tags(opened(self.where))
        return max((it for it in tags if it.startswith(f"pipeline-{self.run_number}-") and "--" not in it), default="")

    def log(self) -> RunLog:
        """Return the log of the newest run, as the registry has it."""
        return find(opened(self.where), self.run_id()).log

    def next(self) -> Job:
        """Return the job that the last one has asked for."""
        asked = self.asked.pop()
        assert not self.asked
        self.number += 1
        return Job("retry.yml", self.number, inputs=asked.inputs)

    def start(self, job: Job) -> AbstractContextManager[Machine]:
        """Start a job on a machine of its own."""
        event = "workflow_dispatch" if job.inputs else "push"
        payload = {"inputs": dict(job.inputs)} if job.inputs else {}
        return self.runner.start(
            event,
            f".github/workflows/{job.workflow}",
            clone=self.project.folder,
            payload=payload,
            run_id=job.number,
            attempt=job.attempt,
        )

    def end(self, machine: Machine, pace: float, *, is_lost: bool) -> None:
        """Take note that a job has ended."""
        text = "\n".join(machine.seen().lines())
        self.ends.append(End(time.time(), is_lost, len(self.lines()), pace, text))

    def losses(self) -> int:
        """Return how many machines were lost."""
        return sum(end.is_lost for end in self.ends)

    def lines(self) -> list[Line]:
        """Return what the training wrote down."""
        text = self.ledger.read_text() if self.ledger.exists() else ""
        words = [line.split() for line in text.splitlines() if line.endswith("$")]
        return [Line(float(at), kind, int(epoch), *loss) for at, kind, epoch, *loss, _ in words]

    def begins(self) -> int:
        """Return how often the training began."""
        return sum(line.kind == "begin" for line in self.lines())


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    """A training on a branch from which the jobs check it out."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, "train.py": TRAIN})
    project.runnable("init", "--github")
    project.commit()
    bare = tmp_path / "git" / REPOSITORY
    project.git("init", "-q", "--bare", str(bare))
    project.git("push", "-q", str(bare), "HEAD:main")
    clock, ledger = Clock(), tmp_path / "ledger"
    asked: list[Run] = []

    def ask(run: Run) -> str:
        asked.append(run)
        return "success"

    with git_host(tmp_path / "git") as git, registry(tmp_path / "registry") as served, github(ask) as api:
        api.owner, api.name = REPOSITORY.split("/")
        api.git, api.token = bare, ACT_TOKEN
        with serving(clock.hook, upstream=served) as server:
            where = f"{server.host}/{REPOSITORY}/runs"
            variables = {
                "GITHUB_API_URL": api.base,
                "RUNNABLE_CI_REGISTRY": where,
                "GITHUB_REF": "refs/heads/main",
                "LEDGER": str(ledger),
                "EPOCH_S": str(EPOCH_S),
            }
            runner = Runner(tmp_path / "runner", git, wheelhouse(ROOT / ".cache"), variables)
            yield Training(project, runner, clock, where, ledger, asked)


def curve_unbroken(tmp_path: Path) -> str:
    """The losses of the training that nothing breaks, and nothing of ours runs."""
    folder = tmp_path / "unbroken"
    folder.mkdir()
    environ = {"PATH": os.environ["PATH"], "LEDGER": str(tmp_path / "ledger-unbroken")}
    program = (sys.executable, "-c", TRAIN)
    subprocess.run(program, cwd=folder, env=environ, check=True)
    return (folder / "curve.txt").read_text()


def assert_as_unbroken(training: Training, tmp_path: Path, unbroken: str) -> None:
    """The registry has the run, successful, and its product is that of the training that nothing broke."""
    log = training.log()
    assert (log.status, log.steps["train"].attempts[-1].outcome) == (SUCCESS, "succeeded")
    for attempt in log.steps["train"].attempts:
        assert not (attempt.checkpoint_used and attempt.checkpoint_used.is_foreign)
    reader = elsewhere(training.project, tmp_path, name=f"reader-{training.run_number}")
    reader.runnable("pull", f"{training.where}:{log.run_id}")
    reader.runnable("catalog", log.run_id, "--get", "curve.txt")
    assert reader.read("curve.txt") == unbroken
    curve = unbroken.split()
    assert all(line.loss == curve[line.epoch - 1] for line in training.lines() if line.kind == "epoch")


def assert_little_is_lost(training: Training) -> None:
    """After each end of a job the training went on where it was, or at most one interval before where it was lost."""
    lines = training.lines()
    for end in training.ends:
        before = lines[: end.lines]
        of_run = next((place for place in training.pushes if place >= end.lines), len(lines))
        begun = next((line for line in lines[end.lines : of_run] if line.kind == "begin"), None)
        if not before or begun is None:  # it was lost before the training began, or when that was over
            continue
        newest = max(place for place, line in enumerate(before) if line.kind == "begin")
        known_s = next((line.at_s for line in before[newest:] if line.epoch == begun.epoch), None)
        assert known_s is not None, f"the training began at {begun.epoch} after {before[newest:]}\n{end.text}"
        lost = before[-1].epoch - begun.epoch
        lost_s = before[-1].at_s - known_s
        print(f"{'lost' if end.is_lost else 'over'} at epoch {before[-1].epoch}: {lost} again, {lost_s:.1f} s of work")
        if end.is_lost:
            assert lost_s <= EVERY_S + SENT_S * max(1.0, end.pace), training.ledger.read_text()
        else:
            assert lost <= 1, training.ledger.read_text()  # what it wrote when it got the signal


def kill_after_s(training: Training, chance: random.Random) -> float | None:
    """When a job is lost after its training has begun; None for one that is not. The first one comes to its cap."""
    if training.losses() == KILLS or not training.ends or (KILLS > 2 and chance.random() < 0.2):
        return None
    return chance.uniform(0.5, 6)


@pytest.mark.promise
def test_a_training_over_jobs(training: Training, tmp_path: Path) -> None:
    """Two machines are lost at random moments, more by `tests/run.sh --long`; the next job resumes each time."""
    seed = os.environ.get("JOB_SEED") or str(time.time_ns())
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    unbroken = curve_unbroken(tmp_path)
    job, jobs = training.push(), 1
    while True:
        begun, started_s = training.begins(), time.monotonic()
        after_s = kill_after_s(training, chance)
        is_early = KILLS > 2 and chance.random() < 0.2
        with training.start(job) as machine:
            while not (is_early or training.begins() > begun or machine.is_over()):
                machine.wait(0.05)
            pace = (time.monotonic() - started_s) / SET_UP_S
            machine.wait(after_s if after_s is not None else ACT_TIMEOUT_S)
            if not machine.is_over():
                machine.lose()
                training.end(machine, pace, is_lost=True)
                job, jobs = training.after(job), jobs + 1
                continue
            ran = machine.ended()
        if training.asked:
            assert ran.code != 0, "its run is not finished"
            training.end(machine, pace, is_lost=False)
            job, jobs = training.next(), jobs + 1
            continue
        assert ran.code == 0, f"seed {seed}\n{ran.text}"
        assert_as_unbroken(training, tmp_path, unbroken)
        if training.losses() == KILLS:
            break
        job, jobs = training.push(), jobs + 1
    assert_little_is_lost(training)
    assert any(not end.is_lost for end in training.ends)
    print(f"{jobs} jobs, {training.losses()} of them lost, for {training.begins()} begins")
