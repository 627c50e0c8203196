"""A run of a random pipeline that failed and was resumed equals one that did not fail, but for times and attempts.

The pipelines have matrices (written out, and of lists that steps return), chains of them, loops, steps of other files,
conditions and tries. `RANDOM_RUNS` says how many of them are run, `RANDOM_SEED` from which seed on.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from random_graphs import Generator

from runnable_ci.runs.model import RunLog

RUNS = int(os.environ.get("RANDOM_RUNS", "4"))
SEED = int(os.environ.get("RANDOM_SEED", "0"))
TRIES = float(os.environ.get("RANDOM_TRIES", "0.25"))


def outline(log: RunLog) -> dict[str, Any]:
    """Return what must be the same: what each step became, its values and files, and the values of the run."""
    steps = {
        name: [
            step.status,
            step.step_type,
            [one.name for one in step.instances],
            {n: p.value for n, p in step.attempts[-1].output_parameters.items()} if step.attempts else {},
            {entry.name: entry.data_hash for entry in step.put_entries()},
        ]
        for name, step in log.steps.items()
    }
    return {
        "status": log.status,
        "steps": dict(sorted(steps.items())),
        "values": {name: parameter.value for name, parameter in sorted(log.parameters.items())},
    }


def unbroken(tmp_path: Path, name: str, files: dict[str, str]) -> tuple[Workspace, dict[str, str]]:
    """Return a project and the folders outside of it that say what is broken, and what was tried."""
    (tmp_path / name).mkdir()
    project = workspace(tmp_path / name, {**files, ".gitignore": "out/\n"})
    folders = {"BROKEN": tmp_path / name / "broken", "TRIED": tmp_path / name / "tried"}
    for folder in folders.values():
        folder.mkdir()
    return project, {variable: str(folder) for variable, folder in folders.items()}


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, seed: int) -> None:
    """Whatever was broken, and however often it was resumed."""
    generator = Generator(random.Random(seed), tries=TRIES)  # noqa: S311 - to repeat it
    files = {"runnable.toml": generator.pipeline(), **generator.files}
    project, places = unbroken(tmp_path, "whole", files)
    whole = project.start("run", "--run-id", "r", "--jobs", "2", **places)
    whole.communicate()
    assert whole.returncode == 0, files["runnable.toml"]
    expected = outline(project.log("r"))
    other, places = unbroken(tmp_path, "broken", files)
    for broken in generator.random.sample(generator.breakable, min(2, len(generator.breakable))):
        (Path(places["BROKEN"]) / broken).touch()
    command = ["run", "--run-id", "r", "--jobs", "2"]
    for attempt in range(4):
        left = sorted(Path(places["BROKEN"]).iterdir())
        process = other.start(*command, **places)
        process.communicate()
        assert process.returncode in (0, 1), files["runnable.toml"]
        if not left:
            break
        command = ["retry", "r", "--jobs", "2"]
        left[attempt % len(left)].unlink()
    assert outline(other.log("r")) == expected, files["runnable.toml"]
