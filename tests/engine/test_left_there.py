"""What is elsewhere of a run whose own process was killed: no command removes what it needs, and all say the same."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree

import pytest
from cli import Workspace, workspace
from support import wait_until

import runnable_ci
from runnable_ci.runs import reader
from runnable_ci.store.local import Layout
from runnable_ci.util.files import locked_alone

SLOW = """
[executors.node]
command = "sh -c {}"

[steps.slow]
run = "touch ../begun; while [ ! -e ../go ]; do sleep 0.1; done; seq 100000 > out.txt"
executor = "node"
catalog = { put = ["out.txt"] }

[steps.then]
run = "wc -l < out.txt"
needs = ["slow"]
"""
HOST = socket.gethostname()
HOW = "`runnable-ci retry r` waits for it, then continues"
RUNS = f"`slow` runs on node ({HOST}) or was lost there"


@contextmanager
def left(folder: Path) -> Iterator[Workspace]:
    """A project whose run `r` was killed while its worker runs a step; no worker is left afterwards."""
    project = workspace(folder, {"runnable.toml": SLOW, ".gitignore": ".runnable\n"})
    with project.start("run", "--run-id", "r") as process:
        wait_until((folder / "begun").exists, "the step runs")
        process.send_signal(signal.SIGKILL)
    try:
        yield project
    finally:
        (folder / "go").touch()
        wait_until(lambda: is_free(project), "its worker leaves", poll_s=0.2)


def is_free(project: Workspace) -> bool:
    """Whether no process writes into a store."""
    with locked_alone(project.store / "store.lock") as alone:
        return alone


def end(project: Workspace) -> None:
    """Let the step end, and its worker leave."""
    (project.folder.parent / "go").touch()
    wait_until((project.store / "elsewhere" / "r" / "attempts" / "slow.1" / "fragment").exists, "the step ends")
    wait_until(lambda: is_free(project), "its worker leaves", poll_s=0.5)


@pytest.mark.promise
def test_nothing_is_removed_that_an_attempt_elsewhere_needs(tmp_path: Path) -> None:
    """Neither while it runs, nor what it made before a retry has taken it."""
    with left(tmp_path) as project:
        for command in (["gc"], ["gc", "--keep", "0"], ["rm", "r"], ["rm", "r", "--force"]):
            refused = project.runnable(*command, code=1).err
            assert f"run r: {RUNS}" in refused
            assert HOW in refused
        end(project)
        done = project.runnable("gc", "--keep", "0")
        assert f"kept r: `slow` has ended on node ({HOST}); {HOW}" in done.err
        project.runnable("retry", "r")
        log = project.log("r")
        assert [len(step.attempts) for step in log.steps.values()] == [1, 1]
        project.runnable("gc")
        assert runnable_ci.open_run("r", project.folder).read("out.txt").endswith(b"100000\n")
        assert not list((project.store / "elsewhere").iterdir())


def test_what_has_ended_may_be_removed(tmp_path: Path) -> None:
    """By a person who names the run: all of it goes. What is left of runs that are gone goes with it."""
    with left(tmp_path) as project:
        end(project)
        (project.store / "elsewhere" / "another" / "attempts" / "a.1").mkdir(parents=True)
        project.runnable("rm", "r")
        assert not list((project.store / "elsewhere").iterdir())
        assert "no runs" in project.runnable("runs").err


def test_a_run_that_is_no_more_blocks_nothing(tmp_path: Path) -> None:
    """However it was removed: the next run takes away what was left of its attempts."""
    with left(tmp_path) as project:
        end(project)
        (project.store / "elsewhere" / "r" / "attempts" / "slow.1" / "ended").unlink()  # it may run yet
        project.runnable("run", "then", code=2)
        rmtree(project.store / "runs" / "r")
        project.runnable("run")
        assert not list((project.store / "elsewhere").iterdir())


MESSAGE = "interrupted: the run was killed while it had `slow` elsewhere; a retry attaches to that"


def test_all_say_how_it_continues(tmp_path: Path) -> None:
    """The log by both readers, `show`, `runs` and the Python door: no run that crashed, and none that just runs."""
    with left(tmp_path) as project:
        log = project.log("r")
        assert (log.status, log.outcome, log.message) == ("FAIL", "interrupted", MESSAGE)
        assert log.steps["slow"].status == "PROCESSING"
        opened = runnable_ci.open_run("r", project.folder)
        assert opened.log == reader.load(Layout(project.store), "r").model_dump(mode="json")
        assert repr(opened).endswith(f", {MESSAGE}: `runnable-ci retry r`>")
        assert f"elsewhere    {RUNS}; {HOW}" in project.runnable("show", "r").out
        listed = project.runnable("runs")
        assert " FAIL " in listed.out
        assert f"note: r: {RUNS}; {HOW}" in listed.err
        plan = f"attaches to attempt 1 on node ({HOST}), and runs again if it was lost there"
        assert plan in project.runnable("retry", "r", "-n").out
        rows = [asdict(summary) for summary in reader.summaries(Layout(project.store))]
        assert [dict(row) for row in runnable_ci.list_runs(project.folder)] == rows
        end(project)
        assert f"takes attempt 1, which has ended on node ({HOST})" in project.runnable("retry", "r", "-n").out
        assert f"elsewhere    `slow` has ended on node ({HOST}); {HOW}" in project.runnable("show", "r").out
        with project.start("retry", "r") as retry:
            retry.communicate()
        assert retry.returncode == 0
        assert "elsewhere" not in project.runnable("show", "r").out
        assert not project.runnable("runs").err


def test_who_attaches_reads_nothing_for_the_step(tmp_path: Path) -> None:
    """The retry looks at the pipeline, the code and git, beside a worker that watches: no read of its step is sure."""
    with left(tmp_path) as project:
        project.write({"new.py": "", "runnable.toml": SLOW + "# edited"})
        with project.start("retry", "r") as retry:
            said = retry.stderr
            assert said
            wait_until(lambda: b"attached to attempt 1 on node" in said.readline(), "it attaches")
            (tmp_path / "go").touch()
            retry.communicate()
        assert retry.returncode == 0
        reads = json.loads(project.runnable("show", "r", "slow", "--reads").out)
    assert "asked_git" not in reads
    assert [
        path for kind in ("files", "listings") for path, it in reads.get(kind, {}).items() if "grade" not in it
    ] == []
    assert "runnable.toml" not in reads.get("files", {})
