"""The written workflow in a real workflow runner, with a real registry: a diamond with a matrix, broken and re-run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from act import ACT_TIMEOUT_S, REPOSITORY, ROOT, Ran, Runner, git_host, wheelhouse
from cli import Workspace, elsewhere, workspace
from dispatched import Following
from equal_logs import Recorded, comparable, differences, recorded
from github_api import github
from registry_server import Served, registry

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
run = 'echo join >> "$SEEN"; . ./join.sh'
catalog = { get = ["*.txt", "side/side.txt"], put = ["joined.out"] }
"""
JOIN = 'cat "a b.txt" c.txt side/side.txt > joined.out\n'
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
        yield Runner(tmp_path / "runner", server, wheelhouse(ROOT / ".cache"), variables, is_prepared=True)


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
@pytest.mark.long("test_shared_runs.py holds it in processes")
def test_what_failed_in_a_job_runs_again_and_what_follows(tmp_path: Path, served: Served, runner: Runner) -> None:
    """One instance of a diamond fails, after "Re-run failed jobs" the last step, which a dispatched fix runs: each time
    nothing else runs, and in the end the run is that of one machine.
    """
    project = pushed(tmp_path, PIPELINE, **{"join.sh": "exit 3\n"})
    failed = runner.run("push", WORKFLOW, clone=project.folder, run_id=7)
    assert failed.code == 1, failed.text
    assert "set up ${{ github.token }}" in failed.lines()
    assert seen(tmp_path) == Counter(["split", "each a b", "each c", "side"])
    (tmp_path / "seen.fixed").touch()
    broken = runner.run("push", WORKFLOW, clone=project.folder, run_id=7, attempt=2)
    assert broken.code == 1, broken.text
    assert seen(tmp_path) == Counter(["each c", "join"])

    project.git("checkout", "-qB", "fix")
    project.write({"join.sh": JOIN})
    project.commit()
    bare = tmp_path / "git" / REPOSITORY
    project.git("push", "-q", str(bare), "fix")
    done = dispatched(runner, project, bare, command_in(broken.summary, "dispatch"))
    assert done.code == 0, done.text
    assert seen(tmp_path) == Counter(["join"])
    assert [line for line in done.lines() if "this repeats" in line] == []

    reader = elsewhere(project, tmp_path, "reader")
    reader.runnable("pull", f"{served.host}/{REPOSITORY}/runs:diamond-7", "--plain-http")
    alone = elsewhere(project, tmp_path, "alone")
    alone.git("checkout", "-q", "main")
    (tmp_path / "seen.fixed").unlink()
    alone.runnable("run", "--run-id", "diamond-7", "--jobs", "1", code=1, SEEN=str(tmp_path / "seen"))
    (tmp_path / "seen.fixed").touch()
    alone.runnable("retry", "diamond-7", code=1, SEEN=str(tmp_path / "seen"))
    alone.git("checkout", "-q", "fix")
    alone.runnable("retry", "diamond-7", SEEN=str(tmp_path / "seen"))
    assert_one_run(recorded(alone, "diamond-7"), recorded(reader, "diamond-7"))


@pytest.mark.long("test_shared_runs.py holds it in processes")
def test_a_pull_request_of_a_fork_hands_its_run_on_in_artifacts(tmp_path: Path, served: Served, runner: Runner) -> None:
    """Its jobs may not write to the registry, and do not try; each step runs once, and the run is collected."""
    (tmp_path / "seen.fixed").touch()
    project = pushed(tmp_path, PIPELINE, **{"join.sh": JOIN})
    project.git("push", "-q", str(tmp_path / "git" / REPOSITORY), "main:refs/pull/5/merge")
    head = {"ref": "main", "sha": project.git("rev-parse", "HEAD"), "repo": {"full_name": "someone/flowers"}}
    done = runner.run(
        "pull_request",
        WORKFLOW,
        clone=project.folder,
        payload={"number": 5, "pull_request": {"number": 5, "head": head, "base": {"ref": "main"}}},
        run_id=7,
        GITHUB_REF="refs/pull/5/merge",
        GITHUB_HEAD_REF="main",
        GITHUB_BASE_REF="main",
    )
    assert done.code == 0, done.text
    assert seen(tmp_path) == Counter(["split", "each a b", "each c", "side", "join"])
    assert done.outputs["status"] == "SUCCESS"
    parts = sorted((tmp_path / "runner" / "artifacts").iterdir())
    assert len(parts) == 6, parts  # of each job, and of each leg
    assert all(part.name.startswith("runnable-part-diamond-7-") for part in parts)
    assert requests.get(f"http://{served.host}/v2/_catalog", timeout=10).json() == {"repositories": []}
    reader = elsewhere(project, tmp_path, "reader")
    words = ["run", "--run-id", "diamond-7", "--collect", "--from", str(tmp_path / "runner" / "artifacts")]
    reader.runnable(*words, SEEN=str(tmp_path / "seen"))
    assert reader.log("diamond-7").steps["join"].data_catalog


def command_in(summary: str, name: str) -> list[str]:
    """The words of a command of ours in a summary."""
    (line,) = {line for line in summary.splitlines() if line.startswith(f"runnable-ci {name} ")}
    return shlex.split(line)[1:]


def dispatched(runner: Runner, project: Workspace, bare: Path, words: Sequence[str]) -> Ran:
    """Type a command that starts a workflow, and run that workflow to its end."""
    following = Following(runner, project.folder)
    with github(on_dispatch=following) as server:
        following.serve(server, bare)
        server.workflows["diamond.yml"] = project.read(WORKFLOW)
        words = [*words[: words.index("--ref")], "--ref", "fix", *words[words.index("--ref") + 2 :]]
        Workspace(project.folder, project.environ | server.variables).runnable(*words)
        server.wait(ACT_TIMEOUT_S)
    (ran,) = following.ran
    return ran


def assert_one_run(alone: Recorded, jobs: Recorded) -> None:
    """Fail where the run of several jobs is not that of one machine, by what is different."""
    found = [*differences(_of_the_run(alone), _of_the_run(jobs))]
    assert not found, "\n".join(found)


def _of_the_run(run: Recorded) -> dict[str, Any]:
    """A run without what is a job's own: its runner, the container that it may be in, and whose results it reused."""
    found = comparable(run.in_one_invocation())
    for step in found["steps"].values():
        for attempt in step["attempts"]:
            attempt["code"] = [code for code in attempt["code"] if code[1] == "git"]
            del attempt["surroundings"]
    return {**found, "decisions": {name: said["action"] for name, said in found["decisions"].items()}}
