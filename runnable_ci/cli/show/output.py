"""`runnable-ci logs`: what the steps of a run wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runnable_ci.cli.terminal import Printer
from runnable_ci.errors import BlobMissingError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.branches.labels import labels_of, step_named
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.paths import is_pulled
from runnable_ci.runs.reader import load, output_of, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import pluralize


def logs(
    layout: Layout, run: str, step: str | None, *, attempt: int | None, stdout: bool = False, stderr: bool = False
) -> None:
    """Write output to stdout in the order it came, both streams or one of them.

    Without a step that of all, each line with its step.
    """
    stream: Stream | None = None if stdout == stderr else "o" if stdout else "e"
    log = load(layout, resolve_id(layout, run))
    step = None if step is None else step_named(log, step)
    chosen = list(_attempts(log, step, attempt))
    if not chosen:
        of = f"of {step or 'any step'} in run {log.run_id}"
        made = max((len(one.attempts) for name, one in log.steps.items() if step in (None, name)), default=0)
        hint = f"there {'is' if made == 1 else 'are'} {pluralize(made, 'attempt')}" if made else "it has not run yet"
        raise UsageError(f"there is no attempt {attempt or 'yet'} {of}", hint=hint)
    printer = Printer(console.stdout, console.stdout, terminal=False, colour=False, quiet=False)
    shown = labels_of(log.steps)
    printer.begin([*shown.values()], len(chosen))
    for name, one in chosen:
        label = shown[name]
        written = output_of(layout, log, f"{name}.{one.attempt_number}", one)
        chunks = console.quoted(chunk for written_to, chunk in written if stream in (None, written_to))
        with _naming_lost(layout, log, name, one):
            if step is not None:
                console.copy(chunks)
                continue
            for chunk in chunks:
                printer.output(label, "o", chunk)
                console.stdout.require()
        printer.finish_lines(label)
    console.stdout.require()


@contextmanager
def _naming_lost(layout: Layout, log: RunLog, step: str, attempt: StepAttempt) -> Iterator[None]:
    """Name in an error what is lost, and say how to have it again."""
    try:
        yield
    except BlobMissingError as e:
        again = f"`{of_store(layout, 'retry', log.run_id, '--from', step)}` runs the step again"
        hint = e.hint if is_pulled(layout, log.run_id) else f"{e.hint}; {again}"
        output = f"the output of `{step}`, attempt {attempt.attempt_number}, is lost"
        raise BlobMissingError(f"{output}: {e.message}", hint=hint) from e


def _attempts(log: RunLog, step: str | None, attempt: int | None) -> Iterator[tuple[str, StepAttempt]]:
    """Yield the selected attempts: by default the last of each step, in the order in which they began."""
    chosen = [step, *(name for name in log.steps if name.startswith(f"{step}."))] if step else [*log.steps]
    found = [
        (name, one)
        for name in chosen
        for one in log.steps[name].attempts
        if one.attempt_number == (attempt or log.steps[name].attempts[-1].attempt_number)
    ]
    yield from sorted(found, key=lambda item: item[1].start_time)
