"""A job whose time is over hands its run to the next one: the action's steps, a real registry, described API."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from action_steps import ActionRun, Repository, Stepped
from cli import Workspace
from github_api import TOKEN, GitHub, Run, github, refusal
from registry_server import Served, registry

from runnable_ci.runs.model import RunLog

TRAIN = """
import pathlib, time
state = pathlib.Path("ckpt/epoch")
state.parent.mkdir(exist_ok=True)
epoch = int(state.read_text()) if state.exists() else 0
while epoch < 24:
    epoch += 1
    new = state.with_suffix(".new")
    new.write_text(str(epoch))
    new.replace(state)
    time.sleep(0.5)
pathlib.Path("model.txt").write_text("trained")
"""
PIPELINE = """
name = "flowers"
[steps.load]
run = "echo data > data.txt"
catalog = { put = ["data.txt"] }
[steps.train]
run = "python3 train.py"
checkpoint = { path = ["ckpt/**"], every-minutes = 0.01 }
catalog = { put = ["model.txt"] }
"""
IDLE = '[steps.wait]\nrun = "sleep 60"\ncheckpoint = ["ckpt/**"]\n'
FAILING = """
[steps.train]
run = "mkdir -p ckpt; echo $RANDOM >> ckpt/epoch; exit 1"
checkpoint = ["ckpt/**"]
"""
BUDGET = "8s"
STOPPED = "No other job continues the run"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@dataclass
class Jobs:
    """A repository at GitHub, whose retry workflow uses the action as it is asked to."""

    repository: Repository
    server: GitHub
    inputs: Mapping[str, str] = field(default_factory=dict)
    done: list[tuple[ActionRun, Workspace, Stepped]] = field(default_factory=list)

    def job(
        self,
        given: Mapping[str, str] | None = None,
        *,
        event: Mapping[str, object] | None = None,
        run_id: int = 1000,
        attempt: int = 1,
        variables: Mapping[str, str] | None = None,
    ) -> Stepped:
        """Run a job of the action with these inputs to its end."""
        own = {"GITHUB_REPOSITORY": "owner/repo", "GITHUB_RUN_ID": str(run_id), **(variables or {})}
        context = {"github.token": self.server.token}
        action, project = self.repository.job(
            attempt=attempt,
            event={"repository": {"default_branch": "main"}, **(event or {})},
            variables={**self.server.variables, **own},
            context=context,
            given={"time-budget": BUDGET, **self.inputs, **(given or {})},
        )
        if self.server.git is None:
            self.server.given["main"] = project.git("rev-parse", "HEAD")
        action.artifacts = self.repository.tmp_path / f"artifacts-{run_id}"
        action.artifacts.mkdir(exist_ok=True)
        ran = action.all()
        self.done.append((action, project, ran))
        return ran

    def retry(self, asked: Run) -> str:
        """Run the job of the retry workflow, with the inputs as it passes them on."""
        given = {"command": "retry", "run-id": asked.inputs["run-id"], "args": asked.inputs.get("options", "")}
        ran = self.job(given, event={"inputs": dict(asked.inputs)}, run_id=asked.id)
        return "failure" if ran.code else "success"

    def log(self) -> RunLog:
        """The run log as the last job had it."""
        action, project, _ = self.done[-1]
        return project.log(action.outputs["finish"]["run-id"])


@pytest.fixture
def jobs(tmp_path: Path, served: Served) -> Iterator[Jobs]:
    """Each dispatch is answered by a job, as GitHub does it."""
    found: list[Jobs] = []
    with github(lambda run: found[0].retry(run)) as server:  # noqa: PLW0108 - it is made below
        files = {"runnable.toml": PIPELINE, "train.py": TRAIN, ".gitignore": ".runnable\n"}
        repository = Repository(tmp_path, served.repository(), files)
        found.append(Jobs(repository, server))
        yield found[0]


@pytest.mark.promise
def test_jobs_hand_a_run_on_until_it_is_finished(jobs: Jobs) -> None:
    """Each is red, says where the run continues, and starts the retry of what it published at its own commit."""
    ran = jobs.job({"args": "--jobs 1 --tag mine"})
    jobs.server.wait()
    assert ran.code == 75
    first, project, _ = jobs.done[0]
    outputs = first.outputs["finish"]
    assert outputs["status"] == "FAIL"
    sent = jobs.server.dispatched[0]
    assert sent == {
        "workflow": "retry.yml",
        "ref": "main",
        "inputs": {
            "run-id": "train-1000",
            "ref": project.git("rev-parse", "HEAD"),
            "options": f"--jobs 1 --writers {outputs['digest']}",
        },
    }
    page = jobs.server.html_url(jobs.server.runs[16_000_000_001])
    assert outputs["continued-by"] == page
    assert "The run continues in another job" in ran.text
    assert page in ran.text
    assert "was ended by its time budget" in first.summary
    assert "job 2 of at most 11" in first.summary.replace("\\", "")
    assert "Next steps" not in first.summary  # a person who followed these would do it a second time
    log = jobs.log()
    assert log.status == "SUCCESS"
    assert 2 < len(log.invocations) == len(jobs.done) == len(jobs.server.dispatched) + 1
    assert [len(step.attempts) for step in log.steps.values()] == [1, len(jobs.done)]
    assert all(it.checkpoint_used for it in log.steps["train"].attempts[1:])
    assert [run.conclusion for run in jobs.server.runs.values()][-2:] == ["failure", "success"]
    assert jobs.done[-1][0].outputs["finish"]["continued-by"] == ""


def test_a_chain_without_progress_ends(jobs: Jobs) -> None:
    """After two jobs that got nothing done, the third one, none is started: it says why, and what a person can type."""
    jobs.repository.files = {"runnable.toml": IDLE}
    jobs.job()
    jobs.server.wait()
    assert len(jobs.done) == 3
    action, _, ran = jobs.done[-1]
    assert STOPPED in ran.text
    assert "the last 2 jobs finished no step and kept no new checkpoint" in ran.text
    digest = action.outputs["finish"]["digest"]
    assert f"`runnable-ci dispatch train-1000@{digest} --ref " in ran.text
    assert "finished no step" in action.summary
    assert "Next steps" in action.summary


@pytest.mark.parametrize("most", ["1", "0"])
def test_so_many_jobs_at_most(jobs: Jobs, most: str) -> None:
    """`relay-max` bounds the jobs that follow the first one, by what the run log has of them."""
    jobs.repository.files = {"runnable.toml": IDLE}
    jobs.inputs = {"relay-max": most}
    jobs.job()
    jobs.server.wait()
    assert len(jobs.done) == int(most) + 1
    assert f"`relay-max: {most}` is reached" in jobs.done[-1][2].text


@pytest.mark.parametrize(
    ("status", "message", "said", "fix"),
    [
        (403, "Resource not accessible by integration", "may not do this in owner/repo", "  actions: write"),
        (404, "Not Found", "owner/repo has no workflow retry.yml on its default branch", ""),
        (422, "Workflow does not have 'workflow_dispatch' trigger", "is not started by workflow_dispatch", ""),
        (500, "Server Error", "keeps failing", ""),
    ],
)
def test_a_job_that_cannot_be_started(jobs: Jobs, status: int, message: str, said: str, fix: str) -> None:
    """The run stays as it is and published; one sentence says why, with the lines that change it and the command."""
    jobs.server.answer("POST", "/dispatches", refusal(status, message))
    ran = jobs.job()
    assert ran.code == 75
    assert jobs.server.dispatched == []
    action = jobs.done[0][0]
    assert STOPPED in ran.text
    assert said in ran.text
    assert "runnable-ci dispatch train-1000@sha256:" in ran.text
    assert (fix in action.summary) and action.outputs["finish"]["continued-by"] == ""
    shown = [line for line in ran.text.splitlines() if not line.startswith("::add-mask::")]
    assert TOKEN not in "\n".join(shown) + action.summary


def test_where_nothing_may_be_started(jobs: Jobs) -> None:
    """Not by a fork's pull request, nor for a run that is published nowhere; nor is anything asked of GitHub then."""
    fork = {"pull_request": {"head": {"repo": {"full_name": "someone/flowers"}, "sha": "1" * 40}}}
    of_fork = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge"}
    assert "A pull request from a fork has no token" in jobs.job(event=fork, variables=of_fork).text
    assert "It is not published" in jobs.job({"publish": "never"}).text
    assert jobs.server.server.seen == []


def test_a_commit_that_github_does_not_have(jobs: Jobs) -> None:
    """A job that committed something cannot be continued by one that checks it out."""
    jobs.server.given["other"] = "1" * 40
    jobs.server.git = jobs.repository.tmp_path / "bare"
    jobs.repository.tmp_path.joinpath("bare").mkdir()
    os.system(f"git -C {jobs.server.git} init -q --bare -b main")  # noqa: S605
    ran = jobs.job()
    assert "that is checked out is not in owner/repo" in ran.text
    assert jobs.server.dispatched == []


def test_what_ended_in_another_way_is_not_handed_on(jobs: Jobs) -> None:
    """A failure, and a job that somebody cancels, start nothing; neither does `time-budget: off`."""
    jobs.repository.files = {"runnable.toml": '[steps.a]\nrun = "exit 3"\n'}
    assert jobs.job().code == 1
    jobs.repository.files = {"runnable.toml": '[steps.a]\nrun = "sleep 7"\n'}
    assert jobs.job({"time-budget": "off"}, run_id=1001).code == 0
    assert jobs.server.dispatched == []


def test_the_job_s_own_limit_is_the_budget(jobs: Jobs) -> None:
    """By default the run ends before `timeout-minutes` of its job is over, which began when the event was written."""
    workflow = "on: push\njobs: { train: { runs-on: x, timeout-minutes: 1, steps: [] } }\n"
    jobs.repository.files = {**jobs.repository.files, "runnable.toml": IDLE, ".github/workflows/ci.yml": workflow}
    variables = {
        **jobs.server.variables,
        "GITHUB_REPOSITORY": "owner/repo",
        "GITHUB_WORKFLOW_REF": "owner/repo/.github/workflows/ci.yml@refs/heads/main",
        "RUNNER_DEBUG": "1",
    }
    action, _ = jobs.repository.job(variables=variables, given={"relay-max": "0"})
    began = time.time() - 20
    os.utime(action.environ["GITHUB_EVENT_PATH"], (began, began))
    ran = action.all()
    assert ran.code == 75, ran.text
    assert 20 < time.time() - began < 40
    assert "the job is ended after 1 min" in ran.text


def test_a_re_run_drops_no_checkpoint_again(jobs: Jobs) -> None:
    """`--checkpoint drop` starts steps over at the first attempt of the job alone; a first run takes no such option."""
    jobs.repository.files = {"runnable.toml": FAILING, ".gitignore": ".runnable\n"}
    jobs.inputs = {"args": "--checkpoint drop"}
    assert jobs.job().code == 1
    digest = jobs.done[0][0].outputs["finish"]["digest"]
    given = {**jobs.inputs, "command": "retry", "run-id": f"train-1000@{digest}"}
    for attempt in (1, 2):
        assert jobs.job(given, run_id=1001, attempt=attempt).code == 1
    tried = jobs.log().steps["train"].attempts
    assert [it.checkpoint_dropped for it in tried] == [False, True, False]
    assert [it.checkpoint_used.attempt if it.checkpoint_used else 0 for it in tried] == [0, 0, 2]
