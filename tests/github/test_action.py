"""The real action and workflows, run by `act`: real git over HTTP, a real registry, and the CLI that dispatches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from act import ACT_TIMEOUT_S, REPOSITORY, ROOT, Ran, Runner, git_host, wheelhouse
from cli import Workspace, workspace
from dispatched import Following
from github_api import Run, github
from registry_server import Served, registry

from runnable_ci.runs.model import RunLog

PIPELINE = """
name = "flowers"
[steps.load]
run = '''
head -c 50000 /dev/urandom | base64 > data.txt
echo "rows=3" >> "$RUNNABLE_OUTPUT"
'''
returns = { rows = "metric" }
catalog = { put = ["data.txt"] }
[steps.fit]
run = "sha256sum < data.txt; test -e fixed || test -n \\"$LUCKY\\""
catalog = { get = ["data.txt"] }
"""
LONG = """
[steps.load]
run = "echo data > data.txt"
catalog = { put = ["data.txt"] }
[steps.train]
run = "python3 train.py"
checkpoint = { path = ["ckpt/**"], every-minutes = 0.01 }
"""
TRAIN = """
import pathlib, time
state = pathlib.Path("ckpt/epoch")
state.parent.mkdir(exist_ok=True)
for epoch in range(int(state.read_text()) if state.exists() else 0, 16):
    new = state.with_suffix(".new")
    new.write_text(str(epoch + 1))
    new.replace(state)
    time.sleep(0.5)
"""
HOSTILE = """
[steps.talk]
run = '''
echo "::error::not an error"
echo "  ::set-output name=status::PWNED"
echo "x ##[error]not one either"
printf '::add-mask::talk\\n::stop-commands::x'
echo "status<<NEVER_ENDS" >> "$GITHUB_OUTPUT"
echo "digest=PWNED" >> "$GITHUB_OUTPUT"
'''
"""
MATRIX = """
on: push
jobs:
  train:
    runs-on: ubuntu-latest
    strategy:
      matrix: { leg: [a, b] }
    steps:
      - uses: actions/checkout@CHECKOUT
      - id: pipeline
        uses: runnable/action@v1
      - if: always()
        run: echo "leg ${{ matrix.leg }} has $(sha256sum < data.txt)"
"""
CALLER = """
on: push
jobs:
  call:
    strategy:
      matrix: { leg: [alpha, beta] }
    uses: ./.github/workflows/inner.yml
    with: { leg: "${{ matrix.leg }}" }
"""
INNER = """
on: { workflow_call: { inputs: { leg: { type: string } } } }
jobs:
  train:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@CHECKOUT
      - uses: runnable/action@v1
        env: { LEG: "${{ inputs.leg }}" }
"""
LEGS = """
[steps.data]
run = 'echo "data of $LEG" | tee data.txt'
catalog = { put = ["data.txt"] }
[steps.fit]
run = 'grep -qx "data of $LEG" data.txt && test -n "$LUCKY"'
"""


@dataclass
class World:
    """A repository on a git host, a developer's clone of it, a registry, and a machine that runs workflows."""

    clone: Workspace
    bare: Path
    runner: Runner
    served: Served
    registry: str

    def push(self) -> str:
        """Commit and push everything; the commit."""
        commit = self.clone.commit()
        self.clone.git("push", "-q", "origin", "HEAD:main")
        return commit

    def run(
        self,
        workflow: str = "ci.yml",
        event: str = "push",
        *,
        payload: Mapping[str, Any] | None = None,
        run_id: int = 1000,
        attempt: int = 1,
        variables: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run a workflow of the clone on the main branch."""
        return self.runner.run(
            event,
            f".github/workflows/{workflow}",
            clone=self.clone.folder,
            payload=payload or {"ref": "refs/heads/main", "repository": {"default_branch": "main"}},
            run_id=run_id,
            attempt=attempt,
            **(variables or {}),
        )

    def pulled(self, run_id: str, tmp_path: Path, name: str) -> tuple[RunLog, bytes]:
        """A run's log and its `data.txt`, as somebody else has them from the registry."""
        other = workspace(tmp_path, {}, git=False, name=name)
        other.runnable("pull", run_id, "--from", self.registry)
        other.runnable("catalog", run_id, "--get", "data.txt", "--to", "data.txt")
        return other.log(run_id), (other.folder / "data.txt").read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """All of it, with a pipeline that fails and the workflows that `init --github` writes, pushed."""
    bare = tmp_path / "host" / REPOSITORY
    bare.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "config", "uploadpack.allowAnySHA1InWant", "true"], check=True)
    clone = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": ".runnable/\n"})
    clone.git("remote", "add", "origin", str(bare))
    clone.runnable("init", "--github")
    wheels = wheelhouse(ROOT / ".cache")
    with git_host(tmp_path / "host") as url, registry(tmp_path / "registry") as served:
        repository = served.repository()
        runner = Runner(tmp_path / "machine", url, wheels, {"RUNNABLE_CI_REGISTRY": repository}, is_prepared=True)
        found = World(clone, bare, runner, served, repository)
        found.push()
        yield found


def test_from_failure_to_success_by_a_dispatched_retry(world: World, tmp_path: Path) -> None:
    """A push fails and is published; a commit fixes it; the CLI dispatches the retry, which resumes and publishes."""
    failed = world.run()
    assert failed.code == 1, failed.text
    assert (failed.outputs["status"], failed.outputs["failed-step"]) == ("FAIL", "fit")
    run_id = failed.outputs["run-id"]
    assert f"runnable-ci dispatch {run_id}" in failed.summary
    before, data = world.pulled(run_id, tmp_path, "before")

    world.clone.write({"fixed": ""})
    fix = world.push()
    ran: list[Ran] = []

    def act(asked: Run) -> str:
        ran.append(
            world.run(
                "retry.yml",
                "workflow_dispatch",
                payload={"inputs": dict(asked.inputs), "ref": "refs/heads/main"},
                run_id=asked.id,
            )
        )
        return "success" if ran[0].code == 0 else "failure"

    with github(on_dispatch=act) as server:
        server.git = world.bare
        told = replace(world.clone, environ={**world.clone.environ, **server.variables})
        with told.start("dispatch", run_id, "--watch", "--repo", "owner/repo") as watching:
            out, err = watching.communicate(timeout=ACT_TIMEOUT_S)
        assert watching.returncode == 0, err
        assert b"/actions/runs/" in out
        server.wait()
    assert ran[0].code == 0, ran[0].text
    after, same = world.pulled(run_id, tmp_path, "after")
    assert same == data
    assert (before.status, after.status) == ("FAIL", "SUCCESS")
    assert [len(step.attempts) for step in after.steps.values()] == [1, 2]
    assert after.steps["load"].attempts == before.steps["load"].attempts
    assert after.steps["fit"].attempts[1].code_identities[0].code_identifier == fix


@pytest.mark.long("test_action_relay.py and test_checkpoints.py hold it in processes")
def test_a_run_outlives_its_jobs(world: World, tmp_path: Path) -> None:
    """A run for which no job has time enough is handed from job to job by the real workflows, and finished."""
    world.clone.write({"runnable.toml": LONG, "train.py": TRAIN})
    for file in (".github/workflows/ci.yml", ".github/workflows/retry.yml"):
        uses = re.compile(r"(?<=\n        with:\n)(?=          (?:#|command))")
        limited, count = uses.subn("          time-budget: 8s\n", world.clone.read(file))
        assert count == 1
        world.clone.write({file: limited})
    world.push()
    following = Following(world.runner, world.clone.folder)
    with github(on_dispatch=following) as server:
        following.serve(server, world.bare)
        first = world.run()
        server.wait(ACT_TIMEOUT_S)
        assert first.code == 1, first.text
        assert "The run continues in another job" in first.text
        assert server.html_url(server.runs[16_000_000_001]) in first.outputs["continued-by"]
        assert len(server.dispatched) == len(following.ran) > 0
    assert [ran.code for ran in following.ran] == [1] * (len(following.ran) - 1) + [0]
    log, _ = world.pulled(first.outputs["run-id"], tmp_path, "after")
    assert log.status == "SUCCESS"
    assert len(log.invocations) == len(following.ran) + 1
    assert [len(step.attempts) for step in log.steps.values()] == [1, len(log.invocations)]
    assert all(attempt.checkpoint_used for attempt in log.steps["train"].attempts[1:])


@pytest.mark.long("test_action_attempts.py holds it in processes")
def test_re_run_failed_jobs_resumes_each_leg(world: World, tmp_path: Path) -> None:
    """The next attempt of a matrix job resumes each leg's own run, and later steps of the job find its files."""
    (checkout,) = set(re.findall(r"actions/checkout@(\w+)", world.clone.read(".github/workflows/ci.yml")))
    world.clone.write({".github/workflows/matrix.yml": MATRIX.replace("CHECKOUT", checkout)})
    world.push()
    first = world.run("matrix.yml")
    assert first.code == 1, first.text
    second = world.run("matrix.yml", attempt=2, variables={"LUCKY": "yes"})
    assert second.code == 0, second.text
    said = [sorted(line for line in ran.lines() if line.startswith("leg ")) for ran in (first, second)]
    assert said[0] == said[1]
    assert len(set(said[0])) == 2
    runs = json.loads(world.clone.runnable("runs", "--from", world.registry, "--json").out)
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    for run in runs:
        log, _ = world.pulled(run["run_id"], tmp_path, run["run_id"])
        assert [len(step.attempts) for step in log.steps.values()] == [1, 2]


@pytest.mark.long("test_action_attempts.py holds it in processes")
def test_legs_that_call_a_workflow_never_share_a_run(world: World) -> None:
    """The runner tells neither leg of a calling job apart: four runs in two attempts, each with its own leg's data."""
    (checkout,) = set(re.findall(r"actions/checkout@(\w+)", world.clone.read(".github/workflows/ci.yml")))
    folder = ".github/workflows/"
    files = {"runnable.toml": LEGS, f"{folder}call.yml": CALLER, f"{folder}inner.yml": INNER}
    world.clone.write({name: text.replace("CHECKOUT", checkout) for name, text in files.items()})
    world.push()
    first = world.run("call.yml")
    assert first.code == 1, first.text
    assert "Published under another run id" in first.text
    second = world.run("call.yml", attempt=2, variables={"LUCKY": "yes"})
    assert second.code == 0, second.text
    assert second.text.count("look the same to the action") >= 2
    runs = json.loads(world.clone.runnable("runs", "--from", world.registry, "--json").out)
    assert sorted(run["status"] for run in runs) == ["FAIL", "FAIL", "SUCCESS", "SUCCESS"]


@pytest.mark.long("test_action_environment.py and test_action_page.py hold it in processes")
def test_a_pull_request_from_a_fork(world: World) -> None:
    """It publishes nothing; its run is an artifact, from which its next attempt resumes; or it is said to be lost."""
    event = {
        "pull_request": {"number": 1, "head": {"repo": {"full_name": "someone/flowers"}, "ref": "x", "sha": "1" * 40}},
        "repository": {"default_branch": "main"},
    }
    checkout = {"CHECKOUT_REF": "refs/heads/main"}
    failed = world.run(event="pull_request", payload=event, variables=checkout)
    assert failed.code == 1, failed.text
    (first,) = (world.runner.folder / "artifacts").iterdir()
    ran = world.run(event="pull_request", payload=event, attempt=2, variables={**checkout, "LUCKY": "yes"})
    assert ran.code == 0, ran.text
    assert "from a fork" in ran.summary
    assert world.clone.runnable("runs", "--from", world.registry).out == ""
    (artifact,) = (path for path in (world.runner.folder / "artifacts").iterdir() if path != first)
    shutil.copytree(artifact, world.clone.store, dirs_exist_ok=True)
    log = world.clone.log()
    assert (log.status, [len(step.attempts) for step in log.steps.values()]) == ("SUCCESS", [1, 2])
    assert any(f"kept as an artifact of this workflow run, `{artifact.name}`" in line for line in ran.lines())
    variables = {**checkout, "LUCKY": "yes", "ARTIFACTS": "/dev/null/full"}
    lost = world.run(event="pull_request", payload=event, run_id=1001, variables=variables)
    assert lost.code == 0, lost.text
    assert "The run is not kept" in lost.summary
    assert not any("kept as an artifact" in line for line in lost.lines())


@pytest.mark.long("test_publish_and_pull.py holds it in processes")
def test_two_retries_at_once(world: World, tmp_path: Path) -> None:
    """Both publish under the same id, and nothing of either is lost."""
    run_id = world.run().outputs["run-id"]
    world.clone.write({"fixed": ""})
    world.push()
    payload = {"inputs": {"run-id": run_id}, "ref": "refs/heads/main"}

    def retry(number: int) -> Ran:
        return world.run("retry.yml", "workflow_dispatch", payload=payload, run_id=number)

    with ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(retry, (2001, 2002)))
    assert [one.code for one in ran] == [0, 0], ran[0].text + ran[1].text
    log, _ = world.pulled(run_id, tmp_path, "after")
    assert log.status == "SUCCESS"
    assert len(log.invocations) == 3
    assert [len(step.attempts) for step in log.steps.values()] == [1, 3]


@pytest.mark.long("test_hostile_registry.py holds it in processes")
def test_a_blob_that_was_tampered_with(world: World, tmp_path: Path) -> None:
    """A retry refuses it by its digest and fails; once it is repaired, the retry goes on."""
    run_id = world.run().outputs["run-id"]
    log, data = world.pulled(run_id, tmp_path, "before")
    digest = log.steps["load"].put_entries()[0].data_hash
    (stored,) = [path for path in (tmp_path / "registry").rglob("data") if path.parent.name == digest]
    stored.write_bytes(data[:-1] + b"!")
    world.clone.write({"fixed": ""})
    world.push()
    payload = {"inputs": {"run-id": run_id}, "ref": "refs/heads/main"}
    refused = world.run("retry.yml", "workflow_dispatch", payload=payload, run_id=2001)
    assert refused.code == 1
    assert digest in refused.text
    assert "Traceback" not in refused.text
    stored.write_bytes(data)
    mended = world.run("retry.yml", "workflow_dispatch", payload=payload, run_id=2002)
    assert mended.code == 0, mended.text


@pytest.mark.long("test_github_live.py and test_action_commands.py hold it in processes")
def test_hostile_output_with_the_registry_down(world: World) -> None:
    """What a step prints or writes is never the runner's command; the exit code is the pipeline's all the same."""
    world.clone.write({"runnable.toml": HOSTILE})
    world.push()
    ran = world.run(variables={"RUNNABLE_CI_REGISTRY": "127.0.0.1:9/octo/flowers"})
    assert ran.code == 0, ran.text
    commands = [event for event in ran.events if event.get("command") in ("error", "set-output", "add-mask")]
    assert "PWNED" not in json.dumps(commands)
    assert not [event for event in commands if event["command"] == "error"]
    assert ran.outputs["status"] == "SUCCESS"
    assert "Not published" in ran.summary
    (artifact,) = (path.name for path in (world.runner.folder / "artifacts").iterdir())
    assert artifact.startswith(f"runnable-{ran.outputs['run-id']}-1-")
