"""How far a chain of jobs has come in which each resumes the run of the one before, whose time was over. Pure.

It is counted from the run log: what was recorded of the run can neither be lost nor set by who starts a job.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from runnable_ci.runs.model import TIME_BUDGET, Invocation, RunLog
from runnable_ci.util.text import pluralize

IDLE_MAX: Final = 2


class JobChain(NamedTuple):
    """The invocations at the end of a run log that were ended by their time budget, one after another."""

    jobs: int
    idle: int
    """How many of the last ones got nothing done, the first one of the chain aside."""

    @classmethod
    def of(cls, log: RunLog) -> JobChain:
        """Return the chain that the newest invocation belongs to; of no jobs where it ended in another way."""
        ended: list[Invocation] = []
        for invocation in reversed(log.invocations):
            if not is_ended_by_budget(invocation):
                break
            ended.append(invocation)
        idle = 0
        for invocation in ended[:-1]:
            if has_progress(log, invocation.number):
                break
            idle += 1
        return cls(len(ended), idle)

    def end(self, relay_max: int) -> str:
        """Return why no further job resumes the run; empty where one does."""
        if self.idle >= IDLE_MAX:
            return (
                f"the last {self.idle} jobs finished no step and kept no new checkpoint: a further one would do no "
                "better. Give the step a `checkpoint`, or the job more time"
            )
        if self.jobs > relay_max:
            in_turn = ", one after another" if self.jobs > 1 else ""
            jobs = f"{pluralize(self.jobs, 'job')} of the run{in_turn}"
            return f"`relay-max: {relay_max}` is reached: the time budget ended {jobs}"
        return ""


def is_ended_by_budget(invocation: Invocation) -> bool:
    """Return whether its time budget ended an invocation."""
    return invocation.ended_by == TIME_BUDGET


def has_progress(log: RunLog, number: int) -> bool:
    """Return whether a step succeeded in an invocation, or kept work that the one before it had not done."""
    return any(
        attempt.invocation == number and (attempt.outcome == "succeeded" or attempt.checkpoint is not None)
        for step in log.steps.values()
        for attempt in step.attempts
    )
