"""Steps of branches as the document has them: inside the step that they are branches of, as in the reference system.

In memory all steps are in one table, by names that say where they belong: `STEP.BRANCH.STEP`. Pure.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from runnable_ci.runs.model import RunLog, StepLog
from runnable_ci.util.bounded_json import Allowance, RecordError


def nested(log: RunLog) -> RunLog:
    """Return a log as its document has it."""
    steps: dict[str, StepLog] = {}
    copies = {name: step.model_copy(update={"branches": {}}) for name, step in log.steps.items()}
    for name, step in copies.items():
        group, _, own = name.rpartition(".")
        group, _, key = group.rpartition(".")
        if not group or group not in copies:
            steps[name] = step
            continue
        step.name = own
        branch = copies[group].branches.setdefault(
            f"{group}.{key}", {"internal_name": f"{group}.{key}", "status": "", "steps": {}}
        )
        branch["steps"][name] = step
    for step in copies.values():
        for branch in step.branches.values():
            branch["status"] = _status([one.status for one in branch["steps"].values()])
    return log.model_copy(update={"steps": steps})


def _status(statuses: list[str]) -> str:
    return next((one for one in ("FAIL", "PROCESSING", "SKIPPED") if one in statuses), "SUCCESS")


def flat(log: RunLog, allowance: Allowance) -> RunLog:
    """Return the log of a document with all its steps in one table; branches that hold no steps stay as they are."""
    steps: dict[str, StepLog] = {}
    waiting = [(name, step) for name, step in reversed(log.steps.items())]
    while waiting:
        name, step = waiting.pop()
        step.name = name
        steps[name] = step
        inner: list[tuple[str, StepLog]] = []
        for branch in step.branches.values():
            inner += _steps_of(branch, allowance)
        if any(not one.startswith(f"{name}.") for one, _ in inner):
            raise RecordError(f"a branch of `{name[:100]}` has a step that does not belong there")
        if inner:
            step.branches = {}
            waiting.extend(reversed(inner))
    return log.model_copy(update={"steps": steps})


def _steps_of(branch: Any, allowance: Allowance) -> list[tuple[str, StepLog]]:
    found = branch.get("steps") if isinstance(branch, dict) else None
    if not isinstance(found, dict):
        return []
    try:
        return [(name, StepLog.model_validate(step, context=allowance)) for name, step in found.items()]
    except ValidationError as e:
        raise RecordError(f"a branch has a step that cannot be read ({e.error_count()} errors)") from e
