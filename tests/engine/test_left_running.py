"""What a step leaves running is ended with it, and named; `background = true` lets it stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli import PROGRAM, is_alive, workspace

QUIET = ">/dev/null 2>&1 &"


@pytest.mark.parametrize("way", ["", "setsid", "nohup"])
def test_it_is_gone_before_the_next_step(tmp_path: Path, way: str) -> None:
    """The step keeps its own result, and no other process is hurt: a parallel step goes through."""
    steps = f"""
[steps.a]
run = "{way} sleep 60 {QUIET} echo $! > pid.log; until [ -e began.log ]; do sleep 0.01; done"
[steps.b]
run = "! grep -qs ') [RSD] ' /proc/$(cat pid.log)/stat"
[steps.beside]
needs = []
run = "touch began.log; {way} sleep 0.7"
"""
    project = workspace(tmp_path, {"runnable.toml": steps})
    err = project.runnable("run", "--jobs", "2").err
    assert "ended `sleep`, which step `a` left running\n" in err
    assert err.count("left running") == 1


def test_background(tmp_path: Path) -> None:
    """What such a step leaves is there for the next steps, and after the run."""
    steps = f"""
[steps.serve]
run = "setsid sleep 60 {QUIET} echo $! > pid.log"
background = true
[steps.use]
run = "kill -0 $(cat pid.log)"
"""
    project = workspace(tmp_path, {"runnable.toml": steps})
    err = project.runnable("run").err
    pid = project.read("pid.log").strip()
    assert is_alive(pid)
    os.kill(int(pid), signal.SIGKILL)
    assert "left running" not in err


def test_what_a_step_s_own_run_leaves(tmp_path: Path) -> None:
    """A step is answerable for the runs that it starts, also for what these leave in the background."""
    inner = f'[steps.serve]\nrun = "setsid sleep 60 {QUIET} echo $! > pid.log"\nbackground = true\n'
    outer = f"[steps.outer]\nrun = '{PROGRAM} run inner.toml; kill -0 $(cat pid.log)'\n"
    project = workspace(tmp_path, {"runnable.toml": outer, "inner.toml": inner})
    assert "ended `sleep`, which step `outer` left running\n" in project.runnable("run").err
    assert not is_alive(project.read("pid.log"))


def test_what_a_function_leaves(tmp_path: Path) -> None:
    """A python step's processes are treated alike; a pool that ends with the step is not named."""
    work = """
import multiprocessing, subprocess

def start():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(abs, [1, -1])
    left = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=-3)
    open("pid.log", "w").write(str(left.pid))
"""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\npython = 'work:start'\n", "work.py": work})
    err = project.runnable("run").err
    assert [line for line in err.splitlines() if "left running" in line] == [
        "ended `sleep`, which step `a` left running"
    ]
    assert not is_alive(project.read("pid.log"))


def test_a_name_that_is_a_secret(tmp_path: Path) -> None:
    """A process may call itself what it likes: the line has no secret in it, nor a command of a job."""
    copy = "cp $(type -P sleep) ./hidden-word; ./hidden-word 60 >/dev/null 2>&1 &"
    project = workspace(tmp_path, {"runnable.toml": f"secrets = ['KEY']\n[steps.a]\nrun = '{copy}'\n"})
    err = project.runnable("run", KEY="hidden-word").err
    assert "ended `***`, which step `a` left running\n" in err
