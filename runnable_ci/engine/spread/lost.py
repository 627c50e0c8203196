"""What jobs left in flight that are over: nobody will see its end. Pure."""

from __future__ import annotations

from typing import Any

from runnable_ci.runs.model import FAIL, PROCESSING, Invocation, RunLog, StepAttempt, StepLog

_GONE = {"status": FAIL, "outcome": "interrupted", "interrupted": True}
_LOST = "interrupted: its job was lost"


def concluded(log: RunLog, *, time: str) -> RunLog:
    """Return the log of a run all jobs of which are over: attempts and invocations in flight were interrupted.

    Where a job ends after all, what it published counts more than this.
    """
    invocations = [_over(one, time) for one in log.invocations]
    steps = {name: _step(step, time) for name, step in log.steps.items()}
    if invocations == log.invocations and steps == log.steps:
        return log
    end: dict[str, Any] = {}
    if log.status == PROCESSING:
        end = {**_GONE, "message": _LOST, "end_time": time}
    return log.model_copy(update={"invocations": invocations, "steps": steps, **end})


def _over(one: Invocation, time: str) -> Invocation:
    if one.status != PROCESSING:
        return one
    return one.model_copy(update={**_GONE, "end_time": time, "message": _LOST})


def _step(step: StepLog, time: str) -> StepLog:
    attempts = [_attempt(one, time) for one in step.attempts]
    if attempts == step.attempts and step.status != PROCESSING:
        return step
    update: dict[str, Any] = {"attempts": attempts}
    if step.status == PROCESSING:
        update |= {"status": FAIL, "outcome": "interrupted", "message": _LOST}
    return step.model_copy(update=update)


def _attempt(one: StepAttempt, time: str) -> StepAttempt:
    if one.status != PROCESSING:
        return one
    return one.model_copy(update={**_GONE, "end_time": time, "message": _LOST})
