"""The written workflow in a real workflow runner, with a real registry: a diamond with a matrix, broken and re-run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from act import REPOSITORY, ROOT, Runner, git_host, wheelhouse
from cli import Workspace, elsewhere, workspace
from equal_logs import comparable
from registry_server import Served, registry

from runnable_ci.runs.model import RunLog

PIPELINE = """
name = "diamond"
[workflow]
setup = "echo 'set up ${{ github.token }}'"
[steps.split]
run = '''
echo split >> "$SEEN"
echo data > data.txt
echo 'parts=["a b", "c"]' >> "$RUNNABLE_OUTPUT"
'''
returns = ["parts"]
catalog = { put = ["data.txt"] }
[steps.each]
run = '''
echo "each $part" >> "$SEEN"
[ "$part" != c ] || [ -e "$SEEN.fixed" ]
cat data.txt > "$part.txt"
'''
strategy = { matrix = { part = "${{ parameters.parts }}" }, fail-fast = false }
catalog = { get = ["data.txt"], put = ["${{ matrix.part }}.txt"] }
[steps.side]
needs = ["split"]
run = 'echo side >> "$SEEN"; mkdir -p side; echo side > side/side.txt'
catalog = { put = ["side/side.txt"] }
[steps.join]
needs = ["each", "side"]
run = 'echo join >> "$SEEN"; cat "a b.txt" c.txt side/side.txt > joined.out'
catalog = { get = ["*.txt", "side/side.txt"], put = ["joined.out"] }
"""
WORKFLOW = ".github/workflows/diamond.yml"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of this test."""
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def runner(tmp_path: Path, served: Served) -> Iterator[Runner]:
    """A runner whose jobs publish to the registry, and whose steps note in one file that they ran."""
    with git_host(tmp_path / "git") as server:
        variables = {
            "RUNNABLE_CI_REGISTRY": f"{served.host}/{REPOSITORY}/runs",
            "GITHUB_REF": "refs/heads/main",
            "SEEN": str(tmp_path / "seen"),
        }
        yield Runner(tmp_path / "runner", server, wheelhouse(ROOT / ".cache"), variables)


def pushed(tmp_path: Path, pipeline: str, **files: str) -> Workspace:
    """A repository with the pipeline and its workflow, where the runner checks out from."""
    project = workspace(tmp_path, {"runnable.toml": pipeline, ".gitignore": "*.txt\n*.out\n.runnable\n", **files})
    project.runnable("workflow")
    bare = tmp_path / "git" / REPOSITORY
    project.git("init", "-q", "--bare", str(bare))
    project.git("checkout", "-qB", "main")
    project.commit()
    project.git("push", "-q", str(bare), "main")
    return project


def seen(tmp_path: Path) -> Counter[str]:
    """How often each step ran since this was asked last."""
    file = tmp_path / "seen"
    found = Counter(file.read_text().splitlines())
    file.write_text("")
    return found


@pytest.mark.promise
def test_what_failed_in_a_job_runs_again_and_what_follows(tmp_path: Path, served: Served, runner: Runner) -> None:
    """One instance of a diamond fails; after "Re-run failed jobs" the run is that of one machine."""
    project = pushed(tmp_path, PIPELINE)
    failed = runner.run("push", WORKFLOW, clone=project.folder, run_id=7)
    assert failed.code == 1, failed.text
    assert "set up ${{ github.token }}" in failed.lines()
    assert seen(tmp_path) == Counter(["split", "each a b", "each c", "side"])
    (tmp_path / "seen.fixed").touch()
    done = runner.run("push", WORKFLOW, clone=project.folder, run_id=7, attempt=2)
    assert done.code == 0, done.text
    assert seen(tmp_path) == Counter(["each c", "join"])

    reader = elsewhere(project, tmp_path, "reader")
    reader.runnable("pull", f"{served.host}/{REPOSITORY}/runs:diamond-7", "--plain-http")
    alone = elsewhere(project, tmp_path, "alone")
    (tmp_path / "seen.fixed").unlink()
    alone.runnable("run", "--run-id", "diamond-7", code=1, SEEN=str(tmp_path / "seen"))
    (tmp_path / "seen.fixed").touch()
    alone.runnable("retry", "diamond-7", SEEN=str(tmp_path / "seen"))
    assert of_the_run(reader.log("diamond-7")) == of_the_run(alone.log("diamond-7"))


def of_the_run(log: RunLog) -> dict[str, Any]:
    """A run without the container that a job may be in, which is looked for only there, and without who reused what."""
    found = comparable(log)
    for step in found["steps"].values():
        for attempt in step["attempts"]:
            attempt["code"] = [code for code in attempt["code"] if code[1] == "git"]
    return {**found, "decisions": {name: said["action"] for name, said in found["decisions"].items()}}
