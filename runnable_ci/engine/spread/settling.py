"""Steps of other jobs in the state of an invocation: only jobs that share a run load this. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from runnable_ci.engine.planner import PlanInputs
from runnable_ci.engine.provenance.changes import Decision, Outcome
from runnable_ci.engine.spread.left import decide_left, this_round
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import RunLog


class JobState(Protocol):
    """How far the invocation of a job has come."""

    cancelled: set[str]

    @property
    def inputs(self) -> PlanInputs:
        """What was found out before."""

    @property
    def steps(self) -> Mapping[str, Step]:
        """All steps that are known."""

    @property
    def settled(self) -> Mapping[str, Outcome]:
        """How each step was settled."""


def left(step: Step, state: JobState, gate: Decision | None, log: RunLog) -> Decision:
    """Return what is decided on a step of another job; one that was cancelled there was so with the run."""
    job = state.inputs.job
    assert job is not None  # noqa: S101 - for the type checker
    new = {one.number for one in this_round(log)} if job.collects else ()
    lost = state.inputs.lost.get(step.name, "")
    decision = decide_left(step, gate, job=job, log=log, steps=state.steps, settled=state.settled, lost=lost, new=new)
    past = log.steps.get(step.name)
    if decision.outcome() is Outcome.FAILED and past and past.attempts and past.attempts[-1].outcome == "cancelled":
        state.cancelled.add(step.name)
    return decision
