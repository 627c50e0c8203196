"""What a job records of steps that are not its own, and how its invocation ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from runnable_ci.engine.planner import PlanInputs
from runnable_ci.engine.provenance.changes import Decision, Outcome, has_attempts
from runnable_ci.engine.spread.left import is_own, this_round
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.events import Decided, Event
from runnable_ci.runs.model import FAIL, JOB, SUCCESS, DecisionRecord, RunLog, RunOutcome, status_of

UNFINISHED: Final = "unfinished: its jobs are not collected"


class SharedState(Protocol):
    """How far the invocation of a job has come."""

    @property
    def inputs(self) -> PlanInputs:
        """What was found out before."""

    @property
    def steps(self) -> Mapping[str, Step]:
        """All steps that are known."""

    @property
    def settled(self) -> Mapping[str, Outcome]:
        """How each step was settled."""

    @property
    def cancelled(self) -> set[str]:
        """The steps that were ended with the run."""

    def is_left(self, step: str) -> bool:
        """Return whether a step is left to another job."""


class JobEnd(NamedTuple):
    """How the invocation of a job ends."""

    outcome: RunOutcome
    message: str
    ended_by: str
    status: str
    """Of the job, by which its exit code is; that of the run is another one until it is collected."""


def decided_elsewhere(step: str, decision: Decision, state: SharedState, log: RunLog) -> list[Event]:
    """Return what is recorded of a step of another job: that its result is used, and by who collects all of it."""
    job = state.inputs.job
    if job is None or not job.collects:
        if decision.action != "reuse":
            return []
        return [Decided(step=step, decision=decision.record(log, step))]
    return [Decided(step=step, decision=_as_decided(step, decision, log))]


def _as_decided(step: str, decision: Decision, log: RunLog) -> DecisionRecord:
    """Return the decision of the job that had the step: the run as a whole says what became of it in this round."""
    is_made = decision.outcome() is Outcome.RAN or decision.outcome() is Outcome.FAILED
    if is_made and has_attempts(log, step):
        last = log.steps[step].attempts[-1]
        said = next((one.decisions.get(step) for one in log.invocations if one.number == last.invocation), None)
        return said or DecisionRecord(action="run", reason=last.reason)
    said_in_jobs = [
        said
        for one in this_round(log)
        if is_own(one, step) and (said := one.decisions.get(step)) is not None and said.action == decision.action
    ]
    return said_in_jobs[-1] if said_in_jobs else decision.record(log, step)


def end_of_job(failed: Sequence[str], state: SharedState, log: RunLog) -> JobEnd:
    """Return how the invocation of a job ends, by which of all steps `failed`."""
    job = state.inputs.job
    if job is not None and job.collects:
        return _collected(failed, state, log)
    own = [name for name in failed if not state.is_left(name)]
    not_run = [name for name, it in state.settled.items() if it is Outcome.SKIPPED and not state.is_left(name)]
    if own or not_run:
        what, names = ("failed", own) if own else ("not run", _outermost(not_run))
        return JobEnd("failed", f"{what}: {_shown(names, state)}", "", FAIL)
    return JobEnd("interrupted", UNFINISHED, JOB, SUCCESS)


def _collected(failed: Sequence[str], state: SharedState, log: RunLog) -> JobEnd:
    lost = [name for name in failed if _is_lost(name, log)]
    broken = [name for name in failed if name not in lost]
    said = [("failed", broken), ("lost", lost)]
    message = "; ".join(f"{what}: {_shown(names, state)}" for what, names in said if names)
    outcome: RunOutcome = "cancelled" if state.cancelled else "failed" if failed else "succeeded"
    return JobEnd(outcome, message, "", status_of(outcome))


def _is_lost(step: str, log: RunLog) -> bool:
    return not has_attempts(log, step) or log.steps[step].attempts[-1].status == SUCCESS


def _outermost(names: Sequence[str]) -> list[str]:
    known = set(names)
    return [name for name in names if known.isdisjoint(groups_of(name))]


def _shown(names: Sequence[str], state: SharedState) -> str:
    return ", ".join(state.steps[name].shown for name in names)
