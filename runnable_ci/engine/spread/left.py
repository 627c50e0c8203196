"""What becomes of a step that is left to another job: it is taken as that job has left it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runnable_ci.engine.provenance.changes import (
    Decision,
    Outcome,
    effective_needs,
    has_attempts,
    has_run_since_attempt,
    one_line,
)
from runnable_ci.engine.spread.job import JobSteps
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.causality.ancestry import Ancestry
from runnable_ci.runs.model import FAIL, PROCESSING, SUCCESS, Invocation, RunLog
from runnable_ci.runs.run_identity import invocation_digest, is_after, with_parents

NOT_RUN = "no job has run it"


def decide_left(
    step: Step,
    gate: Decision | None,
    *,
    job: JobSteps,
    log: RunLog,
    steps: Mapping[str, Step],
    settled: Mapping[str, Outcome],
    lost: str,
    new: Collection[int],
) -> Decision:
    """Return what is decided on a step that is not the job's own; `gate` is what its condition and needs say.

    `new` are the invocations that are to be collected, by their numbers. A result counts if it was made, or reused, by
    who had seen the results that it is made from.
    """
    if gate is not None and gate.action == "skip":
        return gate
    if not has_attempts(log, step.name):
        return _missing(step, job, log, NOT_RUN)
    last = log.steps[step.name].attempts[-1]
    if last.status == PROCESSING:
        return _missing(step, job, log, "its job has not ended")
    if last.status != SUCCESS:
        reason = f"attempt {last.attempt_number} failed: {last.message}"
        return Decision("skip", one_line(reason), settled=Outcome.FAILED)
    if lost:
        return _missing(step, job, log, lost)
    needs = effective_needs(step, steps, settled)
    newer = [need for need in needs if has_run_since_attempt(log, steps[need], last)]
    for need in newer:
        if not _is_confirmed(log, step.name, steps[need]):
            return _missing(step, job, log, f"{NOT_RUN} since `{steps[need].shown}` ran again")
    is_new = job.collects and last.invocation in new
    by = "unchanged since attempt" if job.collects else "another job's attempt"
    reason = f"{by} {last.attempt_number}"
    return Decision("reuse", reason, settled=Outcome.RAN if is_new else Outcome.REUSED)


def _missing(step: Step, job: JobSteps, log: RunLog, reason: str) -> Decision:
    """Return what is decided where there is no result: only who collects knows that none will come."""
    if not job.collects:
        return Decision("skip", reason, settled=Outcome.SKIPPED)
    for group in groups_of(step.name):
        siblings = (one for name, one in log.steps.items() if name.startswith(f"{group}."))
        if any(one.status == FAIL and one.attempts for one in siblings):
            return Decision("skip", f"{reason}, and another instance failed", settled=Outcome.SKIPPED)
    if was_cancelled(log):
        return Decision("skip", f"{reason}: the run was cancelled", settled=Outcome.SKIPPED)
    return Decision("skip", f"{reason}: its job was lost, or never began", settled=Outcome.FAILED)


def _is_confirmed(log: RunLog, step: str, need: Step) -> bool:
    """Return whether a job that had seen the last attempt at what a step needs found that its result still holds."""
    made = {
        found.attempts[-1].invocation
        for name, found in log.steps.items()
        if found.attempts and (name == need.name or need.name in groups_of(name))
    }
    holds = [
        one.number
        for one in log.invocations
        if (said := one.decisions.get(step)) is not None and said.action == "reuse" and is_own(one, step)
    ]
    return any(all(is_after(log, number, other) or number == other for other in made) for number in holds)


def is_own(invocation: Invocation, step: str) -> bool:
    """Return whether a step was one of an invocation's own, and not one that it took from another job."""
    return not invocation.job_steps or step.partition(".")[0] in invocation.job_steps


def this_round(log: RunLog) -> list[Invocation]:
    """Return the invocations of jobs that no invocation of the whole run had seen: what is to be collected."""
    known = with_parents(log.invocations)
    ancestry = Ancestry({invocation_digest(one): one.parents or () for one in known})
    # What collects them has seen them too, while it does.
    whole = [invocation_digest(one) for one in known if not one.job_steps and one.status != PROCESSING]
    return [
        one
        for one in known
        if one.job_steps and not any(ancestry.had_seen(digest, invocation_digest(one)) for digest in whole)
    ]


def was_cancelled(log: RunLog) -> bool:
    """Return whether a job was cancelled since the run was collected last."""
    return any(one.outcome == "cancelled" for one in this_round(log))
