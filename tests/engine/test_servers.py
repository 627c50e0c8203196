"""The servers that tests of executors stand on: a real Slurm and a real sshd do what these tests take for granted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm import CPUS, NODES, Slurm, slurm_server
from sshd import Ssh, ssh_server
from support import wait_until


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A Slurm of this file's own."""
    with slurm_server() as slurm:
        yield slurm


@pytest.fixture
def idle(slurm: Slurm) -> Slurm:
    """The same, as it was at the start."""
    slurm.restore()
    return slurm


def begun(slurm: Slurm, *words: str) -> subprocess.Popen[str]:
    """A command that waits for a job of its own, once that runs."""
    environ = {**os.environ, **slurm.environ}
    started = subprocess.Popen(words, env=environ, cwd=slurm.folder, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "RUNNING" in slurm.jobs().values(), "a job", poll_s=0.05)
    return started


def test_both_nodes_run_commands(idle: Slurm) -> None:
    """With the exit code of the command, and what was asked for."""
    for node in NODES:
        assert idle("srun", "-n1", "-w", node, "printenv", "SLURMD_NODENAME") == node
    assert idle.run("srun", "-n1", "sh", "-c", "exit 3").returncode == 3
    assert idle("srun", "-n1", "-c", str(CPUS), "--mem=1G", "printenv", "SLURM_CPUS_PER_TASK") == str(CPUS)
    assert idle("srun", "-n1", "-p", "gpu", "--gres=gpu:1", "printenv", "SLURMD_NODENAME", "SLURM_GPUS_ON_NODE") == (
        "n2\n1"
    )
    assert idle.run("srun", "-n1", "--mem=1T", "true").returncode != 0


def test_a_job_ends_as_one_does(idle: Slurm) -> None:
    """By itself, cancelled, and as elements of an array."""
    ended = idle("sbatch", "--parsable", "-o", "out", "--wrap", "echo done")
    idle.wait_for_job(ended, "COMPLETED")
    assert (idle.folder / "out").read_text() == "done\n"
    runs = idle("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
    idle.wait_for_job(runs, "RUNNING")
    idle.cancel(runs)
    idle.wait_for_job(runs, "CANCELLED")
    array = idle("sbatch", "--parsable", "-a", "1-3", "-o", "%a.out", "--wrap", "echo $SLURM_ARRAY_TASK_ID")
    wait_until(lambda: not [job for job in idle.jobs() if job.startswith(array)], "the array", poll_s=0.1)
    assert [(idle.folder / f"{i}.out").read_text() for i in (1, 2, 3)] == ["1\n", "2\n", "3\n"]


def test_a_node_is_lost(idle: Slurm) -> None:
    """All that ran on it is gone at once, and it comes back."""
    waiting = begun(idle, "srun", "-n1", "-w", "n2", "sleep", "600")
    wait_until(lambda: idle.processes({"SLURMD_NODENAME": "n2"}), "a task")
    idle.lose_node("n2")
    idle.set_down("n2")
    waiting.communicate(timeout=60)
    assert idle.processes({"SLURMD_NODENAME": "n2"}) == []
    assert idle.node_states()["n2"].startswith("down")
    assert idle.node_states()["n1"] == "idle"
    idle.restore()
    assert idle("srun", "-n1", "-w", "n2", "echo", "again") == "again"


def test_a_daemon_that_is_killed_leaves_what_it_started(idle: Slurm) -> None:
    """The job runs on, and is known again when the daemon is back."""
    job = idle("sbatch", "--parsable", "-w", "n1", "-o", "/dev/null", "--wrap", "sleep 600")
    idle.wait_for_job(job, "RUNNING")
    tasks = wait_until(lambda: idle.processes({"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": job}), "a task")
    idle.kill_slurmd("n1")
    assert set(tasks) <= set(idle.processes())
    idle.start_node("n1")
    idle.wait_for_node("n1", "mixed")
    assert idle.job(job)["JobState"] == "RUNNING"


def test_the_controller_is_away_for_a_while(idle: Slurm) -> None:
    """Stopped it answers nobody, ended it refuses; what runs goes on, and is known afterwards."""
    job = idle("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
    idle.wait_for_job(job, "RUNNING")
    idle.stop_controller()
    with pytest.raises(subprocess.TimeoutExpired):
        idle.run("squeue", timeout_s=2)
    idle.resume_controller()
    assert idle.job(job)["JobState"] == "RUNNING"
    idle.end_controller()
    assert idle.run("scontrol", "ping").returncode != 0
    idle.start_controller()
    wait_until(lambda: idle.run("scontrol", "ping").returncode == 0, "the controller", poll_s=0.1)
    assert idle.job(job)["JobState"] == "RUNNING"


@pytest.mark.long("the controller looks each half minute")
def test_the_time_of_a_job_is_over(idle: Slurm) -> None:
    """It is ended within the half minute after which the controller looks."""
    job = idle("sbatch", "--parsable", "--time=10", "-o", "/dev/null", "--wrap", "sleep 600")
    idle.wait_for_job(job, "RUNNING")
    idle.expire(job)
    assert idle.wait_for_job(job, "TIMEOUT", "COMPLETED", "FAILED", timeout_s=90) == "TIMEOUT"


def test_two_at_once_know_nothing_of_each_other(slurm: Slurm) -> None:
    """As by two workers of the tests; nothing of one is left when it ends, whatever still ran."""
    with slurm_server() as other:
        job = other("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
        other.wait_for_job(job, "RUNNING")
        assert job not in slurm.jobs()
        assert other.processes()
    assert not other.folder.exists()
    assert other.processes() == []


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """A server of this file's own."""
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server", environ={"FAR_SIDE": "a b"}) as ssh:
        yield ssh


def test_ssh_runs_a_command_without_a_question(ssh: Ssh) -> None:
    """A shell reads it there; output and exit code come back."""
    done = ssh.run("echo $FAR_SIDE; echo no >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, "a b\n", "no\n")
    written = ssh.command.replace("{}", "'echo \"$SSH_CONNECTION\" | wc -w'")
    assert subprocess.check_output(["sh", "-c", written], text=True).strip() == "4"


def test_a_connection_is_cut(ssh: Ssh, tmp_path: Path) -> None:
    """The client ends with 255; what was detached there goes on."""
    began, mark = tmp_path / "began", tmp_path / "mark"
    client = subprocess.Popen(
        [
            *("ssh", "-F", str(ssh.config), "node"),
            f"setsid sh -c 'touch {began}; sleep 2; touch {mark}' >/dev/null 2>&1 & sleep 600",
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(began.exists, "a connection")
    assert len(ssh.sessions()) == 1
    ssh.cut()
    assert client.wait(timeout=30) == 255
    wait_until(mark.exists, "what goes on", timeout_s=30)


def test_another_key_is_refused(ssh: Ssh, tmp_path: Path) -> None:
    """It is a login that is checked, and no prompt waits for anybody."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    words = ["ssh", "-F", str(ssh.config), "-o", f"IdentityFile={tmp_path / 'key'}", "-p", str(ssh.port), "127.0.0.1"]
    options = ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
    known = ["-o", f"UserKnownHostsFile={ssh.folder / 'known_hosts'}"]
    done = subprocess.run([*words[:-1], *options, *known, "127.0.0.1", "true"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
