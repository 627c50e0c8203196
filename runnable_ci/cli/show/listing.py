"""`runnable-ci runs`: the runs of a store or a registry, a line each."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, Literal

from runnable_ci.analysis.history.query import Query, left_out, select, shown_status
from runnable_ci.config import Settings
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.model import TIME_BUDGET
from runnable_ci.runs.paths import ELSEWHERE, in_flight
from runnable_ci.runs.reader import load, summaries
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.console import GREEN, RED, YELLOW, console
from runnable_ci.util.text import format_age, format_duration, format_pairs, seconds_between

_HEAD: Final = (
    *("RUN", "STATUS", "AGE", "DURATION", "FAILED", "MOCKED", "REUSED", "PARAMETERS", "METRICS"),
    *("PIPELINE", "TAG", "COMMIT", "MADE FOR", "DESCRIPTION"),
)
Form = Literal["table", "json", "csv"]
_SIGNS_MAX: Final = 5
_STOPPED: Final = "STOPPED"
"""Of a run that its time budget ended: nothing is wrong with it."""
_COLOURS: Final = {"SUCCESS": GREEN, "FAIL": RED, "DAMAGED": RED, "RUNNING": YELLOW, _STOPPED: YELLOW}


def runs(layout: Layout, query: Query = Query(), *, form: Form = "table") -> None:  # noqa: B008 - it is frozen
    """List the runs of a store, the newest last, or those that a query finds."""
    found = list(summaries(layout))
    shown = select(found, query, moment=datetime.now(UTC))
    _show(shown, form=form, where=layout.label, hidden=len(found))
    _say_left_out(found, query)
    if (layout.folder / ELSEWHERE).is_dir():
        from runnable_ci.runs.elsewhere.left_there import note_of  # few projects have steps elsewhere

        left = [run.run_id for run in shown if in_flight(layout, run.run_id)]
        notes = {run_id: note_of(layout, load(layout, run_id)) for run_id in left[-_SIGNS_MAX:]}
        console.err(*(f"note: {run_id}: {note}" for run_id, note in notes.items() if note))


def runs_of_registry(
    source: str,
    query: Query,
    layout: Layout | None = None,
    *,
    settings: Settings,
    environ: Mapping[str, str],
    form: Form,
) -> None:
    """List the runs that a registry holds, the newest last, or those that a query finds, without fetching any."""
    from runnable_ci.runs.remote.merged_listing import list_merged
    from runnable_ci.runs.remote.registry_config import Registries

    registry = Registries(settings, environ).named(source, in_pipeline=lambda: None)
    found = list_merged(registry, layout)
    runs_there = [holding.summary for holding in found]
    shown = select(runs_there, query, moment=datetime.now(UTC))
    _show(shown, form=form, where=registry.label, hidden=len(found))
    _say_left_out(runs_there, query)
    for holding in [one for one in found if one.sign and one.summary in shown][-_SIGNS_MAX:]:
        console.err(f"note: {holding.summary.run_id} is in progress: {holding.sign}")
    number = Counter(holding.summary.run_id for holding in found)
    for holding in found:
        run_id = holding.summary.run_id
        if number[run_id] > 1:
            which = f"{registry.label}@{holding.newest.digest} is that {holding.beginning}"
            console.err(f"note: {number[run_id]} runs have the id `{run_id}`; {which}")


def _say_left_out(found: Sequence[Summary], query: Query) -> None:
    if said := left_out(found, query):
        console.err(f"note: {said}")


def _show(found: list[Summary], *, form: Form, where: str, hidden: int) -> None:
    if form == "json":
        console.json(json.dumps([asdict(summary) for summary in found], indent=1))
    elif form == "csv":
        from runnable_ci.analysis.history.tables import csv_lines  # few listings are for a spreadsheet

        console.out(*csv_lines(found))
    elif found:
        shown = _parameters_that_differ(found)
        rows = [_row(run, parameters) for run, parameters in zip(found, shown, strict=True)]
        used = [i for i in range(len(_HEAD)) if any(row[i] for row in rows)]
        console.table([[row[i] for i in used] for row in [_HEAD, *rows]], _COLOURS)
    else:
        console.err(f"none of {hidden} runs in {where} is such" if hidden else f"no runs in {where}")


def _parameters_that_differ(found: Sequence[Summary]) -> list[dict[str, object]]:
    """Return of each run the parameters that are not the same in all listed runs of its pipeline."""
    values = defaultdict[tuple[str, str], set[str]](set)
    names = defaultdict[str, set[str]](set)
    for run in found:
        names[run.name].update(run.parameters)
    for run in found:
        for name in names[run.name]:
            values[run.name, name].add(json.dumps(run.parameters[name]) if name in run.parameters else "")
    return [{n: value for n, value in run.parameters.items() if len(values[run.name, n]) > 1} for run in found]


def _row(run: Summary, parameters: dict[str, object]) -> tuple[str, ...]:
    return (
        run.run_id,
        _STOPPED if run.ended_by == TIME_BUDGET else shown_status(run.status),
        format_age(seconds_between(run.start_time, now())),
        format_duration(run.seconds),
        run.failed,
        run.mocked,
        run.reused,
        format_pairs(parameters),
        format_pairs(run.metrics),
        run.name,
        run.tag + (" (pinned)" if run.pinned else ""),
        run.commit[:7] + (" dirty" if run.dirty else ""),
        f"reproduce {run.reproduces}" if run.reproduces else run.made_for,
        run.description,
    )
