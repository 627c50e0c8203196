"""Jobs of a workflow that share one run: the action's steps, a real registry, artifacts that are really kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from action_steps import ActionRun, Repository, Stepped
from cli import Workspace
from registry_server import Served, registry

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
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, served: Served, inputs: dict[str, str], said: str) -> None:
    """They are an error that names the input, before any step runs."""
    action, project = Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE}).job(
        variables=CI, given=inputs
    )
    ran = action.step("run")
    assert ran.code == 2
    assert said in ran.text
    assert not (project.folder / "data.txt").exists()
