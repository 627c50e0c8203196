"""When the run of a job is to end, and how far a chain of jobs goes: values in, values out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from cli import workspace

from runnable_ci.github.action.job import Job
from runnable_ci.github.action.relay.budget import budget_options
from runnable_ci.github.action.relay.chain import JobChain
from runnable_ci.github.action.relay.job_limit import job_limit_minutes, reserve_s
from runnable_ci.github.action.relay.next_job import carried
from runnable_ci.runs.files.checkpoint_model import Checkpoint
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt, StepLog

HOSTED, OWN, ELSEWHERE = "github-hosted", "self-hosted", ""
PLAIN = "jobs: { train: { runs-on: x, steps: [] } }"


def limited(limit: str) -> str:
    """A workflow whose job has this limit."""
    return f"on: push\njobs:\n  train:\n    runs-on: x\n    timeout-minutes: {limit}\n    steps: []\n"


@pytest.mark.parametrize(
    ("workflow", "runner", "expected"),
    [
        (limited("30"), HOSTED, 30),
        (limited("30"), OWN, 30),
        (limited("30"), ELSEWHERE, 30),
        (limited("900"), HOSTED, 360),
        (limited("900"), OWN, 900),
        (PLAIN, HOSTED, 360),
        (PLAIN, OWN, 360),
        (PLAIN, ELSEWHERE, None),
        (limited("${{ inputs.limit }}"), HOSTED, 360),
        (limited("${{ inputs.limit }}"), OWN, None),
        *((limited(wrong), OWN, None) for wrong in ("true", "0", "-5", "1.5", "'30'", "[30]", "0x1e", ".inf")),
        ("jobs: { other: { timeout-minutes: 5, steps: [] } }", OWN, None),
        ("jobs: { train: { uses: ./x.yml } }", OWN, None),
        *((broken, OWN, None) for broken in ("", "[", "jobs: 5", "- a", "a: &a [*a]", "!!python/name:os.system x")),
        (None, HOSTED, 360),
        (None, OWN, None),
    ],
)
def test_the_limit_of_a_job(workflow: str | None, runner: str, expected: int | None) -> None:
    """Its file's number, at most what a hosted runner allows; else GitHub's default, where it is GitHub; else none."""
    assert job_limit_minutes(workflow, "train", runner=runner) == expected


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 30), (10, 30), (20, 60), (60, 180), (360, 600), (7200, 600)])
def test_what_is_left_for_publishing(minutes: int, seconds: float) -> None:
    """A twentieth of the job's time, at least half a minute and at most ten."""
    assert reserve_s(minutes) == seconds


def job(tmp_path: Path, *, workflow: str = limited("60"), began_s: float = 1000.0, **more: str) -> Job:
    """A job that began so long ago, in a checkout with a workflow file."""
    files = {".github/workflows/ci.yml": workflow, "runnable.toml": '[steps.a]\nrun = "true"\n'}
    project = workspace(tmp_path, files)
    event = tmp_path / "event.json"
    event.write_text("{}")
    begun = datetime.now().timestamp() - began_s
    os.utime(event, (begun, begun))
    environ = {
        **project.environ,
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": "octo/flowers",
        "GITHUB_WORKSPACE": str(project.folder),
        "GITHUB_WORKFLOW_REF": "octo/flowers/.github/workflows/ci.yml@refs/heads/main",
        "GITHUB_JOB": "train",
        "GITHUB_EVENT_PATH": str(event),
        **more,
    }
    return Job.of(environ)


def left_s(job: Job) -> float | None:
    """What the option gives the run from now on."""
    given = budget_options(job, str(Path(job.context.workspace) / "runnable.toml"))
    if not given:
        return None
    (option,) = given
    moment = datetime.fromisoformat(option.removeprefix("--time-budget="))
    assert option.endswith("Z")
    return round(moment.timestamp() - datetime.now().timestamp(), -1)


def test_the_budget_is_what_is_left_of_the_job(tmp_path: Path) -> None:
    """From the begin of the job, which the event's file tells, with a reserve for what comes after the run."""
    assert left_s(job(tmp_path)) == 3600 - 180 - 1000


@pytest.mark.parametrize(
    ("began_s", "more"),
    [
        (4000.0, {}),
        (-60.0, {}),
        (3500.0, {}),
        (1000.0, {"GITHUB_EVENT_PATH": "/nowhere"}),
        (1000.0, {"GITHUB_EVENT_PATH": ""}),
        (1000.0, {"GITHUB_WORKFLOW_REF": "octo/other/.github/workflows/ci.yml@main"}),
        (1000.0, {"GITHUB_WORKFLOW_REF": "octo/flowers/../../etc/passwd@main"}),
        (1000.0, {"GITHUB_WORKFLOW_REF": "octo/flowers/.github/workflows/../../x.yml@main"}),
        (1000.0, {"GITHUB_JOB": "other"}),
        (1000.0, {"RUNNABLE_CI_ACTION_TIME_BUDGET": "off"}),
    ],
)
def test_what_is_not_known_is_no_budget(tmp_path: Path, began_s: float, more: dict[str, str]) -> None:
    """A job whose begin or limit is not known, whatever the environment says, has none; that is no error."""
    assert left_s(job(tmp_path, began_s=began_s, **more)) is None


def test_the_file_counts_as_it_was_started(tmp_path: Path) -> None:
    """A retry has checked out a fix with another workflow file than the one that runs."""
    made = job(tmp_path)
    project = workspace(tmp_path, {}, git=False, name="none")
    commit = project.git("-C", made.context.workspace, "rev-parse", "HEAD")
    (Path(made.context.workspace) / ".github/workflows/ci.yml").write_text(limited("30"))
    assert left_s(made) == 1800 - 90 - 1000
    assert left_s(Job.of({**made.environ, "GITHUB_WORKFLOW_SHA": commit})) == 3600 - 180 - 1000
    assert left_s(Job.of({**made.environ, "GITHUB_WORKFLOW_SHA": "1" * 40})) == 1800 - 90 - 1000
    called = {"RUNNABLE_CI_ACTION_JOB_WORKFLOW_REF": "octo/flowers/.github/workflows/inner.yml@x"}
    (Path(made.context.workspace) / ".github/workflows/inner.yml").write_text(limited("40"))
    assert left_s(Job.of({**made.environ, **called, "GITHUB_WORKFLOW_SHA": commit})) == 2400 - 120 - 1000


def test_a_shorter_budget_of_the_pipeline_stands(tmp_path: Path) -> None:
    """The file's own budget counts where it is over before the job's."""
    made = job(tmp_path)
    file = Path(made.context.workspace) / "runnable.toml"
    for own, expected in (("30m", None), ("5h", 3600 - 180 - 1000)):
        file.write_text(f'time-budget = "{own}"\n[steps.a]\nrun = "true"\n')
        assert left_s(made) == expected
    given = Job.of({**made.environ, "RUNNABLE_CI_ACTION_TIME_BUDGET": "2h"})
    assert budget_options(given, str(file)) == ["--time-budget=2h"]


def log(*jobs: str) -> RunLog:
    """A run log: of each invocation how it ended, and what it got done: `s` a step, `c` a checkpoint."""
    found = RunLog(run_id="r")
    step = StepLog(name="a", internal_name="a")
    for number, text in enumerate(jobs, start=1):
        ended, _, done = text.partition("+")
        ended_by = "time-budget" if ended == "budget" else ""
        found.invocations.append(Invocation(number=number, command="retry", start_time="", ended_by=ended_by))
        attempt = StepAttempt(
            attempt_number=number, invocation=number, outcome="succeeded" if done == "s" else "cancelled"
        )
        attempt.checkpoint = Checkpoint(generation=1, time="") if done == "c" else None
        step.attempts.append(attempt)
    found.steps["a"] = step
    return found


@pytest.mark.parametrize(
    ("jobs", "chain"),
    [
        (["failed"], (0, 0)),
        (["budget"], (1, 0)),
        (["budget", "failed"], (0, 0)),
        (["budget", "failed", "budget+s"], (1, 0)),
        (["budget+c", "budget+c", "budget+s"], (3, 0)),
        (["budget", "budget"], (2, 1)),
        (["budget", "budget", "budget"], (3, 2)),
        (["budget", "budget", "budget+c"], (3, 0)),
        (["budget+s", "budget+c", "budget", "budget"], (4, 2)),
        (["budget", "budget+c", "budget"], (3, 1)),
    ],
)
def test_a_chain_is_counted_from_the_log(jobs: Sequence[str], chain: tuple[int, int]) -> None:
    """The jobs at its end that the budget ended, and the last ones of them without progress, the first one aside."""
    assert JobChain.of(log(*jobs)) == chain


@pytest.mark.parametrize(
    ("chain", "relay_max", "end"),
    [
        (JobChain(1, 0), 10, ""),
        (JobChain(10, 1), 10, ""),
        (JobChain(11, 1), 10, "`relay-max: 10` is reached: the time budget ended 11 jobs of the run"),
        (JobChain(1, 0), 0, "`relay-max: 0` is reached: the time budget ended 1 job of the run"),
        (JobChain(3, 2), 10, "the last 2 jobs finished no step and kept no new checkpoint"),
    ],
)
def test_a_chain_ends(chain: JobChain, relay_max: int, end: str) -> None:
    """After so many jobs, or two that did nothing; the sentence says which of them."""
    assert chain.end(relay_max).startswith(end)
    assert bool(chain.end(relay_max)) is bool(end)


def test_what_the_next_job_is_given() -> None:
    """The options that are neither of the run nor of one job alone, however they are written."""
    args = "--jobs 4 -j2 -j 3 --env-file=a.env --tag x --param a=1 --checkpoint drop --writers y -q --rerun-changed"
    assert " ".join(carried(args.split())) == "--jobs 4 -j2 -j 3 --env-file=a.env -q --rerun-changed"
    assert carried(["--take-over", "--jobs"]) == ["--jobs"]
