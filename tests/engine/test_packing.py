"""Tests of runs whose steps say what they take: which of them run at the same time on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli import Workspace, workspace

from runnable_ci.runs.machines.environment_model import GivenResources
from runnable_ci.steps.machine import capacity

TIMED = "date +%s.%N > $RUNNABLE_STEP.began; sleep {0}; date +%s.%N > $RUNNABLE_STEP.ended"
CORES = capacity({}).cpus


def project_of(folder: Path, steps: str) -> Workspace:
    """Return a workspace with a pipeline of these steps; the times are no files of theirs."""
    return workspace(folder, {"runnable.toml": steps, ".gitignore": ".runnable\n*.began\n*.ended\n"})


def step(name: str, resources: str = "", *, seconds: float = 0.5, more: str = "") -> str:
    """A step that writes down when it ran."""
    says = f"resources = {{ {resources} }}\n" if resources else ""
    return f"[steps.{name}]\nrun = '{TIMED.format(seconds)}'\nneeds = []\nignore-reads = ['*']\n{says}{more}\n"


def overlaps(project: Workspace, one: str, other: str) -> bool:
    """Whether two steps ran at the same time."""

    def at(name: str, end: str) -> float:
        return float((project.folder / f"{name}.{end}").read_text())

    return at(one, "began") < at(other, "ended") and at(other, "began") < at(one, "ended")


@pytest.mark.promise
def test_what_takes_all_cores_runs_by_itself(tmp_path: Path) -> None:
    """However many steps may run at the same time; what says nothing is one core."""
    project = project_of(tmp_path, step("all", f"cpus = {CORES}") + step("a") + step("b", f"cpus = {CORES}"))
    project.runnable("run", "--run-id", "r", "--jobs", str(max(4, CORES)))
    assert not overlaps(project, "all", "b")


@pytest.mark.promise
def test_memory_is_shared_out(tmp_path: Path) -> None:
    """Two of which each takes more than half run one after the other; with little each, at the same time."""
    much = f"{capacity({}).memory * 6 // 10 // 1024**2}M"
    steps = [step("a", f'memory = "{much}"'), step("b", f'memory = "{much}"'), step("c", 'memory = "1M"', seconds=2)]
    project = project_of(tmp_path, "".join(steps))
    project.runnable("run", "--run-id", "r", "--jobs", "3")
    assert not overlaps(project, "a", "b")


def test_more_than_the_machine_has_runs_alone(tmp_path: Path) -> None:
    """With a note, and it is not left out."""
    project = project_of(tmp_path, step("a") + step("wide", "cpus = 5000") + step("b"))
    done = project.runnable("run", "--run-id", "r", "--jobs", "3")
    assert "note: it takes 5000 cores, and this machine has" in done.err
    assert not overlaps(project, "a", "wide")
    assert not overlaps(project, "b", "wide")


def test_each_step_sees_gpus_of_its_own(tmp_path: Path) -> None:
    """Those that it takes of those that the program may use; one that says nothing sees all."""
    shows = "echo $CUDA_VISIBLE_DEVICES; sleep 0.5"
    steps = "".join(
        f"[steps.{name}]\nrun = '{shows}'\nneeds = []\n{says}\n"
        for name, says in (("a", "resources = { gpus = 1 }"), ("b", "resources = { gpus = 1 }"), ("c", ""))
    )
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", "--jobs", "3", CUDA_VISIBLE_DEVICES="4,7")
    printed = {name: project.runnable("logs", "r", name).out.strip() for name in "abc"}
    assert {printed["a"], printed["b"]} <= {"4", "7"}
    assert printed["c"] == "4,7"


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The step fails before it begins, without another try; the others run."""
    steps = step("gpu", "gpus = 2", more="attempts = 3") + step("a")
    project = project_of(tmp_path, steps)
    done = project.runnable("run", "--run-id", "r", code=1, CUDA_VISIBLE_DEVICES="0")
    assert "it takes 2 GPUs, and this machine has 1" in done.err
    log = project.log("r")
    assert [len(log.steps[name].attempts) for name in ("gpu", "a")] == [1, 1]
    assert not (project.folder / "gpu.began").exists()
    project.runnable("retry", "r", CUDA_VISIBLE_DEVICES="0,1")
    assert project.log("r").status == "SUCCESS"


def test_nothing_runs_again_because_it_takes_more(tmp_path: Path) -> None:
    """A step is the same, whatever it takes."""
    project = project_of(tmp_path, step("a", "cpus = 1", seconds=0))
    project.runnable("run", "--run-id", "r")
    project.write({"runnable.toml": step("a", 'cpus = 2, memory = "10M"', seconds=0)})
    assert "nothing to do" in project.runnable("retry", "r").err


@pytest.mark.parametrize("fails", ["", "exit 1; "])
def test_what_waits_for_room_is_decided_on_when_there_is_some(tmp_path: Path, fails: str) -> None:
    """All that fits beside nobody: each runs once, and each gets its turn, also beside one that fails."""
    steps = "".join(step(f"s{i}", f"cpus = {CORES}", seconds=0) for i in range(5))
    steps += f"[steps.first]\nrun = '{fails}true'\nneeds = []\nresources = {{ cpus = {CORES} }}\n"
    project = project_of(tmp_path, steps + "[steps.last]\nrun = 'true'\nneeds = ['s3', 's4']\n")
    project.runnable("run", "--run-id", "r", "--jobs", "3", code=1 if fails else 0)
    log = project.log("r")
    assert all(len(log.steps[name].attempts) == 1 for name in (*(f"s{i}" for i in range(5)), "first", "last"))


def test_what_each_try_had_is_recorded(tmp_path: Path) -> None:
    """Here and elsewhere; nothing of a step that does not say what it takes, nor of one that never began."""
    fails = 'run = "exit 1"\nneeds = []\nattempts = 2\n'
    takes = 'resources = { cpus = [1, 2], memory = ["10M", "1.5G"], gpus = 1 }\n'
    project = project_of(
        tmp_path,
        f'[executors.it]\ncommand = "sh -c {{}}"\n[steps.here]\n{fails}{takes}'
        f'[steps.there]\n{fails}{takes}executor = "it"\n[steps.plain]\n{fails}'
        "[steps.much]\nrun = 'true'\nneeds = []\nresources = { gpus = 9 }\n",
    )
    project.runnable("run", "--run-id", "r", code=1, CUDA_VISIBLE_DEVICES="0")
    found = {name: [one.resources for one in step.attempts] for name, step in project.log("r").steps.items()}
    had = [GivenResources(cpus=1, memory=10 << 20, gpus=1), GivenResources(cpus=2, memory=3 << 29, gpus=1)]
    assert found == {"here": had, "there": had, "plain": [None, None], "much": [None]}
    shown = project.runnable("show", "r", "there").out
    assert len(re.findall(r"^  executor  it(, waited \d+\.\d s)?$", shown, re.MULTILINE)) == 2
    assert "  resources 1 core, 10.0 MiB of memory, 1 GPU\n" in shown
    assert "  resources 2 cores, 1.5 GiB of memory, 1 GPU\n" in shown
    project.runnable("report", "r", "-o", "page.html")
    page = project.read("page.html")
    assert page.count("2 cores, 1.5 GiB of memory, 1 GPU") == 2
    assert "Executor" in page


def test_instances_are_packed(tmp_path: Path) -> None:
    """Each instance of a matrix takes what its step says; the next try of one may take more."""
    steps = (
        "[steps.a]\nrun = 'test $x != 2 -o -e tried || { touch tried; exit 1; }'\nignore-reads = ['tried']\n"
        f"attempts = 2\nresources = {{ cpus = [1, {CORES}] }}\nstrategy = {{ matrix = {{ x = [1, 2, 3, 4] }} }}\n"
    )
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": ".runnable\ntried\n"})
    done = project.runnable("run", "--run-id", "r", "--jobs", "4")
    assert "trying again (2 of 2)" in done.err
    assert project.log("r").status == "SUCCESS"
