"""A random pipeline, broken and resumed, leaves the same run log by every engine, but for machines and moments.

`ENGINE_RUNS` says how many of them each engine runs, `ENGINE_SEED` from which seed on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from equal_logs import assert_equal
from random_graphs import Generator
from slurm import slurm_server
from sshd import ssh_server

RUNS = int(os.environ.get("ENGINE_RUNS", "1"))
SEED = int(os.environ.get("ENGINE_SEED", "0"))


@dataclass(frozen=True)
class Engine:
    """What runs the steps: the definition of an executor, and what its commands need in the environment."""

    executor: str
    environ: Mapping[str, str]


class Engines:
    """The servers that there are, each started when it is first asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._started = folder, stack, dict[str, Engine]()

    def __getitem__(self, name: str) -> Engine:
        if name not in self._started:
            self._started[name] = STARTS[name](self._folder, self._stack)
        return self._started[name]


def _ssh(folder: Path, stack: ExitStack) -> Engine:
    server = stack.enter_context(ssh_server(folder / "server"))
    return Engine(f"command = '{server.command}'", {})


def _slurm(_folder: Path, stack: ExitStack) -> Engine:
    cluster = stack.enter_context(slurm_server())
    return Engine('slurm = { partition = "all", time = "10m" }', cluster.environ)


STARTS: Mapping[str, Callable[[Path, ExitStack], Engine]] = {"ssh": _ssh, "slurm": _slurm}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(tmp_path_factory.mktemp("engines"), stack)


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
@pytest.mark.parametrize("name", STARTS)
def test_every_engine_leaves_the_same_log(engines: Engines, tmp_path: Path, name: str, seed: int) -> None:
    """Whatever is broken, whatever is tried again; after each command, not only in the end."""
    generator = Generator(random.Random(seed), fails_fast=False)  # noqa: S311 - to repeat it
    pipeline = f"name = 'graph'\n[executors.it]\n{engines[name].executor}\n{generator.pipeline()}"
    broken = generator.random.sample(generator.breakable, min(2, len(generator.breakable)))
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    local = workspace(tmp_path / "here", {**generator.files, "runnable.toml": pipeline, ".gitignore": "out/\n"})
    places = {"here": local, "there": elsewhere(local, tmp_path / "there")}
    places["there"].environ.update(engines[name].environ)
    for project in places.values():
        break_steps(project, broken)
    command = ["run", "--run-id", "r"]
    for attempt in range(len(broken) + 1):
        for place, options in (("here", ["--jobs", "2"]), ("there", ["--executor", "it"])):
            process = places[place].start(*command, *options)
            said, _ = process.communicate()
            assert process.returncode in (0, 1), said
        here, there = places["here"].log("r"), places["there"].log("r")
        used = {one.executor for step in there.steps.values() for one in step.attempts}
        assert used <= {"it"}, used
        for step in there.steps.values():
            step.attempts = [one.model_copy(update={"executor": ""}) for one in step.attempts]
        assert_equal(here, there)
        command = ["retry", "r"]
        if attempt < len(broken):
            for project in places.values():
                (project.folder.parent / "broken" / broken[attempt]).unlink()
    assert here.status == "SUCCESS", pipeline


def break_steps(project: Workspace, broken: Iterable[str]) -> None:
    """Put beside a project what is broken."""
    for name in ("broken", "tried"):
        (project.folder.parent / name).mkdir()
    for name in broken:
        (project.folder.parent / "broken" / name).touch()
