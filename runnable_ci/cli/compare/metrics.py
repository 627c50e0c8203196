"""`runnable-ci metrics`: metrics over runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from runnable_ci.analysis.facts import is_number
from runnable_ci.analysis.history.query import Query, left_out, select
from runnable_ci.analysis.history.tables import metric_rows
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.runs.reader import summaries
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import listed, table


def metrics(layout: Layout, names: Sequence[str], query: Query, *, as_json: bool) -> None:
    """Print metrics over the runs that a query finds, the newest last, with a bar each; all where none is named.

    Raises `UsageError` for a metric that no run has.
    """
    everything = [*summaries(layout)]
    found = select(everything, query, moment=datetime.now(UTC))
    if said := left_out(everything, query):
        console.err(f"note: {said}")
    known = list(dict.fromkeys(name for run in found for name in run.all_metrics()))
    for name in names:
        if not _of(name, known):
            hint = did_you_mean(name, known, f"they have {', '.join(known[:20])}" if known else "they have none")
            raise UsageError(f"no run has a metric `{name}`", hint=hint)
    if as_json:
        parts = ("run_id", "start_time", "metrics", "instance_metrics", "made_for")
        console.json(json.dumps([{part: getattr(run, part) for part in parts} for run in found], indent=1))
        return
    first = True
    for name in [one for word in names for one in _of(word, known)] or known:
        rows = metric_rows(found, name)
        odd = [run.run_id for run in found if _is_odd(run.all_metrics().get(name))]
        if odd:
            console.err(f"{name}: no number in {listed(odd)}")
        if not rows:
            continue
        columns = slice(5 if query.experiments else 4)
        head = ("RUN", "STARTED (UTC)", name, "", "MADE FOR")
        console.out(*([] if first else [""]), *table(head[columns], [row[columns] for row in rows]))
        first = False
    if first:
        console.err("no run has a metric that is a number")


def _is_odd(value: Any) -> bool:
    """Return whether a metric is a number that cannot be drawn: NaN, an infinite or a huge one."""
    return not is_number(value) and not isinstance(value, list | None)


def _of(name: str, known: Sequence[str]) -> list[str]:
    """Return the metrics of this name: the run's, and those of each instance (`score: train (gut)`)."""
    return [one for one in known if one == name or one.startswith(f"{name}: ")]
