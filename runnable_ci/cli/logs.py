"""`runnable-ci logs`: what the steps of a run wrote."""

from __future__ import annotations

from collections.abc import Iterator

from runnable_ci.cli.terminal import Printer
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.reader import load, output_of, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import amount


def logs(layout: Layout, run: str, step: str | None, *, attempt: int | None, stream: Stream | None) -> None:
    """Write output to stdout in the order it came; without a step that of all, each line with its step."""
    log = load(layout, resolve_id(layout, run))
    if step is not None and step not in log.steps:
        raise UsageError(
            f"run {log.run_id} has no step `{step}`",
            hint=did_you_mean(step, log.steps, f"the steps are: {', '.join(log.steps)}"),
        )
    chosen = list(_attempts(log, step, attempt))
    if not chosen:
        of = f"of {step or 'any step'} in run {log.run_id}"
        made = max((len(one.attempts) for name, one in log.steps.items() if step in (None, name)), default=0)
        hint = f"there {'is' if made == 1 else 'are'} {amount(made, 'attempt')}" if made else "it has not run yet"
        raise UsageError(f"there is no attempt {attempt or 'yet'} {of}", hint=hint)
    printer = Printer(console.stdout, console.stdout, terminal=False, colour=False, quiet=False)
    printer.begin(list(log.steps), len(chosen))
    for name, one in chosen:
        written = output_of(layout, log, f"{name}.{one.attempt_number}", one)
        chunks = console.quoted(chunk for written_to, chunk in written if stream in (None, written_to))
        if step is not None:
            console.copy(chunks)
            continue
        for chunk in chunks:
            printer.output(name, "o", chunk)
        printer.finish_lines(name)


def _attempts(log: RunLog, step: str | None, attempt: int | None) -> Iterator[tuple[str, StepAttempt]]:
    """The attempts that are meant: by default the last of each step, in the order in which they began."""
    found = [
        (name, one)
        for name in ([step] if step else log.steps)
        for one in log.steps[name].attempts
        if one.attempt_number == (attempt or log.steps[name].attempts[-1].attempt_number)
    ]
    yield from sorted(found, key=lambda item: item[1].start_time)
