"""Make settings, printer and redactor from the options and the environment. Imported late, as are the parts."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import typer

from runnable_ci.errors import RunnableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runnable_ci.cli.terminal import Printer
    from runnable_ci.config import LogLevel, Settings
    from runnable_ci.engine.options import Options, ReuseOptions
    from runnable_ci.github.log import ActionsPrinter
    from runnable_ci.pipeline.keys.durations import TimeLimit
    from runnable_ci.pipeline.project import Project
    from runnable_ci.redaction.redactor import Redactor
    from runnable_ci.runs.remote.writers import AcceptedWriters
    from runnable_ci.runs.reuse.candidates import IndexPlace
    from runnable_ci.store.local import Layout

Form = TypeVar("Form", bound=str)
PublishWhen = Literal["at-end", "as-you-go", "until-end"]
"""`until-end` is what the action sets, which publishes the end itself."""


def make_settings(plain_http: bool = False, writers: str | None = None) -> Settings:
    from runnable_ci.config import load

    settings = load(os.environ)
    update = {**({"plain_http": True} if plain_http else {}), **({} if writers is None else {"writers": writers})}
    return settings.model_copy(update=update) if update else settings


def open_store(folder: Path | None) -> Layout:
    from runnable_ci.pipeline.project import find_store

    return find_store(folder)


def known_store(folder: Path | None) -> Layout | None:
    """Return the store, for a command that only spares requests by it; None for one that must not be used."""
    try:
        return open_store(folder)
    except RunnableError:
        return None


def make_redactor(settings: Settings, environ: Mapping[str, str] = os.environ) -> Redactor:
    from runnable_ci.redaction.environment import secrets_of
    from runnable_ci.redaction.redactor import Redactor

    return Redactor(secrets_of(environ, settings.secret_names))


def make_options(
    jobs: int | None,
    env_files: Sequence[Path] = (),
    log_level: LogLevel | None = None,
    *,
    quiet: bool,
    plain_http: bool,
    wait_s: float = 0.0,
    writers: str | None = None,
    time_budget: str | None = None,
    executor: str | None = None,
) -> Options:
    from runnable_ci.cli.terminal import confirm, is_interactive, watching
    from runnable_ci.config import SECRETS
    from runnable_ci.engine.options import Options
    from runnable_ci.util.console import is_actions

    settings = make_settings(plain_http, writers)
    environ: Mapping[str, str] = os.environ
    if env_files:
        from runnable_ci.pipeline.values.env_file import read_env_files

        secret = read_env_files(env_files)
        environ = {**environ, **secret}
        settings = settings.model_copy(update={"secrets": " ".join([*settings.secret_names, *secret])})
    options = Options(
        settings=settings,
        jobs=jobs or settings.jobs,
        environ={name: value for name, value in environ.items() if name.upper() not in SECRETS},
        printer=make_printer(quiet),
        wait_s=wait_s,
        redactor=make_redactor(settings, environ),
        log_level=log_level,
        env_files=env_files,
        transfer_progress=watching,
        time_budget=None if time_budget is None else _time_limit(time_budget),
        executor=executor,
    )
    if not is_actions(os.environ):
        return replace(options, confirm=confirm) if is_interactive() else options
    from runnable_ci.github.command_files import JobCommandFiles
    from runnable_ci.github.job import Context

    return replace(options, command_files=JobCommandFiles(os.environ), is_public=Context.is_public_job(os.environ))


def _time_limit(text: str) -> TimeLimit:
    from runnable_ci.pipeline.keys.durations import parse_budget_or_moment
    from runnable_ci.pipeline.validation import shown

    try:
        return parse_budget_or_moment(text)
    except ValueError as e:
        hint = "write a length such as 5h30m, or a moment such as 2026-11-27T10:00:00Z"
        raise UsageError(f"--time-budget {shown(text)} {e}", hint=hint) from e


def make_printer(quiet: bool) -> Printer | ActionsPrinter:
    from runnable_ci.util.console import is_actions

    if is_actions(os.environ):
        from runnable_ci.github.log import ActionsPrinter

        return ActionsPrinter.of_process(quiet=quiet)
    from runnable_ci.cli.terminal import Printer

    return Printer.of_process(quiet=quiet, no_colour="NO_COLOR" in os.environ)


def reuse_options(said: str | None, options: Options, *, is_new: bool) -> ReuseOptions:
    """Return which results of other runs are reused by what was `said`, and by the job that this is, if any."""
    from runnable_ci.engine.options import ReuseOptions
    from runnable_ci.util.console import is_actions

    def places(project: Project, named: str) -> tuple[Sequence[IndexPlace], AcceptedWriters | None]:
        file, workspace = project.pipeline, project.workspace
        settings, environ = options.settings, options.environ
        if not (named or settings.registry or file.registry or is_actions(environ)):
            return (), None
        from runnable_ci.github.reuse_places import reuse_places  # it loads what talks to a registry

        found = reuse_places(settings, environ, in_pipeline=lambda: file.registry, workspace=workspace, named=named)
        return found.indexes, found.accepted

    why_not = ""
    if is_actions(options.environ):
        from runnable_ci.github.job import why_no_reuse

        why_not = why_no_reuse(options.environ, is_new=is_new)
    return ReuseOptions(said, places, why_not)


def form_of(asked: Mapping[Form, bool], otherwise: Form) -> Form:
    """Return the form in which a command answers. Raises `UsageError` where two are asked for."""
    found = [form for form, is_asked in asked.items() if is_asked]
    if len(found) > 1:
        raise UsageError(f"--{found[0]} and --{found[1]} are two forms of one answer", hint="leave one of them out")
    return found[0] if found else otherwise


def minutes(text: str) -> float:
    """Return a length of time in seconds; a number alone is minutes. Raises `typer.BadParameter`."""
    return _seconds(text, unit_s=60.0)


def seconds(text: str) -> float:
    """Return a length of time in seconds, as is a number alone; 0.1 is the least. Raises `typer.BadParameter`."""
    return max(0.1, _seconds(text, unit_s=1.0))


def _seconds(text: str, *, unit_s: float) -> float:
    from runnable_ci.util.text import duration_s

    try:
        number = float(text)
    except ValueError:
        found = duration_s(text)
    else:
        found = number * unit_s if 0 <= number < float("inf") else None
    if found is None:
        raise typer.BadParameter(f"'{text}' is no length of time, such as 90s, 30m or 2h.")
    return found


def publish_when(text: str) -> PublishWhen:
    """Return when a run is published. Raises `typer.BadParameter`."""
    if text not in ("at-end", "as-you-go", "until-end"):
        raise typer.BadParameter(f"'{text}' is not one of 'at-end', 'as-you-go'.")
    return cast(PublishWhen, text)
