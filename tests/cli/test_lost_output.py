"""Tests of what cannot be shown: a run goes its way and keeps its output, a command that prints fails by that."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, workspace
from support import WAIT_S, wait_until

FILE = """
[steps.a]
run = "echo one; echo 1 > a.txt"
catalog = { put = ["a.txt"] }
[steps.b]
run = "test ! -e gate && echo waits || true; while test -e gate; do sleep 0.02; done; echo two; echo oops >&2"
[steps.c]
run = "seq 3000; echo three"
"""
GONE = {
    "stdout is full": ">/dev/full 2>err",
    "stdout is closed": ">&- 2>err",
    "stderr is closed": "2>&- >out",
    "both are full": ">/dev/full 2>&1",
    "all are closed": "<&- >&- 2>&-",
    "a reader ends early": "2>err | head -1",
}
ASKED = ("show r", "logs r", "logs r c", "runs", "catalog r --json", "--help")


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """Three steps that print."""
    return workspace(tmp_path, {"runnable.toml": FILE, ".gitignore": "out\nerr\n"})


def shell(project: Workspace, command: str) -> tuple[int, str]:
    """The exit code of a command line of bash that begins with the program, and what it prints of errors."""
    script = f'set -o pipefail; "$0" {command}'
    done = subprocess.run(
        ["bash", "-c", script, PROGRAM], cwd=project.folder, env=project.environ, capture_output=True, timeout=WAIT_S
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.promise
@pytest.mark.parametrize("where", GONE.values(), ids=GONE)
def test_a_run_whose_output_is_lost_succeeds_and_keeps_it(project: Workspace, where: str) -> None:
    """It is sealed as any other, nothing of its own got into a file, and `logs` shows all of it."""
    code, err = shell(project, f"run --run-id r {where}")
    assert (code, err) == (0, "")
    log = project.log("r")
    assert (log.status, [step.status for step in log.steps.values()]) == ("SUCCESS", ["SUCCESS"] * 3)
    assert "r" in (project.store / "index.json").read_text()
    said = project.runnable("logs", "r").out.splitlines()
    assert [line for line in said if "one" in line or "two" in line] == ["a | one", "b | two"]
    assert said[-1] == "c | three"
    assert len(said) == 3005
    assert "b | oops" in said
    assert project.runnable("retry", "r").out == ""
    if "2>err" in where:
        told = [line for line in project.read("err").splitlines() if line.startswith("warning: stdout")]
        reason = "it is closed" if ">&-" in where else "No space left on device" if "full" in where else "Broken pipe"
        assert told == [f"warning: stdout cannot be written ({reason}): the run continues, and keeps its output"]


def test_what_was_asked_for_and_cannot_be_printed_is_an_error(project: Workspace) -> None:
    """A script that reads it must not take a part for the whole; a reader that ends early needs no word."""
    project.runnable("run", "--run-id", "r")
    for command in ASKED:
        full = "error: stdout cannot be written: No space left on device\n"
        assert (command, *shell(project, f"{command} >/dev/full")) == (command, 1, full)
        assert (command, *shell(project, f"{command} | true")) == (command, 1, "")
    assert shell(project, "show r 2>&- >out") == (0, "")
    assert project.read("out")


def test_a_job_whose_log_is_lost_succeeds(project: Workspace) -> None:
    """In a job everything goes to stdout."""
    job = Workspace(project.folder, {**project.environ, "GITHUB_ACTIONS": "true"})
    assert shell(job, "run --run-id r -j 3 >/dev/full") == (0, "")
    assert project.log("r").status == "SUCCESS"


def test_a_stdout_that_does_not_wait_is_waited_for(project: Workspace) -> None:
    """A pipe that another program has made non-blocking, and reads slowly, gets every byte."""
    project.write({"runnable.toml": "[steps.a]\nrun = 'seq 60000'\n"})
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen(
        [PROGRAM, "run", "--run-id", "r"], cwd=project.folder, env=project.environ, stdout=write, stderr=-3
    ) as running:
        os.close(write)
        with open(read, "rb") as pipe:
            assert pipe.read() == b"".join(f"a | {number}\n".encode() for number in range(1, 60001))
        assert running.wait() == 0


@pytest.mark.promise
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_goes_away(project: Workspace, ignored: bool) -> None:
    """The run is cancelled by SIGHUP in order and sealed; where SIGHUP is ignored, as by nohup, it continues."""
    project.write({"gate": "", "runnable.toml": FILE.replace('run = "test', 'run = "touch begun; test')})
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.close(os.open(os.ttyname(slave), os.O_RDWR))

    with subprocess.Popen(
        [PROGRAM, "run", "--run-id", "r"],
        cwd=project.folder,
        env=project.environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=own_terminal,  # noqa: PLW1509 - no thread is running
    ) as running:
        os.close(slave)
        wait_until((project.folder / "begun").exists, "step b")
        os.close(master)
        if ignored:
            (project.folder / "gate").unlink()
        assert running.wait(WAIT_S) == (0 if ignored else 128 + signal.SIGHUP)
    log = project.log("r")
    assert log.invocations[-1].outcome == ("succeeded" if ignored else "cancelled")
    assert "r" in (project.store / "index.json").read_text()
