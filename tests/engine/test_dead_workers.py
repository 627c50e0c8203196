"""What a worker leaves that was killed is ended on its own machine, before another try begins there."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, workspace
from sshd import Ssh, ssh_server
from support import guards, wait_until

from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.util.process import start_time

STEP = """
[executors.node]
command = '''{command}'''

[steps.long]
attempts = {attempts}
executor = "node"
run = "sh long.sh"
catalog = {{ put = ["long.txt"] }}
"""
LONG = """
[ -e ../pids ] && is_again=yes
echo $$ >> ../pids
for i in $(seq 100); do echo "$i" >> long.txt; [ "$is_again" ] || [ -e ../go ] || sleep 0.5; done
"""
LINES = "".join(f"{i}\n" for i in range(1, 101))
END_S = 2.0


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """Yield a real sshd."""
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


def project_with(folder: Path, command: str = "sh -c {}", *, attempts: int = 2) -> Workspace:
    """Return a project with a step that writes a line each half second at its first try."""
    toml = STEP.format(command=command, attempts=attempts)
    return workspace(folder, {"runnable.toml": toml, "long.sh": LONG, ".gitignore": ".runnable\n"})


def pids(project: Workspace) -> list[int]:
    """Return the processes of the step, one of each try."""
    file = project.folder.parent / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def worker_of(project: Workspace) -> int:
    """Return the worker of the first try."""
    (taken,) = (project.store / "elsewhere").glob("*/attempts/*/taken.json")
    return int(json.loads(taken.read_text())["pid"])


def begun(project: Workspace) -> tuple[int, int]:
    """Wait until the first try has written something; its worker and the step's process."""
    wait_until((project.folder / "long.txt").exists, "the step runs")
    (step,) = pids(project)
    return worker_of(project), step


def kill_worker(project: Workspace) -> None:
    """Kill the worker of the first try, and nothing else; the step ends with it."""
    worker, step = begun(project)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not start_time(step), "the step ends", timeout_s=END_S)


@pytest.mark.promise
def test_a_step_ends_with_its_worker(tmp_path: Path) -> None:
    """Within moments, and the next try finds nothing of it."""
    project = project_with(tmp_path)
    with project.start("run", "--run-id", "r") as process:
        kill_worker(project)
    assert process.returncode == 0
    assert project.read("long.txt") == LINES
    assert [it.outcome for it in project.log("r").steps["long"].attempts] == ["interrupted", "succeeded"]


def test_over_ssh(ssh: Ssh, tmp_path: Path) -> None:
    """Also there, and the connection stays open for nothing."""
    project = project_with(tmp_path, ssh.command)
    with project.start("run", "--run-id", "r") as process:
        kill_worker(project)
    assert process.returncode == 0
    assert project.read("long.txt") == LINES
    wait_until(lambda: not ssh.sessions(), "the connections end", timeout_s=10)


@pytest.mark.promise
@pytest.mark.parametrize("is_here", [True, False])
def test_what_outlived_its_guard_too(tmp_path: Path, *, is_here: bool) -> None:
    """The run ends what nobody else has where that is on its own machine, else the worker of the next try does."""
    project = project_with(tmp_path)
    with project.start("run", "--run-id", "r") as process:
        worker, step = begun(project)
        if not is_here:
            folder = AttemptFolder(project.store / "elsewhere" / "r" / "attempts" / "long.1")
            folder.note("taken", **(folder.noted("taken") | {"host": "another"}))
        for each in (*guards(worker), worker):
            os.kill(each, signal.SIGKILL)
        time.sleep(1)
        assert start_time(step)
    assert process.returncode == 0
    assert not start_time(step)
    assert project.read("long.txt") == LINES
    assert len(pids(project)) == 2


@pytest.mark.promise
@pytest.mark.parametrize("is_guard_killed", [False, True])
def test_run_and_worker_are_killed(tmp_path: Path, *, is_guard_killed: bool) -> None:
    """A retry begins beside nothing."""
    project = project_with(tmp_path, attempts=1)
    with project.start("run", "--run-id", "r") as process:
        worker, step = begun(project)
        process.send_signal(signal.SIGKILL)
        for each in (*(guards(worker) if is_guard_killed else ()), worker):
            os.kill(each, signal.SIGKILL)
    if not is_guard_killed:
        wait_until(lambda: not start_time(step), "the step ends", timeout_s=END_S)
    with project.start("retry", "r") as retry:
        pass
    assert retry.returncode == 0
    assert not start_time(step)
    assert project.read("long.txt") == LINES


def test_nothing_is_left_of_a_guard(tmp_path: Path) -> None:
    """Where its worker comes to its own end."""
    project = project_with(tmp_path)
    with project.start("run") as process:
        worker, _ = begun(project)
        (guard,) = guards(worker)
        began = start_time(guard)
        (tmp_path / "go").touch()
    assert process.returncode == 0
    assert began != start_time(guard)
