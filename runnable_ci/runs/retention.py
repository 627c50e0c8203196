"""Which runs may go, by their number and their age. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from runnable_ci.errors import UsageError

_AGE = re.compile(r"(\d{1,5})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def outdated(
    runs: Sequence[tuple[str, str]], *, keep: int | None, older_than: str | None, moment: datetime
) -> list[str]:
    """Return the runs (id and time of the end, the newest last) that are neither among the `keep` newest nor young.

    Young is what ended less than `older_than` (`12h`, `30d`, `8w`) before `moment`. Without either, none.
    """
    oldest = None if older_than is None else moment - age(older_than)
    if keep is None and oldest is None:
        return []
    candidates = runs[: max(0, len(runs) - (keep or 0))]
    return [run_id for run_id, ended in candidates if oldest is None or _time(ended, otherwise=moment) < oldest]


def age(text: str) -> timedelta:
    """Return a number of hours, days or weeks. Raises `UsageError`."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise UsageError(f"--older-than {text}: expected a number of hours, days or weeks such as 12h, 30d or 8w")
    return int(match[1]) * _UNITS[match[2]]


def _time(text: str, *, otherwise: datetime) -> datetime:
    """Return a time of a run log; one that cannot be read counts as now, so that its run stays."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=UTC)
