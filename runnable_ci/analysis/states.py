"""What became of each step in the newest invocation of a run, in the words of its reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import FAIL, SUCCESS, RunLog

State = Literal["succeeded", "reused", "failed", "cancelled", "skipped", "running", "removed"]


def state_of(log: RunLog, name: str) -> State:
    """Return what became of a step; `removed` is one that the pipeline does not have any more."""
    decision = decisions_of(log).get(name)
    step = log.steps.get(name)
    if decision is None or step is None:
        return "removed" if log.end_time else "running"
    if decision.action == "reuse":
        return "reused"
    if decision.action == "skip":
        return "skipped"
    if step.status == SUCCESS:
        return "succeeded"
    if step.status == FAIL:
        return "cancelled" if step.outcome in ("cancelled", "interrupted") else "failed"
    return "running"


def step_edges(log: RunLog, needs: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
    """Return each step of the newest invocation → what it needs: as given, else as its last attempt was defined."""
    if needs is not None:
        return dict(needs)
    names = [name for name in log.steps if state_of(log, name) != "removed"]
    defined = {
        name: log.steps[name].attempts[-1].definition.get("needs") if log.steps[name].attempts else None
        for name in names
    }
    return {name: [str(need) for need in found] if isinstance(found, list) else [] for name, found in defined.items()}
