"""Jobs of a workflow that share one run: the action's steps, a real registry, artifacts that are really kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from action_steps import ActionRun, Repository, Stepped
from cli import Workspace
from registry_server import Served, registry

from runnable_ci.github.job_graph.workflow_file import MARK

PIPELINE = """
name = "flowers"
[steps.list]
run = 'echo data > data.txt; echo "parts=[\\"a\\",\\"b\\"]" >> $RUNNABLE_OUTPUT'
returns = ["parts"]
catalog = { put = ["data.txt"] }
[steps.quant]
needs = ["list"]
run = '''
cat data.txt > $s.q
if [ $s = b ]; then test -e fixed; fi
'''
strategy = { matrix = { s = "${{ parameters.parts }}" }, fail-fast = false }
catalog = { get = ["data.txt"], put = ["${{ matrix.s }}.q"] }
[steps.join]
needs = ["quant"]
run = "cat *.q > join.txt"
catalog = { get = ["*.q"], put = ["join.txt"] }
"""
CI = {"GITHUB_WORKFLOW_REF": "octo/flowers/.github/workflows/ci.yml@refs/heads/main"}
FORK = {"pull_request": {"head": {"repo": {"full_name": "someone/flowers"}, "sha": "1" * 40}}}
OF_FORK = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


class Workflow:
    """A workflow run whose jobs share a run."""

    def __init__(self, repository: Repository, *, is_fork: bool) -> None:
        self.repository = repository
        self.variables = {**CI, **(OF_FORK if is_fork else {})}
        self.event = FORK if is_fork else None

    def job(
        self, name: str, *, code: int = 0, attempt: int = 1, fixed: bool = False, **inputs: str
    ) -> tuple[ActionRun, Stepped, Workspace]:
        """Run a job to its end; matrix legs differ by their name alone."""
        action, project = self.repository.job(
            attempt=attempt,
            variables={**self.variables, "GITHUB_JOB": name},
            event=self.event,
            matrix={"leg": inputs.get("instances")},
            given=inputs,
        )
        if fixed:
            (project.folder / "fixed").touch()
        ran = action.all()
        assert ran.code == code, ran.text
        return action, ran, project


@pytest.mark.parametrize("is_fork", [False, True], ids=["registry", "artifacts"])
@pytest.mark.long("test_shared_runs.py holds it without the action")
def test_jobs_share_a_run_and_a_re_run_resumes_it(tmp_path: Path, served: Served, is_fork: bool) -> None:
    """One id, one summary; what succeeded is reused. A fork's jobs carry the run in artifacts, and publish nothing."""
    files = {"runnable.toml": PIPELINE, ".gitignore": "*.txt\n*.q\nfixed\n.runnable\n"}
    workflow = Workflow(Repository(tmp_path, served.repository(), files), is_fork=is_fork)
    first, ran, _ = workflow.job("list", steps="list", matrix_of="quant")
    assert json.loads(first.outputs["run"]["matrix"]) == {"quant": ["a", "b"]}
    assert first.outputs["finish"]["status"] == "SUCCESS"
    workflow.job("quant", steps="quant", instances="a")
    failed, _, _ = workflow.job("quant", steps="quant", instances="b", code=1)
    assert failed.outputs["finish"]["status"] == "FAIL"
    blocked, ran, _ = workflow.job("join", steps="join", code=1)
    assert "`quant` failed" in ran.text
    collected, _, project = workflow.job("collect", collect="true", code=1)
    assert "failed" in collected.summary
    assert [it.summary for it in (first, failed, blocked)] == ["", "", ""]
    run_id = collected.outputs["finish"]["run-id"]
    assert {it.outputs["finish"]["run-id"] for it in (first, failed, blocked)} == {run_id}
    assert run_id.startswith("ci-1000-")
    assert bool(collected.outputs["finish"]["reference"]) != is_fork

    workflow.job("quant", steps="quant", instances="b", attempt=2, fixed=True)
    workflow.job("join", steps="join", attempt=2)
    collected, _, project = workflow.job("collect", collect="true", attempt=2)
    log = project.log(run_id)
    assert log.status == "SUCCESS"
    made = {name: len(step.attempts) for name, step in log.steps.items() if step.attempts}
    assert made == {"list": 1, "quant.a.quant": 1, "quant.b.quant": 2, "join": 1}
    assert log.invocations[-1].decisions["quant.a.quant"].action == "reuse"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"steps": "list", "command": "retry", "run_id": "x"}, "takes none of the inputs steps"),
        ({"steps": "list", "publish": "never"}, "jobs that share a run find it where the others have published it"),
        ({"steps": "list", "from_step": "list"}, "from-step is for command"),
        ({"steps": "list", "args": "--step join"}, "use the input steps"),
        ({"steps": "list", "collect": "true"}, "--collect runs no step"),
        ({"steps": "list", "resume": "never"}, "resume: never: jobs that share a run resume it"),
        ({"steps": "list", "resume": "always", "run_id": "ci-1"}, "there is no run `ci-1` in "),
        (
            {"steps": "list", "resume": "always", "run_id": "ghcr.io/a/b:r"},
            "ghcr.io/a/b is not where these jobs publish",
        ),
        ({"steps": "list", "args": "--checkpoint drop"}, "no such option: --checkpoint"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, served: Served, inputs: dict[str, str], said: str) -> None:
    """They are an error that names the input, before any step runs."""
    action, project = Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE}).job(
        variables=CI, given=inputs
    )
    ran = action.step("run")
    assert ran.code != 0
    assert said in ran.text
    assert not (project.folder / "data.txt").exists()


@pytest.mark.long("test_writers.py and test_shared_runs.py hold it without the action")
def test_a_retry_uses_what_was_looked_at_and_what_its_own_jobs_made(tmp_path: Path, served: Served) -> None:
    """A run of a branch that the job would not accept is named by its digest: all jobs of the retry resume that."""
    files = {"runnable.toml": PIPELINE, ".gitignore": "*.txt\n*.q\nfixed\n.runnable\n"}
    repository = Repository(tmp_path, served.repository(), files)
    first = Workflow(repository, is_fork=False)
    first.variables["GITHUB_REF"] = "refs/heads/topic"
    first.job("list", steps="list")
    first.job("quant", steps="quant", code=1)
    collected, _, project = first.job("collect", collect="true", code=1)
    apart = f"{repository.registry}/pull-requests"
    project.runnable("publish", collected.outputs["finish"]["run-id"], "--to", apart)
    run_id, digest = (collected.outputs["finish"][name] for name in ("run-id", "digest"))

    retry = Workflow(repository, is_fork=False)
    retry.variables |= {"GITHUB_RUN_ID": "1001", "GITHUB_REF": "refs/heads/main"}
    given: dict[str, Any] = {"run_id": run_id, "resume": "always"}
    action, _ = repository.job(variables=retry.variables, given={"steps": "list", **given})
    assert "was not written by a writer that is accepted here (main)" in action.step("run").text
    last, ran, _ = retry.job("list", steps="list", **{**given, "run_id": f"{apart}:{run_id}@{digest}"})
    assert "list | reuse: unchanged since attempt 1" in ran.text
    assert last.outputs["finish"]["reference"].startswith(f"{apart}:{run_id}@")
    for pinned in ({**given, "args": f"--writers {digest}"}, {**given, "run_id": f"{run_id}@{digest}"}):
        _, ran, _ = retry.job("list", steps="list", **pinned)
        assert "list | reuse: unchanged since attempt 1" in ran.text
        retry.job("quant", steps="quant", fixed=True, **pinned)
        retry.job("join", steps="join", **pinned)
        _, _, project = retry.job("collect", collect="true", **pinned)
        log = project.log(run_id)
        assert log.status == "SUCCESS"
        made = {name: len(step.attempts) for name, step in log.steps.items() if step.attempts}
        assert made == {"list": 1, "quant.a.quant": 1, "quant.b.quant": 2, "join": 1}


def test_the_summary_of_a_written_workflow_starts_that_again(tmp_path: Path, served: Served) -> None:
    """Not the workflow that retries a run in one job; that is for jobs that a person wrote."""
    files = {"runnable.toml": PIPELINE, ".github/workflows/retry.yml": "on: workflow_dispatch\n"}
    for name, text, option in (("mine", "on: push\n", ""), ("own", f"{MARK}\n", " --workflow own.yml")):
        (tmp_path / name).mkdir()
        repository = Repository(tmp_path / name, served.repository(), {**files, f".github/workflows/{name}.yml": text})
        jobs = Workflow(repository, is_fork=False)
        jobs.variables["GITHUB_WORKFLOW_REF"] = f"octo/flowers/.github/workflows/{name}.yml@refs/heads/main"
        jobs.job("list", steps="list")
        collected, _, _ = jobs.job("collect", collect="true", code=1)
        finished = collected.outputs["finish"]
        assert f"runnable-ci dispatch {finished['run-id']}@{finished['digest']}{option} --ref main" in collected.summary
