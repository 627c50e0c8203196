"""Steps with branches in the loop: they begin, continue with another round, and end."""

from __future__ import annotations

from collections.abc import Callable

from runnable_ci.engine.planning.branches import OpenStep
from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.engine.planning.schedule import Schedule, begun, first_needs
from runnable_ci.engine.provenance.changes import Decision, Outcome
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.events import BranchesBegun, BranchesEnded, Event
from runnable_ci.runs.model import DecisionRecord, RunLog
from runnable_ci.util.text import listed, pluralize


def advance(
    state: PlanState,
    schedule: Schedule,
    step: Step,
    log: RunLog,
    skip: Callable[[Step, Decision], list[Event]],
    say: Callable[..., None],
) -> list[Event] | None:
    """Begin the branches of a step, or another round, or end it; None where it is itself to be decided on then.

    `skip` settles a step that is not to run, and returns what is recorded of it.
    """
    if step.name in state.open:
        return _end(state, schedule, step, say)
    try:
        found = state.begin(step, log)
    except PipelineError as e:  # values that earlier steps gave make no branches
        say(f"✗ {e.message}", step=step.shown)
        state.fail(step)
        schedule.settle(begun(step.name))
        return [_over(schedule, step, "failed", e.message)]
    schedule.settle(begun(step.name))
    if isinstance(found, Decision):
        events = skip(step, found)
        schedule.settle(step.name)
        return events
    _add(state, schedule, found, 0)
    if found.kind == "map":
        say(pluralize(len(found.branches), "instance"), step=step.shown)
    return [_begun(found)]


def _begun(found: OpenStep) -> BranchesBegun:
    return BranchesBegun(
        step=found.step.name,
        kind=found.kind,
        branches=found.records(),
        steps=[*found.branching.body],
        returns=[*found.step.returns],
    )


def _add(state: PlanState, schedule: Schedule, found: OpenStep, first: int) -> None:
    """Add the steps of branches to the schedule, and the step itself after them."""
    branches = [
        [(inner.name, first_needs(inner), state.position(inner.name)) for inner in branch]
        for branch in found.steps(first)
    ]
    schedule.add_branches(found.step.name, branches, found.branching.max_parallel)
    schedule.add(found.step.name, found.end.needs, state.position(found.step.name))


def _end(state: PlanState, schedule: Schedule, step: Step, say: Callable[..., None]) -> list[Event] | None:
    found = state.open[step.name]
    if state.next_round(step):
        _add(state, schedule, found, len(found.branches) - 1)
        return [_begun(found)]
    outcome = state.end(step)
    if step.kind != "branches" and outcome in (Outcome.RAN, Outcome.REUSED):
        return None
    count = pluralize(len(found.distinct()), {"map": "instance", "loop": "round", "dag": "branch"}[found.kind])
    match outcome:
        case Outcome.FAILED:
            if found.problem:
                say(f"✗ {found.problem}", step=step.shown)
            failed = listed([state.steps[name].shown for name in found.failed(state)])
            return [_over(schedule, step, "failed", found.problem or f"failed: {failed}", count)]
        case Outcome.SKIPPED:
            return [_over(schedule, step, "", "its branches were skipped", count)]
        case Outcome.OMITTED:
            return [_over(schedule, step, "", "all of its branches were skipped", count)]
        case Outcome.REUSED:
            return [_over(schedule, step, "succeeded", "", f"unchanged: {count}", action="reuse")]
        case _:
            return [_over(schedule, step, "succeeded", "", count)]


def _over(
    schedule: Schedule, step: Step, outcome: str, message: str, reason: str = "", *, action: str = "run"
) -> BranchesEnded:
    schedule.settle(step.name)
    decision = DecisionRecord(action=action if outcome else "skip", reason=reason or message)
    return BranchesEnded(step=step.name, outcome=outcome, message=message, decision=decision)
