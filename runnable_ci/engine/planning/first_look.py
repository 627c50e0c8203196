"""What is set aside before the first step: what the steps that may run made before, and branches that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from runnable_ci.engine.planner import PlanInputs
from runnable_ci.engine.planning.plan import PlanState, plan
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import RunLog


class FirstLook(NamedTuple):
    """What is known before the first step runs."""

    maybe: list[Step]
    """The steps that may run, and those that are not to this time: others must not find what they made."""
    kept: dict[str, list[str]]
    """Step → paths of what it made in this run, of those that are reused; of branches that are gone, no path."""


def first_look(pipeline: Pipeline, log: RunLog, state: PlanState, makers: Callable[[], Iterable[str]]) -> FirstLook:
    """Return what is known before the first step runs; `makers` gives the steps that made files of the workspace."""
    steps = pipeline.steps
    has_branches = any(step.branching is not None for step in steps.values())
    if not has_branches and (not log.steps or not any(step.put for step in steps.values())):
        maybe, planned = list(steps.values()), steps
    else:
        inputs = state.inputs._replace(elsewhere=PlanInputs().elsewhere)
        first = plan(pipeline, log, initial=state.initial, inputs=inputs)
        planned = first.pipeline.steps
        omitted = [name for name, decision in first.decisions.items() if decision.is_omission]
        maybe = [planned[name] for name in (*first.running, *omitted)]
    running = {step.name for step in maybe}
    reused = [step for name, step in planned.items() if name not in running and name in log.steps]
    kept = {
        step.name: [entry.name for entry in log.steps[step.name].put_entries()] for step in reused if not step.persist
    }
    tops = {step.name for step in steps.values() if step.branching is not None}
    gone = [
        name for name in (makers() if tops else ()) if name.partition(".")[0] in tops - {name} and name not in planned
    ]
    return FirstLook(maybe, kept | {name: [] for name in gone})
