"""The only place that turns an error into text and exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import typer

from runnable_ci.cli.context import make_redactor, make_settings
from runnable_ci.errors import RunnableError
from runnable_ci.util.signals import end_at_second_interrupt


def run(application: typer.Typer) -> NoReturn:
    """Run the command line and leave the process; the only place that turns an error into text and exit code.

    A closed pipe (1) and Ctrl-C (130) are typer's to deal with.
    """
    end_at_second_interrupt()
    try:
        code = application(prog_name="runnable-ci", standalone_mode=False)
    except RunnableError as e:
        _report(e)
        sys.exit(e.exit_code)
    except MemoryError:
        from runnable_ci.util.console import console

        console.err("error: there is not enough memory")
        sys.exit(1)
    except Exception as e:  # noqa: BLE001 - typer's word for wrong usage, which has no public name; else a bug of ours
        from runnable_ci.util.console import console

        if lines := _of_usage(e):
            console.err(*lines)
            sys.exit(getattr(e, "exit_code", 1))
        import traceback

        console.err(*_without_secrets(traceback.format_exc()).splitlines())
        sys.exit(1)
    sys.exit(code or 0)


def _report(error: RunnableError) -> None:
    """Print an error; in a job as an annotation, which the summary will have too."""
    from runnable_ci.github.commands import Annotation, annotate
    from runnable_ci.util.console import console, is_actions
    from runnable_ci.util.text import printable

    if not is_actions(os.environ):
        console.err(*map(_without_secrets, error.lines()))
        return
    _leave_for_the_summary(error)
    first, *more = map(_without_secrets, (error.message, *error.lines()[1:]))
    console.commands(annotate(Annotation("error", "\n".join([printable(first), *more]), title="runnable-ci")))


def _of_usage(error: Exception) -> list[str]:
    """What typer says of wrong usage, which may quote any word of the command line; empty for any other error."""
    show = getattr(error, "show", None)
    if show is None:
        return []
    shown = io.StringIO()
    show(file=shown)
    return shown.getvalue().splitlines()


def _leave_for_the_summary(error: RunnableError) -> None:
    from runnable_ci.errors import RegistryAuthError
    from runnable_ci.github.action.handoff import Refusal, note

    by_registry = isinstance(error, RegistryAuthError)
    texts = map(_without_secrets, (error.message, error.hint, error.fix))
    message, hint, fix = texts
    note(os.environ, Refusal(message, hint, by_registry, fix))


def _without_secrets(text: str) -> str:
    """The text without what the environment holds of secrets."""
    from runnable_ci.redaction.redactor import Redactor

    try:
        redactor = make_redactor(make_settings(plain_http=False))
    except RunnableError:  # it may be the settings that are wrong
        redactor = Redactor()
    return redactor.text(text)
