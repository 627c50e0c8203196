"""A run in a list, by what stands with its manifest. Pure; of Python 3.8, as `api/` reads it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from runnable_ci.util.text import flattened, seconds_between


@dataclass(frozen=True)
class Summary:
    """One line of a listing of runs."""

    run_id: str
    name: str
    tag: str
    status: str
    start_time: str
    end_time: str
    seconds: float | None
    """How long the run's invocations took together."""
    commit: str
    ref: str
    """Branch or tag of the code."""
    dirty: bool | None
    attempts: int
    failed: str
    parameters: dict[str, Any]
    """The run's own, those that are short."""
    metrics: dict[str, Any]
    identity: str
    """What tells the run from another one of its id."""
    mocked: str = ""
    """The steps that were mocked."""
    reused: str = ""
    """How many results it took of other runs."""
    ended_by: str = ""
    """`time-budget`, where it ended since its time was over."""
    description: str = ""
    pinned: bool = False
    """`gc` and `prune` keep it."""
    reproduces: str = ""
    """Which run it makes again, and the verdict."""
    made_for: str = ""
    """For what, and of which runs, `reproduce`, `why` or `bisect` made it; empty for a run of the project."""
    instance_metrics: dict[str, Any] = field(default_factory=dict)
    """Metric → instance of a matrix, or another step in a branch → its value, as far as these are few."""

    def all_metrics(self) -> dict[str, Any]:
        """Return the run's metrics with those of instances, such as `score: train (gut)`."""
        return {**self.metrics, **by_shown_name(self.instance_metrics)}

    @classmethod
    def of(cls, run_id: str, annotations: dict[str, str]) -> Summary:
        """Return a summary from the annotations of a run's manifest."""
        attempts = annotations.get("vnd.runnable.attempts", "")
        dirty = annotations.get("vnd.runnable.dirty")
        start = annotations.get("org.opencontainers.image.created", "")
        end = annotations.get("vnd.runnable.ended", "")
        return cls(
            run_id=run_id,
            name=annotations.get("vnd.runnable.name", ""),
            tag=annotations.get("vnd.runnable.tag", ""),
            status=annotations.get("vnd.runnable.status", "?"),
            start_time=start,
            end_time=end,
            seconds=_seconds(annotations.get("vnd.runnable.seconds", ""), start, end),
            commit=annotations.get("org.opencontainers.image.revision", ""),
            ref=annotations.get("vnd.runnable.ref", ""),
            dirty=None if dirty is None else dirty == "true",
            attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
            failed=annotations.get("vnd.runnable.failed", ""),
            parameters=_values(annotations.get("vnd.runnable.parameters", "")),
            metrics=flattened(_values(annotations.get("vnd.runnable.metrics", ""))),
            identity=annotations.get("vnd.runnable.identity", ""),
            mocked=annotations.get("vnd.runnable.mocked", ""),
            reused=annotations.get("vnd.runnable.reused", ""),
            ended_by=annotations.get("vnd.runnable.ended-by", ""),
            description=annotations.get("org.opencontainers.image.description", ""),
            pinned=annotations.get("vnd.runnable.pinned") == "true",
            reproduces=annotations.get("vnd.runnable.reproduces", ""),
            made_for=made_for(annotations),
            instance_metrics=_tables(annotations.get("vnd.runnable.instance-metrics", "")),
        )


def made_for(annotations: Mapping[str, str]) -> str:
    """Return for what a run was made that is an experiment; empty for a run of the project."""
    first = annotations.get("vnd.runnable.reproduces", "").partition(":")[0]
    return annotations.get("vnd.runnable.made-for") or (f"reproduce {first}" if first else "")


def experiment(made_from: Mapping[str, str]) -> str:
    """Return what a listing says of a run that has this as `made_from` in its log, such as `why tuned, nightly`."""
    first = [] if made_from["purpose"] == "bisect" else ["code"]  # that of a bisection is a commit
    parts = [*first, "data", "values", "packages"]
    runs = dict.fromkeys(made_from[part] for part in parts if made_from[part])
    return f"{made_from['purpose']} {', '.join(runs)}".rstrip()


def project_runs(runs: Iterable[Summary]) -> list[Summary]:
    """Return the runs without the experiments: what `reproduce`, `why` or `bisect` made is no run of the project."""
    return [run for run in runs if not run.made_for]


def by_shown_name(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return metrics of instances by one name each, such as `score: train (gut)`."""
    return {f"{metric}: {label}": value for metric, values in metrics.items() for label, value in values.items()}


def _values(text: str) -> dict[str, Any]:
    """Return the table of an annotation; empty where others wrote something else there."""
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _tables(text: str) -> dict[str, Any]:
    return {name: table for name, table in _values(text).items() if isinstance(table, dict)}


def _seconds(text: str, start: str, end: str) -> float | None:
    """Return the seconds of an annotation.

    Those from start to end where an older version, or another tool, wrote none.
    """
    return float(text) if re.fullmatch(r"\d{1,9}\.\d{3}", text) else seconds_between(start, end)
