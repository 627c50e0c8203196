"""What `init --github` writes, and the reusable workflow, run by a real workflow runner with a real registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from act import ACT_TOKEN, REPOSITORY, ROOT, Runner, git_host, wheelhouse
from cli import Workspace, workspace
from github_api import github
from registry_server import registry

PIPELINE = """
[parameters]
size = 1
[steps.first]
run = 'echo "$RANDOM$RANDOM$RANDOM" | tee made.txt'
catalog = { put = ["made.txt"] }
[steps.second]
run = "bash second.sh"
returns = { score = "metric" }
"""
SECOND = 'echo "score=$size" >> "$RUNNABLE_OUTPUT"\n'
CALLER = """
on: push
jobs:
  call:
    permissions: { contents: read, packages: write }
    uses: ./.github/workflows/pipeline.yml
    with:
      pipeline: flowers
      run-id: mine
      setup: |
        name='$HOME'
        echo "# $name" >> flowers/second.sh
      parameters: |
        size=5
  after:
    runs-on: ubuntu-latest
    needs: call
    steps:
      - env:
          OUTPUTS: ${{ toJSON(needs.call.outputs) }}
        run: echo "outputs $(jq -c . <<< "$OUTPUTS")"
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A runner whose jobs publish to a registry of this test."""
    with git_host(tmp_path / "git") as server, registry(tmp_path / "registry") as served:
        variables = {"RUNNABLE_CI_REGISTRY": f"{served.host}/{REPOSITORY}/runs", "GITHUB_REF": "refs/heads/main"}
        yield Runner(tmp_path / "runner", server, wheelhouse(ROOT / ".cache"), variables)


def pushed(project: Workspace, tmp_path: Path, branch: str) -> None:
    """Commit everything to a branch, and push it to where the runner checks out from."""
    bare = tmp_path / "git" / REPOSITORY
    if not bare.exists():
        project.git("init", "-q", "--bare", str(bare))
    project.git("checkout", "-qB", branch)
    project.commit()
    project.git("push", "-q", str(bare), branch)


def test_what_init_writes_runs_and_retries(tmp_path: Path, runner: Runner) -> None:
    """A failed run of the written ci.yml is gone on with by the written retry.yml, with the fix that is on a branch."""
    project = workspace(tmp_path, {"flowers/runnable.toml": PIPELINE, "flowers/second.sh": "exit 3\n"})
    project.runnable("init", "--github", at="flowers")
    pushed(project, tmp_path, "main")
    failed = runner.run("push", ".github/workflows/ci.yml", clone=project.folder, run_id=7)
    assert failed.code == 1, failed.text
    assert (failed.outputs["status"], failed.outputs["failed-step"]) == ("FAIL", "second")
    made = next(line for line in failed.lines() if line.rpartition(" ")[2].isdecimal()).rpartition(" ")[2]

    project.write({"flowers/second.sh": f"grep -qx {made} made.txt\n{SECOND}"})
    pushed(project, tmp_path, "fix")
    inputs = {"run-id": failed.outputs["run-id"], "ref": "fix", "parameters": '{"size": 7}'}
    done = runner.run(
        "workflow_dispatch", ".github/workflows/retry.yml", clone=project.folder, payload={"inputs": inputs}
    )
    assert done.code == 0, done.text
    assert done.outputs["run-id"] == failed.outputs["run-id"]
    assert json.loads(done.outputs["metrics"]) == {"score": 7}
    assert any("reuse: unchanged since attempt 1" in line for line in done.lines())


def test_the_reusable_workflow_passes_everything_on(tmp_path: Path, runner: Runner) -> None:
    """A workflow that calls it sets up, chooses run id and parameters, and gets the outputs."""
    project = workspace(
        tmp_path,
        {"flowers/runnable.toml": PIPELINE, "flowers/second.sh": SECOND, ".github/workflows/call.yml": CALLER},
    )
    shutil.copy(ROOT / ".github" / "workflows" / "pipeline.yml", project.folder / ".github" / "workflows")
    pushed(project, tmp_path, "main")
    done = runner.run("push", ".github/workflows/call.yml", clone=project.folder)
    assert done.code == 0, done.text
    (line,) = (line for line in done.lines() if line.startswith("outputs "))
    outputs = json.loads(line.removeprefix("outputs "))
    assert outputs["run-id"] == "mine"
    assert outputs["status"] == "SUCCESS"
    assert json.loads(outputs["metrics"]) == {"score": 5}
    assert outputs["reference"].endswith(f"/runs:mine@{outputs['digest']}")


def test_a_job_of_a_pull_request_writes_its_comment_last(tmp_path: Path, runner: Runner) -> None:
    """When the upload of the page has given its address, which the comment and the check link to."""
    workflow = """
on: pull_request
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@CHECKOUT
      - uses: runnable/action@v1
        with: { pipeline: flowers, run-id: mine, fail-if: score < 0 }
"""
    checkout = next(line for line in (ROOT / "workflows" / "ci.yml").read_text().splitlines() if "checkout@" in line)
    files = {
        "flowers/runnable.toml": PIPELINE,
        "flowers/second.sh": SECOND,
    }
    project = workspace(tmp_path, files)
    pull = workflow.replace("CHECKOUT", checkout.split("@")[1].split()[0])
    project.write({".github/workflows/pull.yml": pull})
    pushed(project, tmp_path, "main")
    head = {"ref": "topic", "sha": project.git("rev-parse", "HEAD"), "repo": {"full_name": REPOSITORY}}
    payload = {"pull_request": {"number": 7, "head": head, "base": {"ref": "main"}}}
    with github(lambda _: "success") as server:
        server.owner, server.name = REPOSITORY.split("/")
        server.token = ACT_TOKEN
        done = runner.run(
            "pull_request",
            ".github/workflows/pull.yml",
            clone=project.folder,
            payload=payload,
            GITHUB_API_URL=server.base,
            GITHUB_BASE_REF="main",
            GITHUB_HEAD_REF="topic",
        )
        assert done.code == 0, done.text
        (comment,) = server.comments
        (check,) = server.checks
    page = f"{runner.server}/artifacts/report-mine-1.html"
    assert comment["issue"] == 7
    assert comment["answer"]["body"].endswith(f"[report]({page})")
    assert check["details_url"] == page


@pytest.mark.parametrize("job", ["versions", "limits"])
@pytest.mark.long("it is run on GitHub before each release")
def test_a_part_of_the_self_test_that_needs_no_github(tmp_path: Path, runner: Runner, job: str) -> None:
    """Its jobs that speak to no service of GitHub pass here too, with the scripts that they have there."""
    project = workspace(tmp_path, {".gitignore": "__pycache__\n"})
    for name in ("runnable_ci", ".github", "tests/pipelines/selftest"):
        ignored = shutil.ignore_patterns("__pycache__", ".runnable")
        shutil.copytree(ROOT / name, project.folder / name, ignore=ignored)
    for name in ("action.yml", "action-requirements.txt"):
        shutil.copy(ROOT / name, project.folder)
    pushed(project, tmp_path, "main")
    done = runner.run(
        "workflow_dispatch",
        ".github/workflows/selftest.yml",
        clone=project.folder,
        payload={"inputs": {"part": "all", "mark": ""}},
        job=job,
    )
    assert done.code == 0, done.text
    assert len(done.summary.encode()) < 1024 * 1024
