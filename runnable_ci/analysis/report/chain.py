"""The invocations of a run: which followed which, and by how much the clocks of their machines differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runnable_ci.analysis.report.machines import where_each_ran
from runnable_ci.runs.model import Invocation, RunLog
from runnable_ci.runs.run_identity import invocation_digest, with_parents
from runnable_ci.util.text import duration, format_time, seconds_between

INVOCATIONS_MAX = 50
_HEAD = ("#", "After", "Command", "By", "Where", "Started", "Took", "Outcome", "Steps", "Message")


def parents_of(log: RunLog) -> dict[int, Sequence[int]]:
    """Return of each invocation the numbers of the newest ones that it had seen."""
    known = with_parents(log.invocations)
    numbers = {invocation_digest(one): one.number for one in known}
    return {one.number: sorted(numbers[it] for it in one.parents or () if it in numbers) for one in known}


def clock_offsets(log: RunLog) -> dict[int, float]:
    """Return by how many seconds an invocation was later than its machine's clock says; only those that were.

    An invocation cannot have begun before one that it had seen: it is taken to have begun when that one ended.
    """
    parents = parents_of(log)
    of_number = {one.number: one for one in log.invocations}
    offsets: dict[int, float] = {}
    for number in _in_order(parents):
        one = of_number[number]
        late = [_ended_later(of_number[it], one, offsets) for it in parents[number] if it in of_number]
        if (seconds := max(late, default=0.0)) > 0:
            offsets[number] = seconds
    return offsets


def _ended_later(parent: Invocation, one: Invocation, offsets: Mapping[int, float]) -> float:
    """Return how long after the begin of an invocation its parent ended, if it even began after it; else 0."""
    offset = offsets.get(parent.number, 0.0)
    began = seconds_between(one.start_time, parent.start_time)
    if began is None or began + offset <= 0:
        return 0.0
    ended = seconds_between(one.start_time, parent.end_time)
    return (began if ended is None else max(began, ended)) + offset


def _in_order(parents: Mapping[int, Sequence[int]]) -> list[int]:
    """Return the invocations so that each comes after its parents."""
    done: dict[int, None] = {}
    for number in parents:
        waiting = [number]
        while waiting:
            missing = [it for it in parents.get(waiting[-1], ()) if it not in done and it not in waiting]
            if missing:
                waiting += missing[:1]
            else:
                done.setdefault(waiting.pop())
    return [*done]


def invocation_table(log: RunLog) -> list[tuple[str, ...]]:
    """Return the newest invocations as a table with its head, without columns that have nothing."""
    parents, where = parents_of(log), where_each_ran(log)
    rows = [_row(one, parents.get(one.number, ()), where) for one in log.invocations[-INVOCATIONS_MAX:]]
    used = [at for at in range(len(_HEAD)) if any(row[at] for row in rows)]
    return [tuple(row[at] for at in used) for row in (_HEAD, *rows)]


def _row(one: Invocation, parents: Sequence[int], where: Mapping[int, str]) -> tuple[str, ...]:
    ran = sum(decision.action == "run" for decision in one.decisions.values())
    reused = sum(decision.action == "reuse" for decision in one.decisions.values())
    return (
        str(one.number),
        ", ".join(map(str, parents)),
        one.command,
        one.actor,
        where.get(one.number, ""),
        f"{format_time(one.start_time)} UTC",
        duration(one.start_time, one.end_time),
        one.outcome or "running",
        f"{ran} ran, {reused} reused",
        one.message,
    )
