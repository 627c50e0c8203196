"""How long steps take, by what earlier attempts took. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import TIME_BUDGET, RunLog
from runnable_ci.util.text import format_duration

_MORE: Final = 1.05
_MORE_S: Final = 1.0
"""What was ended takes longer than it had: else it would be started again and again with as little time as then."""


class Expected(NamedTuple):
    """How long a step is expected to take."""

    seconds: float
    source: str
    """How that is known, as a part of a sentence."""


def known_durations(logs: Iterable[RunLog], wanted: Collection[str]) -> dict[str, Expected]:
    """Return step → how long its newest attempt that succeeded took, as the logs have it, the newest first.

    Of a step without one, how much time did not suffice. No further log is looked at once all `wanted` are known.
    """
    known: dict[str, Expected] = {}
    ended: dict[str, tuple[float, str]] = {}
    for log in logs:
        numbers = {one.number for one in log.invocations if one.ended_by == TIME_BUDGET}
        for name, step in log.steps.items():
            for attempt in reversed(step.attempts) if name not in known else ():
                seconds = attempt.seconds
                if seconds is None or attempt.taken_from or attempt.mock:
                    continue
                if attempt.outcome == "cancelled" and attempt.invocation in numbers:
                    ended[name] = max((seconds, log.run_id), ended.get(name, (0.0, "")))
                if attempt.outcome == "succeeded":
                    known[name] = Expected(seconds, f"the step took {format_duration(seconds)} in run {log.run_id}")
                    break
        if known.keys() >= set(wanted):
            break
    for name, (seconds, run_id) in ended.items():
        least = seconds * _MORE + _MORE_S
        if name not in known or known[name].seconds < least:
            known[name] = Expected(least, f"{format_duration(seconds)} were too little for the step in run {run_id}")
    return known


def expected(step: Step, known: dict[str, Expected]) -> Expected | None:
    """Return how long a step is expected to take, by its time limit where nothing else is known."""
    if step.name in known or step.timeout_s is None:
        return known.get(step.name)
    return Expected(step.timeout_s, f"its `timeout-minutes` are {format_duration(step.timeout_s)}")
