"""The end of a time budget. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from runnable_ci.util.text import duration_s

BUDGET_LEAST_S: Final = 5.0
"""To end a run takes some of it."""
_YEAR_S: Final = 366 * 86400.0


class TimeLimit(NamedTuple):
    """When a run is to be over: so long after its command began, or at a moment."""

    text: str
    """As it was written."""
    length_s: float = 0.0
    until: datetime | None = None

    def __str__(self) -> str:
        """Return it as it follows a noun."""
        return f"{'until' if self.until else 'of'} {self.text}"


def parse_budget(text: str) -> TimeLimit:
    """Return the limit of a `time-budget`, which is a length of time. Raises `ValueError`."""
    length_s = duration_s(text)
    if not length_s:
        raise ValueError("must be such as `90m` or `5h30m`")
    if not BUDGET_LEAST_S <= length_s <= _YEAR_S:
        raise ValueError(f"must be from {BUDGET_LEAST_S:.0f}s, some of which it takes to end a run, to 366d")
    return TimeLimit(text, length_s)


def parse_budget_or_moment(text: str) -> TimeLimit:
    """Return the limit of a `time-budget`, or of a moment (ISO 8601 with its offset). Raises `ValueError`."""
    if "T" not in text:
        return parse_budget(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise ValueError("must be a length such as `5h30m`, or a moment such as `2026-11-27T10:00:00Z`") from e
    if moment.tzinfo is None:
        raise ValueError("has no offset: write a moment in UTC, such as `2026-11-27T10:00:00Z`")
    return TimeLimit(text, until=moment)
