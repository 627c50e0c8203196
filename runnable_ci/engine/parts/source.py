"""The earlier run from which a run of some steps takes what they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runnable_ci.engine.run_project import is_of
from runnable_ci.errors import RunLogError, RunNotFoundError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.model import PROCESSING, SKIPPED, SUCCESS, RunLog
from runnable_ci.runs.paths import is_foreign
from runnable_ci.runs.reader import load, resolve_id, run_ids
from runnable_ci.util.text import listed


def find_source(
    project: Project, names: Collection[str], *, environ: Mapping[str, str], from_run: str | None, otherwise: str
) -> RunLog:
    """Return the run that has results of these steps: `from_run`, else the newest one that this store made.

    What came from a registry is used only where it is named. `otherwise` is the hint where there is no such run. Raises
    `UsageError`, `RunNotFoundError`.
    """
    layout = project.layout
    if from_run is not None:
        log = load(layout, resolve_id(layout, from_run))
        if not is_of(project, log, environ=environ, layout=layout):
            raise UsageError(
                f"run `{log.run_id}` is not of the pipeline {project.identity()}",
                hint=f"name a run of this pipeline: `{of_store(layout, 'runs')}` lists them",
            )
        if missing := _missing(log, names):
            raise UsageError(
                f"run `{log.run_id}` has no result of {listed(f'`{name}`' for name in missing)}",
                hint=otherwise,
            )
        return log
    lacking: list[str] = []
    for run_id in reversed(run_ids(layout)):
        try:
            log = load(layout, run_id)
        except RunLogError:  # damaged: nobody knows of which pipeline
            continue
        if is_foreign(layout, run_id) or not is_of(project, log, environ=environ, layout=layout):
            continue
        if not (missing := _missing(log, names)):
            return log
        lacking = lacking or missing
    what = listed(f"`{name}`" for name in lacking or names)
    raise RunNotFoundError(
        f"no run here has a result of {what}, which the steps to run need",
        hint=otherwise,
    )


def _missing(log: RunLog, names: Collection[str]) -> list[str]:
    """Return the steps that the run can give no result of; one that it skipped on purpose has none to give."""
    return [name for name in names if log.status == PROCESSING or not _has_result(log, name)]


def _has_result(log: RunLog, name: str) -> bool:
    own = [step for key, step in log.steps.items() if is_step_or_branch(key, name)]
    done = [step for step in own if step.attempts and step.status == SUCCESS and not step.mock]
    skipped = [step for step in own if step.status == SKIPPED and log.status == SUCCESS]
    return bool(own) and len(done) + len(skipped) == len(own)


def is_step_or_branch(key: str, name: str) -> bool:
    """Return whether a key of a log's steps is a step, or one of its branches."""
    return key == name or key.startswith(f"{name}.")
