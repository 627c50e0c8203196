"""Tests of sweeps: a run for each value of a parameter, which belong together and do not stop each other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cli import Workspace, workspace
from registry_server import registry
from support import WAIT_S, wait_until

from runnable_ci.runs.model import FAIL, SUCCESS

PIPELINE = """
[parameters]
depth = 3
rates = [0.1]
[steps.load]
run = "echo loading >> loads.log"
[steps.fit]
run = 'echo "score=$depth" >> "$RUNNABLE_OUTPUT"; echo "$depth $rates"; [ "$depth" != 5 ]'
returns = { score = "metric" }
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that fails for one value of its parameter."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "*.log\n"})


def test_one_run_each(project: Workspace) -> None:
    """They have one name and tag, are listed with what differs, and one that fails does not end the sweep."""
    done = project.runnable("run", "--sweep", "depth=3,5,7", "--run-id", "s", code=1)
    assert done.out == "fit  | 3 [0.1]\nfit  | 5 [0.1]\nfit  | 7 [0.1]\n"
    assert "run 2 of 3: depth = 5\nrun s-2: project, 2 steps\n" in done.err
    assert "hint: runnable-ci retry s-2\n" in done.err
    assert done.err.endswith("sweep s: 1 of 3 runs failed; `runnable-ci runs` lists them\n")
    rows = [line.split()[:2] for line in project.runnable("runs").out.splitlines()[1:]]
    assert rows == [["s-1", SUCCESS], ["s-2", FAIL], ["s-3", SUCCESS]]
    assert "depth = 7" in project.runnable("runs").out
    assert {project.log(f"s-{i}").tag for i in (1, 2, 3)} == {"s"}
    project.runnable("retry", "s-2", "-p", "depth=6")
    assert project.log("s-2").metrics() == {"score": 6}


def test_each_combination(project: Workspace) -> None:
    """Of several parameters; a list is one value. The plans of all are shown first where that is asked for."""
    words = ["--sweep", "depth=1,2", "--sweep", "rates=[1, 2],[3]", "--tag", "trial"]
    planned = project.runnable("run", *words, "-n").out
    assert planned.startswith("run 1 of 4: depth = 1, rates = [1, 2]\nload  run    first attempt\n")
    assert planned.count("fit   run    first attempt") == 4
    assert not (project.store / "runs").exists()
    done = project.runnable("run", *words, "-q", "--run-id", "c")
    assert done.err.endswith("sweep c: 4 runs succeeded; `runnable-ci runs` lists them\n")
    logs = [project.log(f"c-{i}") for i in (1, 2, 3, 4)]
    found = [(log.parameters["depth"].value, log.parameters["rates"].value, log.tag) for log in logs]
    assert found == [(1, [1, 2], "trial"), (1, [3], "trial"), (2, [1, 2], "trial"), (2, [3], "trial")]


def test_steps_that_do_not_vary_are_taken(project: Workspace) -> None:
    """A sweep of one step runs what comes before it once, in an earlier run."""
    project.runnable("run", "--run-id", "whole")
    project.runnable("run", "fit", "--sweep", "depth=1,2", "--run-id", "s")
    assert project.read("loads.log") == "loading\n"
    assert project.log("s-2").steps["load"].attempts[0].taken_from == "whole/load.1"


def test_a_step_that_varies_is_not_taken(project: Workspace) -> None:
    """That is said before the first run, though this one would still be possible."""
    project.write({"runnable.toml": PIPELINE.replace("echo loading", "echo $depth")})
    project.runnable("run", "--run-id", "whole")
    refused = project.runnable("run", "fit", "--sweep", "depth=3,4", code=2).err
    assert refused.startswith("error: step `load` was not selected, and its result cannot be taken from run `whole`: ")
    assert project.runnable("runs").out.count("\n") == 2


def test_a_cancelled_sweep_ends(project: Workspace) -> None:
    """Its running run is cancelled, and no other begins."""
    project.write({"runnable.toml": PIPELINE.replace('echo "$depth $rates"', "touch begun.log; sleep 60")})
    with project.start("run", "--sweep", "depth=1,2", "--run-id", "s") as running:
        wait_until((project.folder / "begun.log").exists, "the step runs")
        running.send_signal(signal.SIGTERM)
        assert running.wait(WAIT_S) == 128 + signal.SIGTERM
    assert [line.split()[0] for line in project.runnable("runs").out.splitlines()[1:]] == ["s-1"]


def test_a_sweep_is_published(tmp_path: Path, project: Workspace) -> None:
    """Each of its runs is, as one that failed is too."""
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("run", "--sweep", "depth=5,6", "--run-id", "s", "--to", repository, "-q", code=1)
        listed = project.runnable("runs", "--from", repository).out
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["s-1", FAIL], ["s-2", SUCCESS]]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--sweep", "depth"], "--sweep depth: expected NAME=VALUE,VALUE,…"),
        (["--sweep", "depth=1,,2"], "--sweep depth=1,,2: expected NAME=VALUE,VALUE,…"),
        (["--sweep", "depth=1,1"], "--sweep depth=1,1: a value is given twice"),
        (["--sweep", "depth=1", "--sweep", "depth=2"], "--sweep: `depth` is given twice"),
        (["--sweep", "depth=1,2", "-p", "depth=3"], "`depth` is given to --sweep and --param"),
        (["--sweep", "depth=1,deep"], "--param: depth is a number in runnable.toml"),
        (["--sweep", "dept=1,2"], "unknown parameter dept"),
        (["--sweep", f"depth={','.join(map(str, range(101)))}"], "--sweep: 101 runs, more than 100"),
    ],
)
def test_what_cannot_be_swept(project: Workspace, words: list[str], problem: str) -> None:
    """One clear error before the first run, also of the last value."""
    assert project.runnable("run", *words, code=2).err.startswith(f"error: {problem}")
    assert not (project.store / "runs").exists()


def test_no_run_begins_where_an_id_is_taken(project: Workspace) -> None:
    """Of whichever of them."""
    project.runnable("run", "--run-id", "s-2")
    refused = project.runnable("run", "--sweep", "depth=1,2", "--run-id", "s", code=2).err
    assert "there is already a run `s-2`" in refused
    assert project.runnable("runs").out.count("\n") == 2
