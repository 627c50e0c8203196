"""`runnable-ci runs`: which runs there are."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from runnable_ci.commands.text import duration, moment, pairs, table
from runnable_ci.runs import Summary, summaries
from runnable_ci.store.layout import Layout


def runs(layout: Layout, *, as_json: bool) -> None:
    """List the runs of a store, the newest last."""
    found = list(summaries(layout))
    if as_json:
        sys.stdout.write(json.dumps([asdict(summary) for summary in found], indent=1) + "\n")
    elif found:
        head = ("RUN", "STATUS", "WHEN (UTC)", "TOOK", "COMMIT", "FAILED", "METRICS")
        sys.stdout.write(table(head, [_row(summary) for summary in found]))
    else:
        sys.stderr.write(f"there is no run yet in {layout.label}\n")


def _row(run: Summary) -> tuple[str, ...]:
    return (
        run.run_id,
        run.status,
        moment(run.start_time),
        duration(run.start_time, run.end_time),
        run.commit[:7] + (" dirty" if run.dirty else ""),
        run.failed,
        pairs(run.metrics),
    )
