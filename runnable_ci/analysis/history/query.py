"""Which runs of a listing are shown, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.runs.listing.summary import Summary, project_runs
from runnable_ci.util.text import pluralize

STATUSES: Final[Mapping[str, str]] = {
    "succeeded": "SUCCESS",
    "failed": "FAIL",
    "running": "PROCESSING",
    "damaged": "DAMAGED",
}
"""What `--status` takes → what a run log says; its own words are taken too."""
_OWN_WORDS: Final = {**STATUSES, **{status.lower(): status for status in STATUSES.values()}}


def shown_status(status: str) -> str:
    """Return a status of the run log as people say it."""
    return "RUNNING" if status == STATUSES["running"] else status


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that all must hold; what is empty is none."""

    status: str = ""
    branch: str = ""
    commit: str = ""
    """How it begins."""
    tag: str = ""
    pipeline: str = ""
    since: str = ""
    """A time, or an age such as `12h`, `30d`."""
    until: str = ""
    where: Sequence[str] = ()
    """Conditions on metrics and parameters: `score > 0.9 && parameters.lr == 0.1`."""
    sort: str = ""
    """A metric or parameter, `duration` or `run`; by default when they began."""
    reverse: bool = False
    limit: int | None = None
    """The last so many of those found."""
    experiments: bool = False
    """Also what `reproduce`, `why` and `bisect` made."""


def select(runs: Iterable[Summary], query: Query, *, moment: datetime) -> list[Summary]:
    """Return the runs of a listing, the newest last, that a query finds, in its order.

    A run that has not what a condition names is not among them. Raises `UsageError` for a condition that is none, for
    a name that no run has, and for what is no time.
    """
    if query.status and query.status.lower() not in _OWN_WORDS:
        known = ", ".join(f"`{status}`" for status in STATUSES)
        raise UsageError(f"`{query.status}` is no status", hint=did_you_mean(query.status, STATUSES, f"one of {known}"))
    found = list(runs) if query.experiments else project_runs(runs)
    since, until = (_moment(text, moment) if text else None for text in (query.since, query.until))
    kept = [run for run in found if _fits(run, query) and _began_between(run, since, until)]
    if query.where or query.sort not in ("", "started"):
        from runnable_ci.analysis.history.conditions import by_value, holding  # most listings have no condition

        kept = holding(query.where, kept, found)
        kept = by_value(query.sort, kept, found) if query.sort not in ("", "started") else kept
    if query.reverse:
        kept.reverse()
    return kept if query.limit is None else kept[max(0, len(kept) - query.limit) :]


def left_out(runs: Sequence[Summary], query: Query) -> str:
    """Return what is to be said of the experiments that a query leaves out whatever else it asks; empty for none."""
    count = 0 if query.experiments else len(runs) - len(project_runs(runs))
    them = "it" if count == 1 else "them"
    return f"{pluralize(count, 'experiment')} left out; with --experiments {them} too" if count else ""


def _fits(run: Summary, query: Query) -> bool:
    status = _OWN_WORDS.get(query.status.lower(), "")
    return (
        status in ("", run.status)
        and query.branch in ("", run.ref)
        and run.commit.startswith(query.commit)
        and query.tag in ("", run.tag)
        and query.pipeline in ("", run.name)
    )


def _began_between(run: Summary, since: datetime | None, until: datetime | None) -> bool:
    if since is None and until is None:
        return True
    began = _time(run.start_time)
    return (since is None or began >= since) and (until is None or began <= until)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(text: str, moment: datetime) -> datetime:
    """Return a moment of a date, a time, or an age. Raises `UsageError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    from runnable_ci.runs.retention import before  # few listings are by age

    try:
        return before(moment, text, "")
    except UsageError:
        raise UsageError(f"`{text}` is no time", hint="such as 2026-11-01, 2026-11-01T12:00, 30m, 12h or 8w") from None
