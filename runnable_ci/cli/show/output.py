"""`runnable-ci logs`: what the steps of a run wrote."""

from __future__ import annotations

from runnable_ci.cli.show.attempts import chosen_attempts, naming_lost, nothing_written
from runnable_ci.cli.terminal import Printer
from runnable_ci.runs.branches.labels import labels_of, step_named
from runnable_ci.runs.reader import load, output_of, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.process_output import Stream


def logs(
    layout: Layout,
    run: str,
    step: str | None,
    *,
    attempt: int | None,
    stdout: bool = False,
    stderr: bool = False,
    followed: bool = False,
) -> None:
    """Write output to stdout in the order it came, both streams or one of them.

    Without a step that of all, each line with its step. One that is `followed` is written as it comes.
    """
    stream: Stream | None = None if stdout == stderr else "o" if stdout else "e"
    run_id = resolve_id(layout, run)
    if followed:
        from runnable_ci.cli.show.follow import follow

        follow(layout, run_id, step, attempt=attempt, stream=stream)
        return
    log = load(layout, run_id)
    step = None if step is None else step_named(log, step)
    chosen = chosen_attempts(log, step, attempt)
    if not chosen:
        raise nothing_written(log, step, attempt)
    printer = Printer(console.stdout, console.stdout, terminal=False, colour=False, quiet=False)
    shown = labels_of(log.steps)
    printer.begin([*shown.values()], len(chosen))
    for name, one in chosen:
        label = shown[name]
        written = output_of(layout, log, f"{name}.{one.attempt_number}", one)
        chunks = console.quoted(chunk for written_to, chunk in written if stream in (None, written_to))
        with naming_lost(layout, log, name, one):
            if step is not None:
                console.copy(chunks)
                continue
            for chunk in chunks:
                printer.output(label, "o", chunk)
                console.stdout.require()
        printer.finish_lines(label)
    console.stdout.require()
