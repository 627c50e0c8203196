"""When each step ran, as bars on one axis of time: a row a step, all its attempts in it. Pure.

Of several machines each has a row too, with the invocations that ran on it, and what several of them did at one time
is drawn in lanes of its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from runnable_ci.analysis.report.chain import clock_offsets
from runnable_ci.analysis.states import State
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import format_duration, listed, seconds_between

ROWS_MAX: Final = 200
ATTEMPTS_MAX: Final = 50
"""Of one step, the newest."""
MACHINES_MAX: Final = 20
LANES_MAX: Final = 10
_TOUCHING: Final = 1e-6
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
    lane: int = 0
    """Which lane of the row it is in, from above."""


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One step, or a machine."""

    label: str
    bars: Sequence[Bar]
    note: str = ""
    """Of a step that did not run in this run: where its result is from."""
    is_machine: bool = False

    @property
    def lanes(self) -> int:
        """How many bars are above each other."""
        return max((bar.lane for bar in self.bars), default=0) + 1


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
    later: str
    """Which invocations are drawn later than the clocks of their machines say, and by how much."""


@dataclass(frozen=True, slots=True)
class _Span:
    at: float
    seconds: float
    attempt: StepAttempt

    def moved(self, seconds: float) -> _Span:
        """Return it so much later."""
        return _Span(self.at + seconds, self.seconds, self.attempt)


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
    offsets = clock_offsets(log)
    zero = ran[longest[0]][0][0].start_time
    spans = {name: _spans(ran[name], zero, offsets) for name in longest}
    begin = min(found[0].at for found in spans.values())
    kept = sorted(spans, key=lambda name: spans[name][0].at)
    spans = {name: [it.moved(-begin) for it in spans[name]] for name in kept}
    shifts, pauses = _without_pauses(sorted((it.at, it.seconds) for found in spans.values() for it in found))
    whole = max(it.at + it.seconds - shifts[it.at] for found in spans.values() for it in found) or 1.0
    rows = _machine_rows(log, spans, shifts, whole, machines)
    number = len(rows)
    for name, found in spans.items():
        last = log.steps[name].attempts[-1]  # that which counts, whichever began last
        bars = [
            _bar(it, shifts[it.at], whole, labels[name], states[name], machines, it.attempt is last) for it in found
        ]
        rows.append(TimelineRow(labels[name], _in_lanes(bars)))
    taken = [name for name, step in log.steps.items() if name not in ran and _origin(step.attempts)]
    rows += [TimelineRow(labels[name], [], f"from {_origin(log.steps[name].attempts)}") for name in taken[:ROWS_MAX]]
    ticks = [(100 * at / _TICKS, format_duration(whole * at / _TICKS)) for at in range(_TICKS)]
    left_out = len(ran) + len(taken) - (len(rows) - number)
    later = listed([f"invocation {it} is drawn {format_duration(by)} later" for it, by in sorted(offsets.items())])
    return Timeline(rows, format_duration(whole), ticks, [100 * at / whole for at in pauses], left_out, later)


def _spans(attempts: Sequence[tuple[StepAttempt, float]], zero: str, offsets: Mapping[int, float]) -> list[_Span]:
    found = [
        _Span(
            (seconds_between(zero, one.start_time) or 0.0) + one.waited_s + offsets.get(one.invocation, 0.0),
            seconds,
            one,
        )
        for one, seconds in attempts
    ]
    return sorted(found, key=lambda it: it.at)


def _machine_rows(
    log: RunLog,
    spans: Mapping[str, Sequence[_Span]],
    shifts: Mapping[float, float],
    whole: float,
    machines: Mapping[str, str],
) -> list[TimelineRow]:
    """Return a row for each machine where there are several: its invocations, from their first attempt to the last."""
    worked: dict[str, dict[int, tuple[float, float]]] = {}
    for it in (it for found in spans.values() for it in found):
        if machine := machines.get(it.attempt.environment, ""):
            mine = worked.setdefault(machine, {})
            begin, end = it.at - shifts[it.at], it.at - shifts[it.at] + it.seconds
            known = mine.get(it.attempt.invocation, (begin, end))
            mine[it.attempt.invocation] = (min(begin, known[0]), max(end, known[1]))
    commands = {one.number: f"{one.command}{one.actor and f' by {one.actor}'}" for one in log.invocations}
    rows = []
    for machine in sorted(worked, key=lambda name: (min(worked[name].values()), name))[:MACHINES_MAX]:
        bars = [
            Bar(
                f"{machine}: invocation {number}, {commands.get(number, '')}, {format_duration(end - begin)}",
                "machine",
                100 * begin / whole,
                100 * (end - begin) / whole,
            )
            for number, (begin, end) in sorted(worked[machine].items(), key=lambda it: it[1])
        ]
        rows.append(TimelineRow(machine, _in_lanes(bars), is_machine=True))
    return rows


def _in_lanes(bars: Sequence[Bar]) -> list[Bar]:
    """Return bars so that none covers another one: each in the first lane that is free where it begins."""
    ends: list[float] = []
    placed = []
    for bar in bars:
        free = [at for at, end in enumerate(ends) if end <= bar.left + _TOUCHING]
        lane = free[0] if free else len(ends)
        if lane == len(ends):
            ends.append(0.0)
        ends[lane] = bar.left + bar.width
        placed.append(replace(bar, lane=min(lane, LANES_MAX - 1)))
    return placed


def _timed(attempts: Sequence[StepAttempt]) -> list[tuple[StepAttempt, float]]:
    """Return the attempts that this run made, with how long they took, the earliest first."""
    own = (one for one in attempts[-ATTEMPTS_MAX:] if not one.taken_from)
    found = [(one, seconds) for one in own if (seconds := one.seconds) is not None and seconds >= 0]
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
