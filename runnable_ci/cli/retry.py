"""`runnable-ci retry`: resume a run from where it failed, by the same loop as `run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.engine.options import Options, RetryOptions, redacting_errors
from runnable_ci.engine.resume import look_ahead, resume
from runnable_ci.engine.run_project import open_run
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.command_line import is_default
from runnable_ci.runs.reader import LATEST
from runnable_ci.runs.reader import load as load_log
from runnable_ci.util.console import console, is_actions

if TYPE_CHECKING:
    from runnable_ci.store.registry import Registry


def retry(
    file: Path | None,
    run: str,
    options: Options,
    retry_options: RetryOptions,
    *,
    dry_run: bool = False,
    publish: bool = False,
    to: str | None = None,
) -> int:
    """Resume a run with its own pipeline file, or with `file`; publish it if requested, or if `to` is set."""
    source = accepted = None
    if "/" in run or "@" in run or retry_options.registry is not None:
        source = _locate(run, file, options, retry_options.registry)
    if source is not None or options.settings.writers is not None or is_actions(options.environ):
        from runnable_ci.github.accepted_writers import accepted_writers

        accepted = accepted_writers(options.settings, options.environ)
    opened = open_run(
        run,
        file=file,
        other_pipeline=retry_options.other_pipeline,
        environ=options.environ,
        source=source,
        accepted=accepted,
    )
    project, run_id = opened.project, opened.run_id
    for note in opened.notes:
        options.printer.say(f"note: {note}")
    if file is None and not is_default(project.file):
        options.printer.say(f"note: run {run_id} belongs to the pipeline {project.identity()}")
    session = RunSession.of(project, options)
    publication = None
    if publish or to is not None:
        from runnable_ci.cli.registry import PublishOnExit

        publication = PublishOnExit.of(project, to or opened.registry, options)
        publication.require_room(run_id)
        if not dry_run:
            publication.require_free(run_id, load_log(project.layout, run_id))
    typed = [run_id if word == LATEST else word for word in retry_options.typed] or ["retry", run_id]
    retry_options = retry_options._replace(registry=opened.registry, typed=typed, accepted=opened.accepted)
    with redacting_errors(session.redactor(project.pipeline.parameters)):
        if dry_run:
            planned = look_ahead(session, run_id, retry_options)
            if note := planned.environment_note():
                options.printer.say(note)
            console.out(*planned.plan.lines())
            return 0
        exit_code = resume(session, run_id, retry_options)
    return publication.publish(project.layout, run_id, exit_code) if publication else exit_code


def _locate(run: str, file: Path | None, options: Options, registry: str | None) -> tuple[Registry, str]:
    """Return the registry to pull a run from first, and what it is called there."""
    from runnable_ci.runs.remote.registry_config import Registries

    registries = Registries(options.settings, options.environ)
    if "/" in run or registry is not None:
        return registries.run(run, registry)
    from runnable_ci.cli.registry import locate
    from runnable_ci.pipeline.project import find_store

    layout = find_store(file.parent if file and file.is_file() else file, options.environ)
    return locate(layout, run, None, registries, layout.folder.parent)
