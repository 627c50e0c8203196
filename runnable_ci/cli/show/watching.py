"""`runnable-ci show --watch`: the steps of a run while it lasts, whichever process runs them."""

from __future__ import annotations

import time
from collections.abc import Callable

from runnable_ci.cli.show.follow import POLL_S
from runnable_ci.cli.show.rows import step_rows, steps_table
from runnable_ci.runs.model import PROCESSING, RunLog
from runnable_ci.runs.paths import is_running
from runnable_ci.runs.reader import load
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.console import console
from runnable_ci.util.text import format_elapsed, seconds_between


def watch(layout: Layout, run_id: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return once nobody writes the run any more; on a terminal its steps are shown until then."""
    is_shown = console.is_live()
    try:
        while is_running(layout, run_id):
            if is_shown:
                console.status(*steps_now(load(layout, run_id), now(), lines=console.height() - 1))
            sleep(POLL_S)
    finally:
        console.status()


def steps_now(log: RunLog, time_now: str, *, lines: int) -> list[str]:
    """Return the steps of a run in so many lines: those that run, and of the others the last."""
    rows = step_rows(log, time_now)
    running = {index for index, row in enumerate(rows) if row[1].startswith("RUNNING")}
    room = max(1, lines - 3)
    kept = sorted(sorted(range(len(rows)), key=lambda index: (index in running, index))[-room:])
    begun = log.invocations[-1].start_time if log.invocations else log.start_time
    elapsed = format_elapsed(max(0.0, seconds_between(begun, time_now) or 0.0))
    done = sum(step.status != PROCESSING for step in log.steps.values())
    left_out = [f"… and {len(rows) - len(kept)} more"] if len(kept) < len(rows) else []
    head = f"run {log.run_id}: {done} done, {len(running)} running, {elapsed}"
    return [head, *steps_table([rows[index] for index in kept]), *left_out]
