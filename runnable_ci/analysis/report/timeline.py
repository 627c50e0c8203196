"""When each step ran, as bars on one axis of time: a row a step, all its attempts in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runnable_ci.analysis.states import State
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import format_duration, seconds_between

ROWS_MAX: Final = 200
ATTEMPTS_MAX: Final = 50
"""Of one step, the newest."""
_TICKS: Final = 4
_PAUSE_S: Final = 60.0
"""Between two invocations more than that is drawn as that: a night between them would leave no room for the work."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt; places are percent of the whole width."""

    title: str
    state: str
    """Its outcome; `kept` where the newest invocation used it again."""
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One step."""

    label: str
    bars: Sequence[Bar]
    note: str
    """Of a step that did not run in this run: where its result is from."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """All rows, and how long the whole axis is."""

    rows: Sequence[TimelineRow]
    length: str
    ticks: Sequence[tuple[float, str]]
    """Percent of the width → how much work was done until there."""
    pauses: Sequence[float]
    """Where the axis leaves time out, between invocations."""
    left_out: int
    """Steps that are not drawn: the shortest."""


@dataclass(frozen=True, slots=True)
class _Span:
    at: float
    seconds: float
    attempt: StepAttempt


def timeline_of(
    log: RunLog, labels: Mapping[str, str], states: Mapping[str, State], machines: Mapping[str, str]
) -> Timeline | None:
    """Return the attempts of a run on one axis; None where none ended.

    `machines` has of each environment how its machine is called, where there are several.
    """
    attempts = {name: _timed(step.attempts) for name, step in log.steps.items()}
    ran = {name: found for name, found in attempts.items() if found}
    if not ran:
        return None
    longest = sorted(ran, key=lambda name: -sum(seconds for _, seconds in ran[name]))[:ROWS_MAX]
    kept = sorted(longest, key=lambda name: ran[name][0][0].start_time)
    begin = min(ran[name][0][0].start_time for name in kept)
    spans = {
        name: [_Span(seconds_between(begin, one.start_time) or 0.0, seconds, one) for one, seconds in ran[name]]
        for name in kept
    }
    shifts, pauses = _without_pauses(sorted((it.at, it.seconds) for found in spans.values() for it in found))
    whole = max(it.at + it.seconds - shifts[it.at] for found in spans.values() for it in found) or 1.0
    rows = []
    for name, found in spans.items():
        bars = [_bar(it, shifts[it.at], whole, labels[name], states[name], machines, it is found[-1]) for it in found]
        rows.append(TimelineRow(labels[name], bars, ""))
    taken = [name for name, step in log.steps.items() if name not in ran and _origin(step.attempts)]
    rows += [TimelineRow(labels[name], [], f"from {_origin(log.steps[name].attempts)}") for name in taken[:ROWS_MAX]]
    ticks = [(100 * at / _TICKS, format_duration(whole * at / _TICKS)) for at in range(_TICKS)]
    left_out = len(ran) + len(taken) - len(rows)
    return Timeline(rows, format_duration(whole), ticks, [100 * at / whole for at in pauses], left_out)


def _timed(attempts: Sequence[StepAttempt]) -> list[tuple[StepAttempt, float]]:
    """Return the attempts that this run made, with how long they took, the earliest first."""
    found = []
    for one in attempts[-ATTEMPTS_MAX:]:
        seconds = seconds_between(one.start_time, one.end_time)
        if seconds is not None and seconds >= 0 and not one.taken_from:
            found.append((one, seconds))
    return sorted(found, key=lambda it: it[0].start_time)


def _origin(attempts: Sequence[StepAttempt]) -> str:
    return attempts[-1].taken_from if attempts else ""


def _bar(
    it: _Span, shift: float, whole: float, label: str, state: State, machines: Mapping[str, str], is_last: bool
) -> Bar:
    one = it.attempt
    number = f", attempt {one.attempt_number}" if one.attempt_number > 1 else ""
    machine = machines.get(one.environment, "")
    is_kept = is_last and state == "reused"
    words = [one.outcome or "running", "reused since" if is_kept else "", format_duration(it.seconds)]
    title = f"{label}{number}: {', '.join(filter(None, words))}{f', on {machine}' if machine else ''}"
    shown = "kept" if is_kept else one.outcome or "running"
    return Bar(title, shown, 100 * (it.at - shift) / whole, 100 * it.seconds / whole)


def _without_pauses(spans: Sequence[tuple[float, float]]) -> tuple[dict[float, float], list[float]]:
    """Return by the start of each span how much earlier it is drawn, and where time was left out."""
    shifts, pauses = {}, []
    end = shift = 0.0
    for at, seconds in spans:
        if at - end > _PAUSE_S:
            shift += at - end - _PAUSE_S / 2
            pauses.append(at - shift - _PAUSE_S / 4)
        shifts[at] = shift
        end = max(end, at + seconds)
    return shifts, pauses
