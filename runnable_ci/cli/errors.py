"""The only place that turns an error into text and exit code."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from runnable_ci.cli.context import make_redactor, make_settings
from runnable_ci.errors import OutputError, PipelineError, RunnableError, SystemCallError, UsageError, did_you_mean
from runnable_ci.util.signals import end_at_second_interrupt


def run(application: typer.Typer) -> NoReturn:
    """Run the command line and exit; the only place that turns an error into text and exit code.

    A closed pipe (1) and Ctrl-C (130) are typer's to deal with.
    """
    end_at_second_interrupt()
    try:
        code = application(prog_name="runnable-ci", standalone_mode=False)
    except (RunnableError, OSError) as e:
        error = _of_system(e) if isinstance(e, OSError) else e
        _report(error)
        sys.exit(error.exit_code)
    except MemoryError:
        from runnable_ci.util.console import console

        console.err("error: not enough memory")
        sys.exit(1)
    except Exception as e:  # noqa: BLE001 - typer's usage errors, which have no public name; else an unexpected error
        from runnable_ci.util.console import console

        if hasattr(e, "format_message"):
            _report_usage(e, application)
            sys.exit(getattr(e, "exit_code", 1))
        import traceback

        console.err(*_without_secrets(traceback.format_exc()).splitlines())
        sys.exit(1)
    finally:
        _flush()
    sys.exit(code or 0)


def _flush() -> None:
    """Have shown what typer printed itself, or dropped where that is impossible: else the interpreter's exit fails."""
    from runnable_ci.util.console import console

    console.flush()


def _of_system(e: OSError) -> RunnableError:
    """Return what the operating system refused, as an error with a hint: a traceback would tell nothing."""
    try:
        Path.cwd()
    except OSError:
        return UsageError("the current folder is gone", hint="change into one that exists")
    from runnable_ci.util.console import console

    # typer prints its help past our console.
    return OutputError.of(e) if e.filename is None and console.is_lost_by(e) else SystemCallError.of(e)


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
    text = "\n".join([printable(first), *more])
    console.commands(annotate(Annotation("error", text, "runnable-ci", *_location(error))))


def _location(error: RunnableError) -> tuple[str, int]:
    """Return the pipeline file, relative to the job's checkout, and the line that an error is at, if it has one."""
    if not isinstance(error, PipelineError) or not error.line:
        return "", 0
    checkout, file = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve(), Path(error.file).resolve()
    return (file.relative_to(checkout).as_posix(), error.line) if file.is_relative_to(checkout) else ("", 0)


def _report_usage(error: Any, application: typer.Typer) -> None:
    """Print a usage error of typer in the form of our own errors; the help as it is where no command was given."""
    from runnable_ci.util.console import console

    context = error.ctx or _command_context(application, sys.argv[1:])
    text = error.format_message()
    if text == context.get_help():
        console.err(*text.splitlines())
        return
    message, hint = _usage_texts(error, text, context)
    _report(UsageError(message, hint="\n".join([hint, context.get_usage().replace("Usage:", "usage:", 1)])))


def _usage_texts(error: Any, text: str, context: Any) -> tuple[str, str]:
    """Return message and hint of a usage error; `text` is typer's description of it."""
    lists = f"`{context.command_path} --help` shows its arguments and options"
    option = getattr(error, "option_name", "")
    if option and hasattr(error, "possibilities"):  # this command has no such option
        own = [name for parameter in context.command.params for name in parameter.opts if name.startswith("-")]
        return f"no such option: {option}", _owners(option) or did_you_mean(option, own, lists)
    message, _, suggestion = text.removesuffix(".").partition(". Did you mean ")
    plain = re.sub(r"Value error, |, unable to parse.*", "", message).replace("Input should be", "must be")
    quoted = re.sub(r"'([^' ]+)'", r"`\1`", plain)
    names = re.findall(r"'([^']+)'", suggestion)
    hint = f"did you mean {' or '.join(f'`{name}`' for name in names)}?" if names else lists
    return quoted[:1].lower() + quoted[1:], hint


def _owners(option: str) -> str:
    """Return a hint that names the commands that have this option, with what it takes; empty where none has it."""
    from runnable_ci.cli.app import app

    group: Any = typer.main.get_command(app)  # `context` may know this one command alone
    commands = [command for command in group.commands.values() if not command.hidden]
    forms: dict[str, list[str]] = {}
    for command in commands:
        for parameter in (parameter for parameter in command.params if option in parameter.opts):
            forms.setdefault(f"{option} {parameter.metavar or ''}".rstrip(), []).append(command.name)
    listed = [f"`{form}` of {', '.join(names)}" for form, names in forms.items()]
    return f"{option} is an option of other commands: {'; '.join(listed)}" if listed else ""


def _command_context(application: typer.Typer, words: list[str]) -> Any:
    """Return the context of the command that these words name, where typer's error does not have it."""
    group: Any = typer.main.get_command(application)
    whole = group.make_context("runnable-ci", [], resilient_parsing=True)
    name = next((word for word in words if word in group.commands), None)
    if name is None:
        return whole
    return group.commands[name].make_context(name, [], parent=whole, resilient_parsing=True)


def _leave_for_the_summary(error: RunnableError) -> None:
    from runnable_ci.errors import RegistryAuthError
    from runnable_ci.github.action.handoff import Refusal, write

    by_registry = isinstance(error, RegistryAuthError)
    texts = map(_without_secrets, (error.message, error.hint, error.fix))
    message, hint, fix = texts
    write(os.environ, Refusal(message, hint, by_registry, fix))


def _without_secrets(text: str) -> str:
    """Return the text without what the environment holds of secrets."""
    from runnable_ci.redaction.redactor import Redactor

    try:
        redactor = make_redactor(make_settings(plain_http=False))
    except RunnableError:  # it may be the settings that are wrong
        redactor = Redactor()
    return redactor.text(text)
