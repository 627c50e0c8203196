"""A metric of a run, by its name, also that of one instance of a matrix. Pure."""

from __future__ import annotations

from typing import Any

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.runs.branches.metrics import instance_metrics
from runnable_ci.runs.listing.summary import by_shown_name
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import flattened, listed


def metric_of(log: RunLog, name: str, *, required: bool = False) -> Any:
    """Return a metric; None where the run has none of that name, or where it is `required` raise `UsageError`.

    That of an instance has the name that `diff` shows, such as `score: train (1)`.
    """
    known = log.metrics() | by_shown_name(instance_metrics(log))
    if name not in known and required:
        has = f"it has {listed(known, at_most=20)}" if known else "it has no metrics"
        raise UsageError(f"run {log.run_id} has no metric `{name}`", hint=did_you_mean(name, known, has))
    return known.get(name)


def giver_of(log: RunLog, name: str) -> str:
    """Return the step that gave a metric, the branching one where branches did; empty where that is not one."""
    found, name = "", name.partition(": ")[0]
    for key, step in log.steps.items():
        if step.attempts and "." not in key:
            last = step.attempts[-1]
            given = {key: p.value for key, p in last.user_defined_metrics.items()} | last.file_metrics
            if name in flattened(given):
                found = key
        if name.partition(".")[0] in step.branch_returns:
            found = key.partition(".")[0]
    return found
