"""Random pipelines as the jobs of a workflow: `tests/run.sh --long` alone runs this, minutes for each of them.

`ENGINE_JOBS` says how many, `ENGINE_SEED` from which seed on.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from act import REPOSITORY, Runner
from cli import elsewhere
from equal_logs import recorded
from random_graphs import Generator
from registry_server import Served
from test_workflow_act import WORKFLOW, assert_one_run, pushed, runner, served

__all__ = ["runner", "served"]  # fixtures
RUNS = int(os.environ.get("ENGINE_JOBS", "4"))
SEED = int(os.environ.get("ENGINE_SEED", "0"))


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_a_random_graph_as_jobs(tmp_path: Path, served: Served, runner: Runner, seed: int) -> None:
    """Broken and re-run, with matrices, conditions and tries, it leaves the log of one machine."""
    generator = Generator(random.Random(seed), fails_fast=False)  # noqa: S311 - to repeat it
    pipeline = f"name = 'graph'\n{generator.pipeline()}"
    broken = generator.random.choice(generator.breakable)
    project = pushed(tmp_path, pipeline, **generator.files)
    workflow, places = WORKFLOW.replace("diamond", "graph"), {"BROKEN": "", "TRIED": ""}
    for name in places:
        (tmp_path / "jobs" / name).mkdir(parents=True)
        (tmp_path / "alone" / name).mkdir(parents=True)
        runner.variables[name] = str(tmp_path / "jobs" / name)
        places[name] = str(tmp_path / "alone" / name)
    for place in (runner.variables["BROKEN"], places["BROKEN"]):
        (Path(place) / broken).touch()
    alone = elsewhere(project, tmp_path, "clone")
    reader = elsewhere(project, tmp_path, "reader")
    command = ["run", "--run-id", "graph-7", "--jobs", "1"]
    for attempt in (1, 2):
        ran = runner.run("push", workflow, clone=project.folder, run_id=7, attempt=attempt)
        process = alone.start(*command, **places)
        said = process.communicate()
        assert (process.returncode, ran.code) in ((0, 0), (1, 1)), (said, ran.text)
        reader.runnable("pull", f"{served.host}/{REPOSITORY}/runs:graph-7", "--plain-http")
        assert_one_run(recorded(alone, "graph-7"), recorded(reader, "graph-7"))
        command = ["retry", "graph-7", "--jobs", "1"]
        for place in (runner.variables["BROKEN"], places["BROKEN"]):
            (Path(place) / broken).unlink(missing_ok=True)
    assert alone.log("graph-7").status == "SUCCESS", pipeline
