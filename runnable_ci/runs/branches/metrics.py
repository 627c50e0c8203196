"""The metrics of a step's branches: instances of a matrix, rounds of a loop, steps of another file. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from runnable_ci.runs.branches.labels import labels_of
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import flattened

ANNOTATION_MAX: Final = 4000


def instance_metrics(log: RunLog) -> dict[str, dict[str, Any]]:
    """Return metric → how people know a step in a branch → the value that its last attempt gave."""
    decided = log.invocations[-1].decisions if log.invocations and log.end_time else log.steps
    names = [name for name, step in log.steps.items() if "." in name and step.attempts and name in decided]
    labels = labels_of(log.steps, names)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        last = log.steps[name].attempts[-1]
        given = {key: value.value for key, value in last.user_defined_metrics.items()} | last.file_metrics
        for metric, value in flattened(given).items():
            found.setdefault(metric, {})[labels[name]] = value
    return found


def instance_annotation(log: RunLog) -> str:
    """Return these as JSON for a listing of runs, of many the first."""
    short: dict[str, dict[str, Any]] = {}
    left = ANNOTATION_MAX
    for metric, values in instance_metrics(log).items():
        for label, value in values.items():
            left -= len(json.dumps({label: value})) + len(metric) * (metric not in short)
            if left < 0:
                break
            short.setdefault(metric, {})[label] = value
    return json.dumps(short) if short else ""
