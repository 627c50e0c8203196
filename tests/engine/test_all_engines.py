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
from cli import PROGRAM_THERE, Workspace, elsewhere, workspace
from equal_logs import BESIDE_ITS_PROJECT, assert_equal, recorded
from kinds_of_steps import FILES, run_broken_and_resumed, steps_of_each_kind
from podman import IMAGE, Podman, podman_with_image, python_volumes
from random_graphs import Generator
from registry_server import registry
from slurm import slurm_server
from sshd import ssh_server

CLONE = "CLONE"
"""In an executor: the place of a clone which is no work tree of the run."""
RUNS = int(os.environ.get("ENGINE_RUNS", "1"))
SEED = int(os.environ.get("ENGINE_SEED", "0"))
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Engine:
    """What runs the steps: the definition of an executor, and what its commands need in the environment."""

    executor: str
    environ: Mapping[str, str]
    shared: bool = True
    """Whether its steps run in the folder of the run."""


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


def _apart(folder: Path, stack: ExitStack) -> Engine:
    """An engine that shares no folder with the run: each attempt goes there and comes back by a registry."""
    server = stack.enter_context(ssh_server(folder / "server-apart"))
    served = stack.enter_context(registry(folder / "registry"))
    executor = f"command = '{server.command}'\nproject = '{CLONE}'\nprogram = '{PROGRAM_THERE}'"
    return Engine(executor, {"RUNNABLE_CI_REGISTRY": served.repository()}, shared=False)


def _slurm(_folder: Path, stack: ExitStack) -> Engine:
    cluster = stack.enter_context(slurm_server())
    return Engine('slurm = { partition = "all", time = "10m" }', cluster.environ)


def _srun(_folder: Path, stack: ExitStack) -> Engine:
    cluster = stack.enter_context(slurm_server())
    return Engine('command = "srun -p all -n 1 -c {cpus} sh -c {}"', cluster.environ)


def _podman(folder: Path, stack: ExitStack) -> Engine:
    engine = stack.enter_context(podman_with_image())
    shared = [f"{place}:{place}" for place in ("/usr", "/etc", folder.parent, ROOT)]
    volumes = "".join(f" -v {volume}" for volume in (*shared, *python_volumes()))
    return Engine(f"command = 'podman run --rm{volumes} {IMAGE} sh -c {{}}'", engine.environ)


STARTS: Mapping[str, Callable[[Path, ExitStack], Engine]] = {
    "ssh": _ssh,
    "apart": _apart,
    "slurm": _slurm,
    "srun": _srun,
    "podman": _podman,
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(tmp_path_factory.mktemp("engines"), stack)


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Podman with the image, once for all tests."""
    with podman_with_image() as found:
        yield found


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
@pytest.mark.parametrize("name", STARTS)
def test_every_engine_leaves_the_same_log(engines: Engines, tmp_path: Path, name: str, seed: int) -> None:
    """Whatever is broken, whatever is tried again; after each command, not only in the end."""
    generator = Generator(random.Random(seed), fails_fast=False)  # noqa: S311 - to repeat it
    executor = engines[name].executor.replace(CLONE, str(tmp_path / "clone"))
    is_edited = (seed + [*STARTS].index(name)) % 2 == 0
    alone = "max-parallel = 1" if is_edited else ""  # what others read meanwhile, a step may have read too
    pipeline = f"name = 'graph'\n[executors.it]\n{executor}\n{alone}\n{generator.pipeline()}"
    broken = generator.random.sample(generator.breakable, min(2, len(generator.breakable)))
    base = workspace(tmp_path, {**generator.files, "runnable.toml": pipeline, ".gitignore": "out/\n"}, name="base")
    places = {place: project_in(base, tmp_path / place, broken) for place in ("here", "there")}
    places["there"].environ.update(engines[name].environ)
    far = elsewhere(base, tmp_path, "clone")
    command = ["run", "--run-id", "r"]
    for attempt in range(len(broken) + 1):
        for place, options in (("here", ["--jobs", "1"]), ("there", ["--executor", "it"])):
            process = places[place].start(*command, *options)
            said = process.communicate()
            assert process.returncode in (0, 1), (place, process.returncode, said)
        here, there = (recorded(places[place], "r") for place in ("here", "there"))
        used = {one.executor for step in there.log.steps.values() for one in step.attempts}
        assert used <= {"it"}, used
        assert_equal(here, there.as_local(), shared=engines[name].shared)
        command = ["retry", "r"]
        edits = generator.edits() if is_edited else {}
        for project in places.values():
            if attempt < len(broken):
                (project.folder.parent / "broken" / broken[attempt]).unlink()
            project.write(edits)
    assert here.log.status == "SUCCESS", pipeline
    assert not far.git("status", "--porcelain")


@pytest.mark.parametrize("name", ["slurm", "ssh"] if RUNS > 1 else ["slurm"])
def test_every_kind_of_step_runs_elsewhere(engines: Engines, podman: Podman, tmp_path: Path, name: str) -> None:
    """Python, notebook, shell and container steps, and one that resumes from its checkpoint."""
    pipeline = f"name = 'kinds'\n{steps_of_each_kind()}[executors.it]\n{engines[name].executor}\n"
    base = workspace(tmp_path, {**FILES, "runnable.toml": pipeline}, name="base")
    local, far = (project_in(base, tmp_path / place, ()) for place in ("here", "there"))
    far.environ.update(engines[name].environ)
    run_broken_and_resumed(local, podman, "../well", "r", "--jobs", "1")
    run_broken_and_resumed(far, podman, "../well", "r", "--executor", "it")
    there = recorded(far, "r")
    assert {one.executor for step in there.log.steps.values() for one in step.attempts} == {"it"}
    assert_equal(recorded(local, "r"), there.as_local(), shared=True)


def project_in(base: Workspace, folder: Path, broken: Iterable[str]) -> Workspace:
    """Return a clone in a folder of its own, beside which stands what is broken."""
    folder.mkdir()
    project = elsewhere(base, folder)
    for variable in BESIDE_ITS_PROJECT:
        (folder / variable.lower()).mkdir()
        project.environ[variable] = str(folder / variable.lower())
    for name in broken:
        (folder / "broken" / name).touch()
    return project
