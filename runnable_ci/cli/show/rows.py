"""The steps of a run as the rows of a table: how each stands, for how long, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runnable_ci.analysis.history.query import shown_status
from runnable_ci.runs.branches.labels import is_only_branches, label_of, shortened
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import format_duration, format_elapsed, seconds_between, table

HEAD: Final = ("STEP", "STATUS", "ATTEMPTS", "DURATION", "ON", "REASON")
_ON: Final = HEAD.index("ON")


def step_rows(log: RunLog, now: str = "") -> list[tuple[str, ...]]:
    """Return a row for each step, of many branches for some; what runs has its time by `now`, if that is given."""
    rows: list[tuple[str, ...]] = []
    decisions = decisions_of(log)
    for name, left_out in shortened([*log.steps], log.steps):
        step, decision = log.steps[name], decisions.get(name)
        last = step.attempts[-1] if step.attempts else None
        rows.append(
            (
                label_of(log.steps, name),
                shown_status(step.status) + (" (mock)" if step.mock else ""),
                "" if is_only_branches(step) else str(len(step.attempts)),
                _length(last, now) if last else "",
                last.executor if last else "",
                f"{decision.action}: {decision.reason}" if decision else _undecided(log),
            )
        )
        if left_out:
            rows.append((f"… and {left_out} more", *[""] * (len(HEAD) - 1)))
    return rows


def steps_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of such rows; where they ran is left out if that is here for all."""
    used = [at for at in range(len(HEAD)) if at != _ON or any(row[at] for row in rows)]
    return table([HEAD[at] for at in used], [[row[at] for at in used] for row in rows])


def _length(attempt: StepAttempt, now: str) -> str:
    if attempt.end_time or not now:
        return format_duration(attempt.seconds)
    return format_elapsed(max(0.0, seconds_between(attempt.start_time, now) or 0.0))  # clocks of machines differ


def _undecided(log: RunLog) -> str:
    return "no longer in the pipeline" if log.end_time else ""
