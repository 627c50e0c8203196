"""Steps on a real Slurm of two nodes: matrices, resume, and what happens when nodes, jobs or the controller fail."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from textwrap import dedent

import pytest
from cli import PROGRAM, Workspace, workspace
from slurm import Slurm, slurm_server
from support import wait_until

from runnable_ci.engine.elsewhere.queues import PATIENCE_S
from runnable_ci.runs.model import StepAttempt

DIAMOND = """
    [executors.cluster]
    slurm = { partition = "all", time = "10m" }

    [defaults]
    executor = "cluster"

    [steps.first]
    run = "echo value=3 >> $RUNNABLE_OUTPUT"
    returns = ["value"]

    [steps.each]
    needs = ["first"]
    run = "test $i != 7 -o -e ok; echo $i > out/$i.txt"
    strategy = { matrix = { i = [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20] }, fail-fast = false }
    catalog = { put = ["out/${{ matrix.i }}.txt"] }

    [steps.last]
    needs = ["each"]
    run = "cat out/*.txt | wc -l"
    """
SLOW = """
    [executors.cluster]
    slurm = { partition = "all", time = "10m" }

    [steps.slow]
    run = "echo begin >> ../begun; echo x > out.txt; while [ ! -e ../go ]; do sleep 0.1; done; echo y >> out.txt"
    executor = "cluster"
    catalog = { put = ["out.txt"] }

    [steps.then]
    run = "cat out.txt"
    needs = ["slow"]
    """


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """Yield a real Slurm."""
    with slurm_server() as server:
        yield server


@pytest.fixture(autouse=True)
def restored(slurm: Slurm) -> Iterator[None]:
    """Have both nodes and the controller as they were after each test, and no job left."""
    yield
    slurm.restore()


def project_on(slurm: Slurm, folder: Path, toml: str, **files: str) -> Workspace:
    """Return a project whose commands know the cluster."""
    project = workspace(folder, {"out/.keep": "", **files, "runnable.toml": dedent(toml)})
    project.environ.update(slurm.environ)
    return project


def attempts_at(project: Workspace, step: str, run: str = "r") -> list[StepAttempt]:
    """Return the attempts at a step."""
    return project.log(run).steps[step].attempts


def begun(project: Workspace) -> Path:
    """Return the file to which a slow step adds a line when it begins."""
    return project.folder.parent / "begun"


def go(project: Workspace) -> None:
    """Let a slow step end."""
    (project.folder.parent / "go").touch()


def test_a_diamond_resumes(slurm: Slurm, tmp_path: Path) -> None:
    """Of a matrix of 20 on the cluster one instance fails; a resume runs that one and what follows."""
    project = project_on(slurm, tmp_path, DIAMOND)
    project.runnable("run", "--run-id", "r", code=1)
    log = project.log("r")
    failed = {name for name, step in log.steps.items() if step.status == "FAIL" and step.attempts}
    assert failed == {"each.7.each"}
    assert {a.executor for step in log.steps.values() for a in step.attempts} == {"cluster"}
    project.write({"ok": ""})
    project.runnable("retry", "r")
    tried = {name: len(step.attempts) for name, step in project.log("r").steps.items() if step.attempts}
    assert {name for name, count in tried.items() if count > 1} == {"each.7.each"}
    assert project.runnable("logs", "r", "last").out.strip().endswith("20")
    wait_until(lambda: not slurm.jobs(), "no job is left", timeout_s=30)


CROWD = """
    [executors.cluster]
    slurm = { partition = "all" }
    max-parallel = 6

    [steps.each]
    executor = "cluster"
    run = "while [ ! -e ../go ]; do sleep 0.1; done"
    strategy = { matrix = { i = [1,2,3,4,5,6,7,8,9,10,11,12] } }

    [steps.here]
    run = "while [ ! -e ../end ]; do sleep 0.1; done"
    needs = ["each"]

    [steps.there]
    run = "true"
    needs = ["here"]
    executor = "cluster"
    """


def test_a_matrix_is_one_array_at_once(slurm: Slurm, tmp_path: Path) -> None:
    """One job for the run and one array for the others, within `max-parallel`; what has nothing to do leaves."""
    project = project_on(slurm, tmp_path, CROWD)
    before = set(slurm.known_jobs())
    with project.start("run", "--run-id", "r"):
        wait_until(lambda: len(slurm.jobs()) == 6, "six workers", timeout_s=30)
        arrays = {job.partition("_")[0] for job in slurm.jobs() if "_" in job}
        alone = [job for job in slurm.jobs() if "_" not in job]
        assert (len(arrays), len(alone)) == (1, 1)
        first, array = (datetime.fromisoformat(slurm.job(it)["SubmitTime"]) for it in (*alone, *arrays))
        assert (array - first).total_seconds() < PATIENCE_S
        go(project)
        wait_until(lambda: [*slurm.jobs()] == alone, "only the run's own job is left", timeout_s=60)
        (project.folder.parent / "end").touch()
    assert project.log("r").status == "SUCCESS"
    wait_until(lambda: not slurm.jobs(), "no job is left", timeout_s=30)
    known = {job for job in slurm.known_jobs() if job not in before}
    assert len(known) == 6, known


def test_a_chain_is_one_job(slurm: Slurm, tmp_path: Path) -> None:
    """Steps one after the other are in one allocation."""
    steps = "".join(f"    [steps.s{i}]\n    run = 'true'\n" for i in range(6))
    start = '    [executors.cluster]\n    slurm = {}\n    [defaults]\n    executor = "cluster"\n'
    project = project_on(slurm, tmp_path, start + steps)
    before = set(slurm.known_jobs())
    project.runnable("run", "--run-id", "r")
    assert len({*slurm.known_jobs()} - before) == 1


@pytest.mark.promise
def test_a_killed_job_attaches(slurm: Slurm, tmp_path: Path) -> None:
    """A job outlives the run's own process: a retry attaches to it, and the step runs once."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        process.send_signal(signal.SIGKILL)
    with project.start("retry", "r") as retry:
        time.sleep(1)
        go(project)
    assert retry.returncode == 0
    assert begun(project).read_text() == "begin\n"
    assert [len(step.attempts) for step in project.log("r").steps.values()] == [1, 1]


def is_lost(project: Workspace, process_code: int) -> StepAttempt:
    """Return the attempt that failed since something happened to its job; a retry must complete the run."""
    assert process_code == 1
    [lost] = attempts_at(project, "slow")
    assert lost.status == "FAIL"
    assert not (project.folder / "out.txt").exists()
    return lost


GONE = r"Slurm says (NODE_FAIL.* of job \S+|[A-Z_+]*(NOT_RESPONDING|DOWN)[A-Z_+]* of node n[12])"
"""The scheduler's word for a node that is gone, or for a job that was on it."""


@pytest.mark.promise
def test_a_lost_node(slurm: Slurm, tmp_path: Path) -> None:
    """A node dies under a step: whatever exit code `srun` has, the attempt is lost, and can be resumed."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        [node] = {facts["BatchHost"] for job in slurm.jobs() if (facts := slurm.job(job))}
        slurm.lose_node(node)
    lost = is_lost(project, process.returncode)
    assert lost.outcome == "interrupted"
    assert re.fullmatch(f"lost on cluster: {GONE}", lost.message), lost.message
    slurm.restore()
    go(project)
    project.runnable("retry", "r")
    assert begun(project).read_text() == "begin\n" * 2


PAIR = """
    [executors.cluster]
    slurm = { partition = "all" }

    [steps.each]
    executor = "cluster"
    resources = { cpus = 2 }
    run = "echo $SLURMD_NODENAME > ../node-$i; while [ ! -e ../go ]; do sleep 0.1; done"
    strategy = { matrix = { i = [1, 2] }, fail-fast = false }
    """


def test_a_lost_node_of_an_allocation(slurm: Slurm, tmp_path: Path) -> None:
    """The allocation stands without it: Slurm says so of the node, and what runs on the other node continues."""
    project = project_on(slurm, tmp_path, PAIR)
    words = ["sbatch", "--parsable", "--nodes=2", "--ntasks=2", "--cpus-per-task=2", "--no-kill"]
    submit = [*words, f"--output={tmp_path}/job.out", f"--wrap={shlex.quote(PROGRAM)} run --run-id r"]
    done = subprocess.run(submit, cwd=project.folder, env=project.environ, capture_output=True, text=True, check=True)
    files = [tmp_path / f"node-{i}" for i in (1, 2)]
    wait_until(lambda: all(it.exists() and it.read_text() for it in files), "both steps run", timeout_s=60)
    nodes = [it.read_text().strip() for it in files]
    kept, lost = (f"each.{1 + nodes.index(node)}.each" for node in ("n1", "n2"))
    slurm.lose_node("n2")
    wait_until(lambda: attempts_at(project, lost)[0].status == "FAIL", "it is lost", timeout_s=90, poll_s=0.5)
    go(project)
    slurm.wait_for_job(done.stdout.strip(), "FAILED", timeout_s=60)
    [found] = attempts_at(project, lost)
    assert re.fullmatch(f"lost on cluster: {GONE}", found.message), found.message
    assert attempts_at(project, kept)[0].status == "SUCCESS"


def test_a_node_that_is_set_down(slurm: Slurm, tmp_path: Path) -> None:
    """A node that an administrator takes away is a failure with Slurm's reason."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        [node] = {facts["BatchHost"] for job in slurm.jobs() if (facts := slurm.job(job))}
        slurm.set_down(node)
    assert "NODE_FAIL" in is_lost(project, process.returncode).message


def test_scancel(slurm: Slurm, tmp_path: Path) -> None:
    """A job that a person cancels is a failure with Slurm's reason, not a success, and can be resumed."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        slurm.cancel(*slurm.jobs())
    lost = is_lost(project, process.returncode)
    assert "CANCELLED" in lost.message
    go(project)
    project.runnable("retry", "r")


def kill(slurm: Slurm, *programs: str) -> None:
    """Kill all processes of these programs on the cluster."""
    for pid in slurm.processes():
        with suppress(OSError):  # it has ended by itself
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(program.encode() in words for program in programs):
                os.kill(pid, signal.SIGKILL)


def test_a_worker_without_srun(slurm: Slurm, tmp_path: Path) -> None:
    """A worker that lives without the `srun` that started it continues, and its attempt counts."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        kill(slurm, "srun")
        time.sleep(12)
        go(project)
    assert process.returncode == 0
    assert begun(project).read_text() == "begin\n"
    wait_until(lambda: not slurm.jobs(), "no job is left", timeout_s=30)


def test_an_allocation_that_only_stands(slurm: Slurm, tmp_path: Path) -> None:
    """It is no worker: what was in it is lost, and it is given back."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        [job] = slurm.jobs()
        kill(slurm, "srun")
        kill(slurm, "attempt", "bash")
        assert process.wait(timeout=60) == 1
    assert f"Slurm says that job {job} stands without its step" in is_lost(project, process.returncode).message
    wait_until(lambda: not slurm.jobs(), "no job is left", timeout_s=30)
    go(project)
    project.runnable("retry", "r")


def test_a_job_that_waits(slurm: Slurm, tmp_path: Path) -> None:
    """What Slurm lets wait for longer than a moment is said once, with its reason."""
    toml = SLOW.replace('executor = "cluster"', 'executor = "cluster"\n    resources = { cpus = 64 }')
    project = project_on(slurm, tmp_path, toml)
    with project.start("run", "--run-id", "r") as process:
        wait_until(lambda: "PENDING" in slurm.jobs().values(), "a job waits", timeout_s=30)
        [job] = slurm.jobs()
        time.sleep(15)
        process.send_signal(signal.SIGINT)
        said = b"".join(process.communicate()).decode()
    assert said.count(f"waits for Slurm: job {job} PENDING (PartitionConfig)") == 1
    wait_until(lambda: not slurm.jobs(), "no job is left", timeout_s=30)


def test_a_controller_that_is_stopped(slurm: Slurm, tmp_path: Path) -> None:
    """A controller that does not answer is no reason to give a step up."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        slurm.stop_controller()
        time.sleep(8)
        go(project)
        time.sleep(2)
        slurm.resume_controller()
    assert process.returncode == 0
    assert begun(project).read_text() == "begin\n"


def test_in_an_allocation(slurm: Slurm, tmp_path: Path) -> None:
    """Within an allocation steps are job steps of it: no other job is asked for."""
    toml = DIAMOND.replace("test $i != 7 -o -e ok", "true").replace("echo value", "echo job $SLURM_JOB_ID; echo value")
    project = project_on(slurm, tmp_path, toml)
    words = ["sbatch", "--parsable", "--nodes=1", "--ntasks=2", f"--output={tmp_path}/job.out"]
    submit = [*words, f"--wrap={shlex.quote(PROGRAM)} run --run-id r"]
    done = subprocess.run(submit, cwd=project.folder, env=project.environ, capture_output=True, text=True, check=True)
    job = done.stdout.strip()
    slurm.wait_for_job(job, "COMPLETED", timeout_s=180)
    assert project.log("r").status == "SUCCESS"
    assert f"job {job}" in project.runnable("logs", "r", "first").out


def test_a_time_limit(slurm: Slurm, tmp_path: Path) -> None:
    """A job whose time is over is a failure that says so, and can be resumed."""
    project = project_on(slurm, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun(project).exists, "the step runs")
        for job in slurm.jobs():
            slurm.expire(job)
    lost = is_lost(project, process.returncode)
    assert "TIMEOUT" in lost.message
    go(project)
    project.runnable("retry", "r")
