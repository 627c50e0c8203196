"""Two runs at once in one workspace: the second is refused, or waits, and is told for whom."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, workspace
from support import wait_until

from runnable_ci.runs.model import SUCCESS

HELD = """
[steps.slow]
run = "touch begun.log; until [ -e go.log ]; do sleep 0.01; done; echo $RUNNABLE_RUN_ID > out.txt"
catalog = { put = ["out.txt"] }
timeout-minutes = 0.5
"""
QUICK = "[steps.quick]\nrun = 'cat out.txt || true'\n"


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A workspace with a pipeline that waits for `go.log`, and a quick one."""
    return workspace(tmp_path, {"runnable.toml": HELD, "quick.toml": QUICK, ".gitignore": "*.log\nout.txt\n"})


@contextmanager
def held(project: Workspace, *arguments: str) -> Iterator[int]:
    """A run `first` that works in the workspace in the block, and ends well after it; its process id."""
    with project.start("run", "--run-id", "first", *arguments) as running:
        wait_until((project.folder / "begun.log").exists, "the step")
        try:
            yield running.pid
        finally:
            (project.folder / "go.log").touch()
        assert running.wait() == 0


def test_a_second_run_is_refused(project: Workspace) -> None:
    """It names who holds the folder, with no value of a parameter, and leaves no run behind."""
    with held(project, "-p", "key=confidential") as pid:
        for words in (["run", "quick.toml"], ["run"], ["retry", "first"]):
            err = project.runnable(*words, code=2).err
            assert err.startswith(
                f"error: the workspace {project.folder} is in use by run first (run, process {pid}, since 20"
            )
            assert err.endswith("\nhint: wait for it with --wait, or stop it\n")
        assert "confidential" not in (project.store / "workspace.lock").read_text()
        assert len(json.loads(project.runnable("runs", "--json").out)) == 1
    project.runnable("run", "quick.toml")


def test_a_path_by_a_link_is_the_same_workspace(project: Workspace, tmp_path: Path) -> None:
    """The lock is the folder's, whatever leads there; a copy of the folder is another one."""
    (tmp_path / "link").symlink_to(project.folder)
    other = workspace(tmp_path, {"quick.toml": QUICK}, name="other")
    with held(project):
        assert "in use by run first" in other.runnable("run", str(tmp_path / "link/quick.toml"), code=2).err
        other.runnable("run", "quick.toml")


def test_what_only_reads_is_not_blocked(project: Workspace) -> None:
    """Runs can be looked at, planned and cleaned up as before."""
    with held(project):
        for words in (["show", "first"], ["runs"], ["logs", "first"], ["catalog", "first"], ["check"]):
            project.runnable(*words)
        project.runnable("run", "quick.toml", "--dry-run")
        project.runnable("retry", "first", "--dry-run")


def test_wait(project: Workspace) -> None:
    """A run that waits says for whom, and begins when the other one has ended: it sees all that it left."""
    with held(project) as pid, project.start("run", "--wait", "quick.toml") as second:
        assert second.stderr
        assert second.stderr.readline().startswith(
            f"waiting up to 60 min for run first (run, process {pid}, since ".encode()
        )
        (project.folder / "go.log").touch()
        out, _ = second.communicate()
    assert (second.returncode, out) == (0, b"quick | first\n")


def test_wait_ends(project: Workspace) -> None:
    """The longest wait can be set; after it the run is refused. `--` and what follows stay as they are."""
    with held(project):
        refused = project.runnable("retry", "--wait=0.002", "--", "first", code=2).err
    assert "waiting up to 0.002 min for run first" in refused
    assert ", still after 0.002 min\n" in refused
    for wrong in ("soon", "-1", "inf", "5x"):
        assert "no length of time, such as 90s" in project.runnable("run", f"--wait={wrong}", code=2).err
    assert "there is no --wait" in project.runnable("run", "--", "--wait", code=2).err


def test_a_killed_holder_holds_nothing(project: Workspace) -> None:
    """The system frees the lock; what the killed one wrote into it counts for nobody."""
    with project.start("run", "--run-id", "first") as running:
        wait_until((project.folder / "begun.log").exists, "the step")
        running.kill()
    (project.folder / "go.log").touch()
    project.runnable("run", "quick.toml")


NESTED = f"""
[steps.outer]
run = "echo $RUNNABLE_WORKSPACE_LOCKS > locks.log; {shlex.quote(PROGRAM)} run inner.toml --run-id inner"
"""
INNER = f"""
[steps.inner]
run = "{shlex.quote(PROGRAM)} run quick.toml --run-id innermost"
"""


def test_a_step_s_own_run_works_under_the_lock(project: Workspace) -> None:
    """Also one that such a run's step starts. The variable of a run that is over lets nobody in."""
    project.write({"nested.toml": NESTED, "inner.toml": INNER})
    project.runnable("run", "nested.toml")
    assert [project.log(run).status for run in ("inner", "innermost")] == [SUCCESS, SUCCESS]
    stale = project.read("locks.log").strip()
    assert stale
    with held(project):
        project.runnable("run", "quick.toml", code=2, RUNNABLE_WORKSPACE_LOCKS=stale)
        project.runnable("run", "quick.toml", code=2, RUNNABLE_WORKSPACE_LOCKS=",")
    project.runnable("run", "quick.toml", RUNNABLE_WORKSPACE_LOCKS=stale)


def test_by_way_of_another_workspace(project: Workspace, tmp_path: Path) -> None:
    """A step's run elsewhere holds that folder too, and its steps may come back to the first one."""
    back = f"[steps.back]\nrun = '{PROGRAM} run {project.folder}/quick.toml --run-id back'\n"
    workspace(tmp_path, {"runnable.toml": back}, name="other")
    project.write({"nested.toml": f"[steps.away]\nrun = '{PROGRAM} run {tmp_path}/other'\n"})
    project.runnable("run", "nested.toml")
    assert project.log("back").status == SUCCESS


def test_a_lock_that_nobody_signed(project: Workspace) -> None:
    """A holder that has not written its name yet, or something else, is `another run`."""
    with held(project):
        for text in ("", "[1]", '{"run_id": 1}', "\x00"):
            (project.store / "workspace.lock").write_text(text)
            assert "is in use by another run\n" in project.runnable("run", "quick.toml", code=2).err


REMOVING = HELD.replace(
    "until [ -e go.log ]", "until [ -e remove.log ]; do sleep 0.01; done; mv .runnable ../gone; until [ -e go.log ]"
)


def test_a_store_that_is_removed(project: Workspace) -> None:
    """Other runs are kept out though the lock went with the store; the first one continues and says what is lost."""
    project.write({"runnable.toml": f"{REMOVING}[steps.after]\nrun = 'true'\n"})
    with project.start("run", "--run-id", "first") as running:
        wait_until((project.folder / "begun.log").exists, "the step")
        with project.start("run", "--wait", "quick.toml") as waiting:
            assert waiting.stderr
            assert b"for run first" in waiting.stderr.readline()
            (project.folder / "remove.log").touch()
            wait_until((project.folder.parent / "gone").exists, "the store's removal")
            refused = project.runnable("run", "quick.toml", code=2).err
            who = f"another run (process {running.pid})" if sys.platform == "linux" else "another run"
            assert refused.startswith(
                f"error: the workspace {project.folder} is in use by {who}, whose store was removed\nhint: wait for it"
            )
            assert waiting.poll() is None
            (project.folder / "go.log").touch()
            _, err = running.communicate()
            assert waiting.wait() == 0
    assert running.returncode == 0
    assert f"note: {project.store} was removed while a step ran, and is made again: earlier runs".encode() in err
    assert [run["status"] for run in json.loads(project.runnable("runs", "--json").out)] == ["SUCCESS"] * 2


def test_a_python_step_that_removes_the_store(project: Workspace) -> None:
    """What it returns, a pickled object too, is kept all the same."""
    project.write(
        {
            "cleaning.py": "import shutil\ndef clean():\n    shutil.rmtree('.runnable')\n    return 1, {2}\n",
            "runnable.toml": "[steps.clean]\npython = 'cleaning:clean'\nreturns = { x = 'json', y = 'object' }\n"
            "[steps.after]\nrun = 'echo $x'\n",
        }
    )
    done = project.runnable("run")
    assert "Traceback" not in done.err
    assert "after | 1\n" in done.out
    assert project.log().parameters["y"].kind == "object"


def test_a_lock_of_another_program_on_the_folder(project: Workspace) -> None:
    """`flock . runnable-ci run` is not kept out by its own `flock`; two runs still are."""
    folder = os.open(project.folder, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with held(project):
        assert "in use by run first" in project.runnable("run", "quick.toml", code=2).err
    os.close(folder)
