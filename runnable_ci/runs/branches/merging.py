"""Steps with branches where several versions of a run become one: which count, and how the step ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runnable_ci.runs.branches.labels import failed_below, is_only_branches, label_of
from runnable_ci.runs.branches.values import outputs_of_step
from runnable_ci.runs.model import FAIL, PROCESSING, SKIPPED, SUCCESS, Parameter, RunLog, StepAttempt, StepLog
from runnable_ci.util.text import listed

_OF_BRANCHES = ("step_type", "instances", "branch_steps", "branch_returns")


def with_branches(merged: dict[str, StepLog], newest: Mapping[str, StepLog]) -> dict[str, StepLog]:
    """Return merged steps, of which those with branches have them, and their end, as the `newest` version has.

    Where other attempts at its branches count now, the step ended as these did.
    """
    for name in sorted(newest, key=lambda name: -name.count(".")):
        version = newest[name]
        step = merged[name] = merged[name].model_copy(update={key: getattr(version, key) for key in _OF_BRANCHES})
        if is_only_branches(step):
            merged[name] = step.model_copy(update=_end(name, step, version, merged))
    return merged


def _end(name: str, step: StepLog, version: StepLog, merged: Mapping[str, StepLog]) -> dict[str, str]:
    inner = [merged[one] for one in _inner(name, step) if one in merged]
    statuses = {one.status for one in inner}
    as_then = {"status": version.status, "outcome": version.outcome, "message": version.message}
    if version.status == SUCCESS and FAIL in statuses:  # it may continue on errors
        return as_then
    if FAIL in statuses:
        failed = [label_of(merged, one) for one in failed_below(name, merged)]
        message = version.message if version.status == FAIL else f"failed: {listed(failed)}"
        return {"status": FAIL, "outcome": "failed", "message": message}
    if version.status == FAIL and statuses <= {SUCCESS} and inner:
        return {"status": SUCCESS, "outcome": "succeeded", "message": ""}
    return as_then if version.status != PROCESSING or PROCESSING in statuses else {**as_then, "status": SKIPPED}


def _inner(name: str, step: StepLog) -> list[str]:
    return [f"{name}.{branch.name}.{inner}" for branch in step.instances for inner in step.branch_steps]


def given(log: RunLog) -> list[tuple[tuple[bool, int, str, str], dict[str, Parameter]]]:
    """Return what the attempts at steps gave, and what branches gave together, each with what orders them."""
    found = []
    for name, step in log.steps.items():
        if "." in name:
            continue
        for attempt in step.attempts:
            is_last = attempt is step.attempts[-1]
            outputs = attempt.output_parameters | attempt.user_defined_metrics
            found.append(((is_last, attempt.invocation, attempt.start_time, name), outputs))
        if is_only_branches(step) and step.status == SUCCESS:
            invocation, start_time = _newest(_attempts(name, log.steps))
            found.append(((True, invocation, start_time, name), outputs_of_step(log.steps, step)))
    return sorted(found, key=lambda item: item[0])


def _attempts(name: str, steps: Mapping[str, StepLog]) -> list[StepAttempt]:
    return [one for key, step in steps.items() if key.startswith(f"{name}.") for one in step.attempts[-1:]]


def _newest(attempts: Sequence[StepAttempt]) -> tuple[int, str]:
    return max(((one.invocation, one.start_time) for one in attempts), default=(0, ""))
