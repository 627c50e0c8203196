"""When a job begins. Pure.

The program decides which steps run; GitHub decides which jobs do. A job must begin where one of its steps may run, and
should not where none can: to start a runner only to say so would cost more than most steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from runnable_ci.pipeline.expressions.lookups import condition_of
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step


def begins_if(pipeline: Pipeline, steps: Sequence[str], above: Collection[str]) -> str:
    """Return the condition of a job of these steps, an expression of GitHub's; `above` are all steps of jobs before.

    It is empty where GitHub's own, `success()`, is right: in a job that needs no other.
    """
    called = {name for step in steps for name in _status_functions(pipeline.steps[step])}
    if {"always", "cancelled"} & called:
        return "always()"
    if not above:
        return ""
    first = [name for name in steps if not set(pipeline.steps[name].needs).intersection(steps)]
    # A failed job may have failed by a step that these do not need.
    need_all = all(pipeline.ancestors(name).issuperset(above) for name in first)
    return "!cancelled() && !failure()" if need_all and "failure" not in called else "!cancelled()"


def _status_functions(step: Step) -> Iterator[str]:
    if step.condition:
        yield from (call.name for call in condition_of(step.condition).calls())
    for inner in step.branching.body.values() if step.branching else ():
        yield from _status_functions(inner)
