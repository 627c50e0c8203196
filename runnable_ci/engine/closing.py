"""What is said of a run once it has ended: what is odd about it, how it ended, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runnable_ci.engine.code import untracked
from runnable_ci.engine.options import ReuseOptions
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.code_states import unknown_code, unpublished
from runnable_ci.runs.model import JOB, SUCCESS, RunLog
from runnable_ci.util.console import is_actions
from runnable_ci.util.text import format_pairs, listed, truncate

_WORTH_S = 10.0
"""After a shorter run nothing is said of what it could have reused."""


def say_end(
    session: RunSession,
    log: RunLog,
    steps: Mapping[str, Step],
    *,
    is_in_repository: bool,
    retry_options: Sequence[str] | None,
    reuse: ReuseOptions,
) -> None:
    """Say it; `steps` are those that were known, `reuse` is what was said of other runs.

    A retry needs `retry_options`; None: there can be none.
    """
    project, printer = session.project, session.options.printer
    for note in untracked.notes(log, invocation=log.invocation):
        printer.say(note)
    code = log.code()
    if code and code.code_identifier_url and (warning := unpublished(log)):
        printer.say(f"warning: {warning}")
    # A job annotates it.
    if is_in_repository and not is_actions(session.options.environ) and (why := unknown_code(log)):
        printer.say(f"warning: the code of this run is not known: {why}")
    printer.annotate(log, project.workspace, project.file)
    env_files = command_line.env_file_options(session.options.env_files)
    printer.say(*_outcome(log, project, None if retry_options is None else [*retry_options, *env_files]))
    if reuse.said is None and log.invocation == 1 and (log.seconds() or 0.0) >= _WORTH_S:
        from runnable_ci.engine.reuse.suggestion import suggestion

        printer.say(*filter(None, [suggestion(session, log, steps, reuse)]))


def _outcome(log: RunLog, project: Project, retry_options: Sequence[str] | None) -> Iterator[str]:
    """Yield how a run ended, and what to do next."""
    pairs = format_pairs(log.metrics(), shown=lambda value: truncate(str(value)))
    more = f", {pairs}" if pairs else ""
    if mocked := dict.fromkeys(f"`{name.partition('.')[0]}`" for name, step in log.steps.items() if step.mock):
        more += f"; mocked: {listed(mocked)}"
    if any(decision.taken_from for decision in log.invocations[-1].decisions.values()):
        from runnable_ci.runs.reuse.saved import saved  # most runs take nothing of others

        more += f"; {saved(log)}"
    if log.ended_by == JOB:
        yield f"run {log.run_id}: the steps of this job are done{more}"
    elif log.status == SUCCESS:
        yield f"run {log.run_id}: {log.status}{more}"
    else:
        yield f"run {log.run_id}: {log.status}, {log.message}{more}"
        if retry_options is not None:
            yield f"hint: {command_line.retry(log.run_id, project.file, project.layout, *retry_options)}"
