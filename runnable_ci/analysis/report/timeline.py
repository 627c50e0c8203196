"""When each attempt ran, as bars on one axis of time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import format_duration, seconds_between

BARS_MAX: Final = 400
ROW_HEIGHT: Final = 22
_PAUSE_S: Final = 60.0
"""Between two invocations more than that is drawn as that: a night between them would leave no room for the work."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt; places are percent of the whole width."""

    label: str
    title: str
    state: str
    left: float
    width: float
    row: int
    invocation: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """All bars, and how long the whole axis is."""

    bars: Sequence[Bar]
    rows: int
    length: str
    pauses: Sequence[float]
    """Where the axis leaves time out, between invocations."""
    left_out: int
    """Attempts that are not drawn: the shortest."""


def timeline_of(log: RunLog, labels: Mapping[str, str]) -> Timeline | None:
    """Return the attempts of a run on one axis; None where none ended. What other runs made is not on it."""
    found = []
    for name, step in log.steps.items():
        for attempt in step.attempts:
            seconds = seconds_between(attempt.start_time, attempt.end_time)
            if seconds is not None and seconds >= 0 and not attempt.taken_from:
                found.append((attempt.start_time, seconds, name, attempt))
    if not found:
        return None
    kept = sorted(found, key=lambda it: -it[1])[:BARS_MAX]
    kept.sort(key=lambda it: (it[0], it[2]))
    begin = kept[0][0]
    spans = [((seconds_between(begin, start) or 0.0), seconds) for start, seconds, _, _ in kept]
    shifts, pauses = _without_pauses(spans)
    whole = max(at + seconds - shift for (at, seconds), shift in zip(spans, shifts, strict=True)) or 1.0
    bars = []
    for row, ((_, seconds, name, attempt), (at, _), shift) in enumerate(zip(kept, spans, shifts, strict=True)):
        number = f", attempt {attempt.attempt_number}" if attempt.attempt_number > 1 else ""
        title = f"{labels[name]}{number}: {attempt.outcome or 'running'}, {format_duration(seconds)}"
        left = 100 * (at - shift) / whole
        state = attempt.outcome or "running"
        bars.append(Bar(labels[name], title, state, left, 100 * seconds / whole, row, attempt.invocation))
    return Timeline(
        bars, len(bars), format_duration(whole), [100 * at / whole for at in pauses], len(found) - len(kept)
    )


def _without_pauses(spans: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return how much earlier each span is drawn, and where time was left out."""
    shifts, pauses = [], []
    end = shift = 0.0
    for at, seconds in spans:
        if at - end > _PAUSE_S:
            shift += at - end - _PAUSE_S / 2
            pauses.append(at - shift)
        shifts.append(shift)
        end = max(end, at + seconds)
    return shifts, pauses
