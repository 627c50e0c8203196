"""The runs of a store: a list of plain tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Optional

from runnable_ci.api.documents import is_row_current, load, time_of
from runnable_ci.api.rows import Row, row_of_log
from runnable_ci.api.shown import code, html_table, status
from runnable_ci.api.stores import JOURNAL, Store, find_store
from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunLogError
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.util.text import format_duration, format_pairs, format_time, pluralize

_SHOWN_MAX = 20


class Runs(List[Row]):
    """Runs, the newest last, each a table as `runnable-ci runs --json` prints it.

    `pandas.json_normalize(runs)` has a column for each field, parameter and metric.
    """

    def __repr__(self) -> str:
        newest = f", newest: {self[-1]['run_id']} {status(self[-1]['status'])}" if self else ""
        return f"<{pluralize(len(self), 'run')}{newest}>"

    def _repr_html_(self) -> str:
        head = ("run", "status", "started", "duration", "failed", "parameters", "metrics", "code", "made for")
        shown = self[-_SHOWN_MAX:]
        columns = slice(len(head) if any(run["made_for"] for run in shown) else len(head) - 1)
        caption = repr(self)[1:-1] + (f", the last {_SHOWN_MAX} of them" if len(self) > _SHOWN_MAX else "")
        return html_table(head[columns], (_cells(run)[columns] for run in shown), caption=caption)


def list_runs(folder: Optional[Path]) -> Runs:
    """Return the runs of a store. Raises `StoreError`."""
    store = find_store(folder)
    return Runs(rows(store).values())


def rows(store: Store) -> Dict[str, Row]:
    """Return run id → its row, the one that was written to last at the end."""
    sealed, folders = store.sealed(), store.run_folders()
    found: Dict[str, Row] = {}
    written: Dict[str, str] = {}
    for run_id in dict.fromkeys([*sealed, *folders]):
        known, journal = sealed.get(run_id), store.run_folder(run_id) / JOURNAL
        if known is None and not journal.exists():
            continue  # a folder that is left of a run
        if known and is_row_current(known, journal):
            found[run_id] = asdict(Summary.of(run_id, known.annotations))
            written[run_id] = found[run_id]["end_time"]
        if run_id not in found or found[run_id]["status"] == "PROCESSING":
            try:
                found[run_id] = row_of_log(load(store, run_id, known))
            except (RunLogError, BlobMissingError, BlobCorruptError):
                found[run_id] = asdict(Summary.of(run_id, {"vnd.runnable.status": "DAMAGED"}))
            written[run_id] = time_of(journal.stat().st_mtime) if journal.exists() else found[run_id]["end_time"]
    return {run_id: found[run_id] for run_id in sorted(found, key=written.__getitem__)}


def _cells(run: Row) -> List[str]:
    values = (format_pairs(run["parameters"]), format_pairs(run["metrics"]), code(run))
    times = (format_time(run["start_time"]), format_duration(run["seconds"]))
    return [run["run_id"], status(run["status"]), *times, run["failed"], *values, run["made_for"]]
