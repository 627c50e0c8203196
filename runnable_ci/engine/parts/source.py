"""The earlier run from which a run of some steps takes what they need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from runnable_ci.engine.restore import fetch_required
from runnable_ci.engine.run_project import is_of
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import BlobMissingError, RunLogError, RunNotFoundError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.model import PROCESSING, SKIPPED, SUCCESS, RunLog
from runnable_ci.runs.paths import is_foreign
from runnable_ci.runs.reader import load, newest_first, resolve_id
from runnable_ci.runs.reuse.results import has_branches
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import listed


def find_source_run(
    project: Project, names: Collection[str], *, environ: Mapping[str, str], from_run: str | None, otherwise: str
) -> RunLog:
    """Return the newest of the `usable_runs` that has results of all these steps; `otherwise` is the hint to none.

    Raises `UsageError`, `RunNotFoundError`.
    """
    lacking: list[str] = []
    for log in usable_runs(project, environ=environ, from_run=from_run):
        missing = [name for name in names if not has_result(log, name, project.pipeline)]
        if not missing:
            return log
        lacking = lacking or missing
    what = listed(f"`{name}`" for name in lacking or names)
    which = "no run here has a" if from_run is None else f"run `{from_run}` has no"
    raise RunNotFoundError(f"{which} result of {what}, which the steps to run need", hint=otherwise)


def usable_runs(project: Project, *, environ: Mapping[str, str], from_run: str | None) -> Iterator[RunLog]:
    """Yield the runs of the pipeline whose results may be taken: `from_run`, else those that this store made.

    The newest one comes first; what came from a registry is used only where it is named. Raises `UsageError` for a run
    of another pipeline, `RunNotFoundError`.
    """
    layout = project.layout
    if from_run is not None:
        if "/" in from_run:
            raise UsageError(
                f"--from-run {from_run}: not a run of this store", hint=f"first: {command('pull', from_run)}"
            )
        log = load(layout, resolve_id(layout, from_run))
        if not is_of(project, log, environ=environ, layout=layout):
            raise UsageError(
                f"run `{log.run_id}` is not of the pipeline {project.identity()}",
                hint=f"name a run of this pipeline: `{of_store(layout, 'runs')}` lists them",
            )
        yield log
        return
    sealed = layout.manifests()
    for run_id in newest_first(layout, sealed):
        with suppress(RunLogError):  # damaged: nobody knows of which pipeline
            log = load(layout, run_id, sealed)
            if not is_foreign(layout, run_id) and is_of(project, log, environ=environ, layout=layout):
                yield log


def has_result(log: RunLog, name: str, pipeline: Pipeline) -> bool:
    """Return whether a run that is over has a result of a step; where it skipped one on purpose there is none to have.

    What a mock gave is no result, nor what was made from that.
    """
    above = {name, *pipeline.ancestors(name)}
    if any(step.mock for key, step in log.steps.items() if key.partition(".")[0] in above):
        return False
    own = [step for key, step in log.steps.items() if key.partition(".")[0] == name]
    done = [step for step in own if (step.attempts or has_branches(step)) and step.status == SUCCESS]
    skipped = [step for step in own if step.status == SKIPPED and log.status == SUCCESS]
    return log.status != PROCESSING and bool(own) and len(done) + len(skipped) == len(own)


def require_content(session: RunSession, results: RunLog) -> None:
    """Have all that results refer to in the store, since the new run is to be whole without the earlier one.

    Raises `BlobMissingError` where something is lost, `StoreError`.
    """
    blobs = layers(results)
    where = fetch_required(session, blobs.values(), results, None)
    if lost := [title for title, blob in blobs.items() if not session.project.layout.exists(blob)]:
        place = f"neither in the store nor in {where}" if where else "not in the store"
        raise BlobMissingError(
            f"{listed(lost)} of run `{results.run_id}`: {place}",
            hint="run the steps that made it too, or name another run with --from-run",
        )
