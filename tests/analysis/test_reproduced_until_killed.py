"""A reproduction that is ended leaves nothing: at once where it can, else by the next one or `gc`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, is_alive, workspace

PIPELINE = """
[steps.s]
run = "echo $$ > $STARTED.new; mv $STARTED.new $STARTED; sleep ${WAIT:-0}; echo 1 > out.txt"
catalog = { put = ["out.txt"] }
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once, with a folder for what is temporary."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": ".runnable\nout.txt\n"})
    (tmp_path / "tmp").mkdir()
    made.environ.update({"STARTED": str(tmp_path / "started"), "TMPDIR": str(tmp_path / "tmp")})
    made.runnable("run", "-q", "--run-id", "first")
    (tmp_path / "started").unlink()
    return made


def temporary(made: Workspace) -> list[str]:
    """What is in the folder for what is temporary."""
    return os.listdir(made.environ["TMPDIR"])  # noqa: PTH208


@contextmanager
def in_the_middle(made: Workspace, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield a reproduction whose step runs, and the number of that step's process."""
    file = Path(made.environ["STARTED"])
    with made.start("reproduce", "first", "-q", *words, WAIT="60") as running:
        while not file.exists():
            time.sleep(0.05)
            assert running.poll() is None, running.communicate()
        yield running, file.read_text().strip()
    file.unlink()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_by_a_signal(ending: signal.Signals, project: Workspace) -> None:
    """Nothing of it is anywhere, and its step is over."""
    before = sorted(path.name for path in project.store.rglob("*"))
    with in_the_middle(project) as (running, step):
        running.send_signal(ending)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + ending, err
    assert b"nothing is kept" in err
    assert b"Traceback" not in err, err
    assert temporary(project) == []
    assert not is_alive(step)
    assert sorted(path.name for path in project.store.rglob("*")) == before
    assert len(project.git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("times", ["1", "3"])
@pytest.mark.parametrize("after", ["reproduce", "gc"])
def test_by_a_kill(times: str, after: str, project: Workspace) -> None:
    """The next one removes what no living process has, with what the step left running; another one's stays."""
    before = sorted(path.name for path in project.store.rglob("*"))
    with in_the_middle(project, "--times", times) as (running, step):
        running.kill()
        running.communicate(timeout=60)
    assert temporary(project) != []
    assert is_alive(step)
    assert sorted(path.name for path in project.store.rglob("*")) == before
    with in_the_middle(project) as (other, _):  # which removes it as it begins
        assert not is_alive(step)
        others = temporary(project)
        assert len(others) > 0
        if after == "reproduce":
            assert json.loads(project.runnable("reproduce", "first", "--json").out)["verdict"] == "reproduced"
        else:
            project.runnable("gc")
        assert set(others) <= set(temporary(project))
        other.kill()
    if after == "reproduce":
        assert json.loads(project.runnable("reproduce", "first", "--json").out)["verdict"] == "reproduced"
    else:
        project.runnable("gc", "--dry-run")
        assert temporary(project) != []
        project.runnable("gc")
    assert temporary(project) == []
    assert len(project.git("worktree", "list").splitlines()) == 1
    assert project.git("status", "--short") == ""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_the_packages_are_installed(ending: signal.Signals, tmp_path: Path) -> None:
    """The installer is ended, and the folder removed."""
    made = workspace(
        tmp_path,
        {"runnable.toml": '[steps.s]\npython = "m:f"\n', "m.py": "def f():\n    pass\n", ".gitignore": ".runnable\n"},
    )
    for name in ("tmp", "bin"):
        (tmp_path / name).mkdir()
    started = tmp_path / "started"
    (tmp_path / "bin/uv").write_text(f"#!/bin/sh\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 60\n")
    (tmp_path / "bin/uv").chmod(0o755)
    made.environ["TMPDIR"] = str(tmp_path / "tmp")
    made.runnable("run", "-q", "--run-id", "first")
    made.environ["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{made.environ['PATH']}"
    with made.start("reproduce", "first", "--environment", "recorded") as running:
        while not started.exists():
            time.sleep(0.05)
            assert running.poll() is None, running.communicate()
        running.send_signal(ending)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + ending, err
    assert b"Traceback" not in err, err
    assert temporary(made) == []
    assert not is_alive(started.read_text())


@pytest.mark.parametrize(
    ("free_kb", "says"),
    [
        (150, "hardly any space is left on the disk of"),
        (900, "(no space left|hardly any space is left) on the disk of"),
    ],
)
def test_a_full_disk(free_kb: int, says: str, tmp_path: Path) -> None:
    """Code that does not fit, or a step that fails for want of space, is an error, and no verdict."""
    files = {f"many/{n}.txt": f"{n}" * 2000 for n in range(100)}
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[steps.s]\nrun = "sh make.sh"\ncatalog = { put = ["out.txt"] }\n',
            "make.sh": "head -c ${SIZE:-10} /dev/zero > big || { rm big; exit 1; }\necho 1 > out.txt\n",
            ".gitignore": ".runnable\nout.txt\nbig\n",
            **(files if free_kb < 500 else {}),
        },
    )
    made.runnable("run", "-q", "--run-id", "first")
    (tmp_path / "small").mkdir()
    mounted = f"mount -t tmpfs -o size={free_kb}k tmpfs {tmp_path / 'small'} && exec {PROGRAM} reproduce first"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted],
        cwd=made.folder,
        env={**made.environ, "TMPDIR": str(tmp_path / "small"), "SIZE": "2000000"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr + done.stdout
    assert re.search(says, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert [run["run_id"] for run in json.loads(made.runnable("runs", "--json").out)] == ["first"]
