"""Reproducible, resumable pipeline runs for teams that live in GitHub Actions.

In a notebook:

    import runnable_ci
    runnable_ci.list_runs()
    run = runnable_ci.open_run("latest")
    run.metrics, run.parameters, run.files

In a program that defines a pipeline:

    pipeline = runnable_ci.Pipeline("iris", parameters={"seed": 7})
    pipeline.step("load", python=iris.load, returns={"X": "object"})
    pipeline.write("runnable.toml")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runnable_ci.api.listed import Runs
    from runnable_ci.api.opened import OpenRun
    from runnable_ci.pipeline.definition.builder import PipelineBuilder as Pipeline

__all__ = ["Pipeline", "list_runs", "open_run"]


def __getattr__(name: str) -> Any:
    """Load what is seldom needed when it is asked for: each run of the program would pay for it."""
    if name == "Pipeline":
        from runnable_ci.pipeline.definition.builder import PipelineBuilder

        return PipelineBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def list_runs(folder: str | Path | None = None) -> Runs:
    """Return the runs of a store, the newest last, each as a dict with what `runnable-ci runs --json` has of it.

    `folder` is the one with the store, by default that of the pipeline file, as for all commands. Raises `StoreError`.
    """
    from runnable_ci.api.listed import list_runs as listed

    return listed(Path(folder) if folder is not None else None)


def open_run(run_id: str = "latest", folder: str | Path | None = None) -> OpenRun:
    """Return a finished, failed or running run, for reading; `folder` as for `list_runs`.

    `run_id` is an id, `latest`, `latest-success`, or a branch: its newest run. Raises `RunNotFoundError`.
    """
    from runnable_ci.api.opened import open_run as opened

    return opened(run_id, Path(folder) if folder is not None else None)
