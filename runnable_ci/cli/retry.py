"""`runnable-ci retry`: resume a run from where it failed, by the same loop as `run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.engine.options import Options, RetryOptions, redacting_errors
from runnable_ci.engine.resume import look_ahead, resume
from runnable_ci.engine.run_project import open_run
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunNotFoundError
from runnable_ci.pipeline.command_line import is_default
from runnable_ci.runs.paths import IN_PROGRESS, run_folder
from runnable_ci.runs.reader import LATEST, resolve_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.util.console import console, is_actions

if TYPE_CHECKING:
    from runnable_ci.cli.context import PublishWhen
    from runnable_ci.store.registry import Registry


def retry(
    file: Path | None,
    run: str,
    options: Options,
    retry_options: RetryOptions,
    *,
    dry_run: bool = False,
    publish: PublishWhen | None = None,
    to: str | None = None,
) -> int:
    """Resume a run with its own pipeline file, or with `file`; publish it if requested, or if `to` is set."""
    source = accepted = None
    if "/" in run or "@" in run or retry_options.registry is not None:
        source = _locate(run, file, options, retry_options.registry)
    elif noted := _noted(run, file, options, is_gone=retry_options.take_over and not dry_run):
        source = noted
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
        take_over=retry_options.take_over,
        only_look=dry_run,
    )
    project, run_id = opened.project, opened.run_id
    for note in opened.notes:
        options.printer.say(f"note: {note}")
    if file is None and not is_default(project.file):
        options.printer.say(f"note: run {run_id} belongs to the pipeline {project.identity()}")
    session = RunSession.of(project, options)
    publication = None
    if when := publish or options.settings.publish or (None if to is None else "at-end"):
        from runnable_ci.cli.registry import PublishOnExit

        publication = PublishOnExit.of(project, to or opened.registry, options, when)
        publication.require_room(run_id)
        if not dry_run:
            publication.require_free(run_id, load_log(project.layout, run_id))
        session = publication.joined(session)
    typed = [run_id if word == LATEST else word for word in retry_options.typed] or ["retry", run_id]
    retry_options = retry_options._replace(registry=opened.registry, typed=typed, accepted=opened.accepted)
    with redacting_errors(session.redactor(project.pipeline.parameters)):
        if dry_run:
            _show_plan(session, run_id, retry_options)
            return 0
        exit_code = resume(session, run_id, retry_options)
    return publication.publish(project.layout, run_id, exit_code) if publication else exit_code


def _show_plan(session: RunSession, run_id: str, retry_options: RetryOptions) -> None:
    planned = look_ahead(session, run_id, retry_options)
    if note := planned.environment_note():
        session.options.printer.say(note)
    project, drops = session.project, retry_options.drops_checkpoints
    log = load_log(project.layout, run_id)
    if session.options.time_budget or project.pipeline.time_budget:
        from runnable_ci.engine.outliving.outlook import say_what_does_not_fit  # most runs have time

        say_what_does_not_fit(session, log, planned.plan)
    from runnable_ci.cli.show.before_retry import lines, notes  # only a look says them

    session.options.printer.say(*notes(project.layout, log, planned.plan.running, drops_checkpoints=drops))
    console.out(*lines(project.layout, log, planned.plan))


def _noted(run: str, file: Path | None, options: Options, *, is_gone: bool) -> tuple[Registry, str] | None:
    """Return where a run was in progress when it was pulled: what has become of it is to be found there.

    Where who wrote it `is_gone` what is here counts.
    """
    from runnable_ci.pipeline.project import find_store

    layout = find_store(file.parent if file and file.is_file() else file, options.environ)
    if not layout.folder.exists():
        return None
    try:
        run_id = resolve_id(layout, run)
    except RunNotFoundError:
        return None
    if not (run_folder(layout, run_id) / IN_PROGRESS).exists():
        return None
    from runnable_ci.runs.live.life_sign import note_writer, noted_writer

    noted = noted_writer(layout, run_id)
    if noted is None:
        return None
    if is_gone:
        note_writer(layout, run_id, None)
        return None
    from runnable_ci.runs.remote.registry_config import Registries

    return Registries(options.settings, options.environ).recorded(noted.registry), run_id


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
