"""A job whose runner is lost: what it had published until then is what its next attempt resumes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from action_steps import Repository
from cli import Workspace
from published_runs import opened
from registry_server import Served, registry
from support import wait_until

from runnable_ci.errors import RunnableError
from runnable_ci.runs.model import SUCCESS
from runnable_ci.runs.remote.pull import find

SLOW = """
name = "flowers"
[steps.load]
run = 'echo "loaded $RANDOM" > data.txt; tr "\\0" "\\n" < /proc/$PPID/environ | sed s/t0K3n/found/'
catalog = { put = ["data.txt"] }
[steps.train]
run = 'cat data.txt; test -e fixed || sleep 60'
catalog = { get = ["data.txt"] }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def finished(where: str, run_id: str) -> set[str]:
    """The steps that are published as finished."""
    with suppress(RunnableError):
        steps = find(opened(where), run_id).log.steps
        return {name for name, step in steps.items() if step.status == SUCCESS}
    return set()


@pytest.mark.promise
def test_a_lost_runner_costs_one_step(tmp_path: Path, served: Served) -> None:
    """Nothing of the job's first attempt is left but what it published; "Re-run" has only the last step to do."""
    where = served.repository()
    repository = Repository(tmp_path, where, {"runnable.toml": SLOW}, is_quick=False)
    action, first = repository.job()
    process = action.start("run")
    wait_until(
        lambda: finished(where, "train-1000") == {"load"}, "the first step to be published", poll_s=0.1, timeout_s=90
    )
    process.kill()
    text, _ = process.communicate(timeout=30)
    again, second = repository.job(attempt=2, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert "attempt 2 resumes run `train-1000`" in ran.text
    assert "was lost" in ran.text
    assert second.read("data.txt") == first.read("data.txt") != ""
    log = second.log("train-1000")
    assert [[it.outcome for it in step.attempts] for step in log.steps.values()] == [
        ["succeeded"],
        ["interrupted", "succeeded"],
    ]
    assert finished(where, "train-1000") == {"load", "train"}
    assert b"found" not in text + ran.text.encode()  # the token is in the memory of the run, and in no environment


def test_a_job_may_publish_at_its_end_alone(tmp_path: Path, served: Served) -> None:
    """With `publish: at-end` nothing is sent while the steps run."""
    where = served.repository()
    repository = Repository(tmp_path, where, {"runnable.toml": SLOW}, is_quick=False)
    action, project = repository.job(publish="at-end", files={"fixed": ""})
    process = action.start("run")
    wait_until(lambda: project.read("data.txt"), "the first step")
    process.communicate(timeout=30)
    time.sleep(0.1)
    assert finished(where, "train-1000") == set()
    action.outputs["run"] = {"run-id": "train-1000"}
    assert action.step("finish").code == 0
    assert finished(where, "train-1000") == {"load", "train"}


LAST = """
[steps.test]
run = 'test -e tested || sleep 60'
"""


def job_lost(repository: Repository, where: str, steps: set[str], attempt: int, *files: str, **more: Any) -> None:
    """Lose the runner of a job once these steps are published as finished."""
    action, _ = repository.job(attempt=attempt, files=dict.fromkeys(files, ""), **more)
    action.download()
    process = action.start("run")
    is_published = False
    for _ in range(300):
        if is_published := finished(where, "train-1000") == steps or process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    text, _ = process.communicate(timeout=30)
    assert is_published and process.returncode < 0, text.decode()


def outcomes(project: Workspace) -> list[list[str]]:
    """How each attempt at each step ended."""
    return [[it.outcome for it in step.attempts] for step in project.log("train-1000").steps.values()]


def test_a_runner_lost_twice(tmp_path: Path, served: Served) -> None:
    """The third attempt of a job resumes what the second one, which had resumed the first, had done until then."""
    where = served.repository()
    repository = Repository(tmp_path, where, {"runnable.toml": f"{SLOW}{LAST}"}, is_quick=False)
    job_lost(repository, where, {"load"}, 1)
    job_lost(repository, where, {"load", "train"}, 2, "fixed")
    again, project = repository.job(attempt=3, files={"fixed": "", "tested": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert "attempt 2 was lost" in ran.text
    assert outcomes(project) == [["succeeded"], ["interrupted", "succeeded"], ["interrupted", "succeeded"]]


def test_a_runner_lost_after_a_failure(tmp_path: Path, served: Served) -> None:
    """What the lost second attempt had done counts more than what the failed first one left."""
    where = served.repository()
    failing = SLOW.replace("test -e fixed || sleep 60", "test -e fixed")
    repository = Repository(tmp_path, where, {"runnable.toml": f"{failing}{LAST}"}, is_quick=False)
    first, _ = repository.job()
    assert first.all().code == 1
    job_lost(repository, where, {"load", "train"}, 2, "fixed")
    again, project = repository.job(attempt=3, files={"fixed": "", "tested": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert outcomes(project) == [["succeeded"], ["failed", "succeeded"], ["interrupted", "succeeded"]]


def test_the_runner_of_a_retry_is_lost(tmp_path: Path, served: Served) -> None:
    """A retry of exactly one state of a run has resumed it: its second attempt goes on there, and waits for nobody."""
    where = served.repository()
    repository = Repository(tmp_path, where, {"runnable.toml": f"{SLOW}{LAST}"}, is_quick=False)
    failing = SLOW.replace("test -e fixed || sleep 60", "test -e fixed")
    first, _ = repository.job(files={"runnable.toml": f"{failing}{LAST}"})
    assert first.all().code == 1
    digest = first.outputs["finish"]["digest"]
    retry: dict[str, Any] = {"command": "retry", "run_id": f"train-1000@{digest}"}
    elsewhere: dict[str, Any] = {"variables": {"GITHUB_RUN_ID": "1001", "GITHUB_JOB": "retry"}}
    job_lost(repository, where, {"load", "train"}, 1, "fixed", **retry, **elsewhere)
    again, project = repository.job(attempt=2, files={"fixed": "", "tested": ""}, **retry, **elsewhere)
    ran = again.all()
    assert ran.code == 0, ran.text
    assert outcomes(project) == [["succeeded"], ["failed", "succeeded"], ["interrupted", "succeeded"]]
