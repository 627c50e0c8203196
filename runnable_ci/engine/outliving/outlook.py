"""Which steps of a plan do not fit into the time budget, as far as it is known how long steps take."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

from runnable_ci.engine.outliving.known_durations import Expected, expected
from runnable_ci.engine.outliving.time_budget import budget_of
from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import RunLog
from runnable_ci.steps.machine import capacity
from runnable_ci.util.text import format_duration


def say_what_does_not_fit(session: RunSession, log: RunLog, plan: Plan) -> None:
    """Say which steps of a plan do not fit into the time budget; `log` is that of the run so far."""
    options = session.options
    budget = budget_of(session, log)
    steps = [plan.pipeline.steps[name] for name in plan.running]
    takes = {step.name: found for step in steps if (found := expected(step, budget.known)) and step.mock != "nothing"}
    ends = _ends(steps, takes, options.jobs or capacity(options.environ).cpus)
    for step in steps:
        found = takes.get(step.name)
        if found is None or ends[step.name] <= budget.whole_s:
            continue
        begins = max(0.0, ends[step.name] - found.seconds)
        if step.checkpoint:
            text = "is ended in it and resumes from its checkpoint" if begins < budget.whole_s else "is left to a retry"
            text = f"{text}: it would be over after {format_duration(ends[step.name])}, since {found.source}"
        elif found.seconds > budget.whole_s:
            text = f"is not ended by it: {budget.why_too_long(found)}"
        else:
            text = f"does not fit: it would begin after {format_duration(begins)}, and {found.source}"
        options.printer.say(f"note: {budget}: step `{step.shown}` {text}")


def _ends(steps: Sequence[Step], takes: Mapping[str, Expected], jobs: int) -> dict[str, float]:
    """Return when the steps would end, so many at a time, in an order in which each comes after what it needs.

    What is not known to take time takes none.
    """
    free, ends = [0.0] * jobs, dict[str, float]()
    for step in steps:
        ready = max([0.0, *(end for need in step.needs for end in _of(need, ends))])
        begins = max(ready, heapq.heappop(free))
        ends[step.name] = begins + (takes[step.name].seconds if step.name in takes else 0.0)
        heapq.heappush(free, ends[step.name])
    return ends


def _of(need: str, ends: Mapping[str, float]) -> Iterator[float]:
    """Yield when a step ends, or its branches."""
    if need in ends:
        yield ends[need]
    else:
        yield from (end for name, end in ends.items() if name.startswith(f"{need}."))
