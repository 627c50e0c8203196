"""`runnable-ci runs`: which runs there are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from runnable_ci.config import Settings
from runnable_ci.runs.reader import Summary, summaries
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import format_duration, moment, pairs, table


def runs(layout: Layout, *, as_json: bool) -> None:
    """List the runs of a store, the newest last."""
    _show(list(summaries(layout)), as_json=as_json, where=layout.label)


def runs_of_registry(source: str, *, settings: Settings, environ: Mapping[str, str], as_json: bool) -> None:
    """List the runs that a registry holds, the newest last, without fetching any."""
    from runnable_ci.runs.registry_config import Registries
    from runnable_ci.runs.remote_index import list_published

    registry = Registries(settings, environ).named(source, in_pipeline=lambda: None)
    found = list_published(registry)
    _show([holding.summary for holding in found], as_json=as_json, where=registry.label)
    number = Counter(holding.summary.run_id for holding in found)
    for holding in found:
        run_id = holding.summary.run_id
        if number[run_id] > 1:
            which = f"{registry.label}@{holding.newest.digest} is that {holding.beginning}"
            console.err(f"note: {number[run_id]} runs have the id `{run_id}`; {which}")


def _show(found: list[Summary], *, as_json: bool, where: str) -> None:
    if as_json:
        console.json(json.dumps([asdict(summary) for summary in found], indent=1))
    elif found:
        head = ("RUN", "STATUS", "WHEN (UTC)", "TOOK", "COMMIT", "FAILED", "METRICS")
        console.out(*table(head, [_row(summary) for summary in found]))
    else:
        console.err(f"there is no run yet in {where}")


def _row(run: Summary) -> tuple[str, ...]:
    return (
        run.run_id,
        run.status,
        moment(run.start_time),
        format_duration(run.seconds),
        run.commit[:7] + (" dirty" if run.dirty else ""),
        run.failed,
        pairs(run.metrics),
    )
