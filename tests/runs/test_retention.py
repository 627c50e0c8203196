"""Which runs may go: by number, by age, by both."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runnable_ci.errors import UsageError
from runnable_ci.runs.retention import age, outdated

MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)
RUNS = [
    ("old", "2026-10-01T00:00:00+00:00"),
    ("week", "2026-11-16T12:00:00+00:00"),
    ("naive", "2026-11-22T12:00:00"),
    ("odd", "yesterday"),
    ("new", "2026-11-24T11:00:00+00:00"),
]


@pytest.mark.parametrize(
    ("keep", "older_than", "going"),
    [
        (None, None, []),
        (0, None, ["old", "week", "naive", "odd", "new"]),
        (2, None, ["old", "week", "naive"]),
        (9, None, []),
        (None, "1w", ["old", "week"]),
        (None, "8d", ["old"]),
        (None, "24h", ["old", "week", "naive"]),
        (4, "1w", ["old"]),
        (0, "0h", ["old", "week", "naive", "new"]),
    ],
)
def test_what_goes(keep: int | None, older_than: str | None, going: list[str]) -> None:
    """What is neither among the newest nor young goes; a run whose time cannot be read is never old."""
    assert outdated(RUNS, keep=keep, older_than=older_than, moment=MOMENT) == going


@pytest.mark.parametrize("text", ["", "1", "d", "1.5d", "-1d", "1m", "1d ", "999999d"])
def test_no_age(text: str) -> None:
    """Anything but a number of hours, days or weeks is refused, also one that no calendar holds."""
    with pytest.raises(UsageError, match="expected a number of hours, days or weeks"):
        age(text)
