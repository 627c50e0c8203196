"""Runs and their metrics as tables: for spreadsheets, and as bars in a terminal. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from runnable_ci.analysis.facts import is_number, share_of
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.util.text import flattened, format_time

_FIELDS: Final = (
    *("run_id", "name", "status", "start_time", "end_time", "seconds", "ref", "commit", "dirty", "tag", "description"),
    *("pinned", "failed", "mocked", "reused", "reproduces", "made_for"),
)
_BAR: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def csv_lines(runs: Sequence[Summary]) -> list[str]:
    """Return runs as CSV: a column for each field, parameter (`parameters.lr`) and metric (`metrics.score`)."""
    rows = [_flat(run) for run in runs]
    columns = [*_FIELDS, *sorted({name for row in rows for name in row} - set(_FIELDS))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(column)) for column in columns] for row in rows])
    return file.getvalue().rstrip("\n").split("\n")


def _flat(run: Summary) -> dict[str, Any]:
    fields = {name: getattr(run, name) for name in _FIELDS}
    return (
        fields
        | flattened(run.parameters, "parameters.")
        | flattened(run.metrics, "metrics.")
        | flattened(run.instance_metrics, "instances.")
    )


def _cell(value: Any) -> Any:
    """Return a value for a cell; a text that a spreadsheet would calculate stays text."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "@", "\t", "\r") else value
    if value is None or isinstance(value, bool | int | float):
        return value
    return json.dumps(value)


def metric_rows(runs: Iterable[Summary], name: str) -> list[tuple[str, str, str, str, str]]:
    """Return a metric over runs, a row each: run, start, value, a bar from the least to the most, for what it is."""
    values = ((run, run.all_metrics().get(name)) for run in runs)
    found = [(run, float(value)) for run, value in values if is_number(value)]
    if not found:
        return []
    least, most = min(value for _, value in found), max(value for _, value in found)
    # From nothing, as bars are read; but where all are near each other, that seen which is the larger.
    low = least - (most - least) if least > 0 and most / 2 < least else min(0.0, least)
    low = low if most > least else min(0.0, 2 * most)
    return [
        (run.run_id, format_time(run.start_time), f"{value:.6g}", _bar(share_of(value, low, most)), run.made_for)
        for run, value in found
    ]


def _bar(share: float) -> str:
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip() or "▏"
