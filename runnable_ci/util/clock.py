"""Times as the run log has them: UTC, ISO 8601, microseconds.

All times of a process are the time of day when it began, and what one clock counted since that nothing sets. So a
duration is right though the time of day was corrected meanwhile, by hand or over the network.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It counts the hours that a laptop sleeps, too."""
_BEGAN: Final = datetime.now(UTC)
_BEGAN_NS: Final = time.clock_gettime_ns(_CLOCK)


def now() -> str:
    """Return the present time."""
    passed = timedelta(microseconds=(time.clock_gettime_ns(_CLOCK) - _BEGAN_NS) // 1000)
    return (_BEGAN + passed).isoformat(timespec="microseconds")


def elapsed_s() -> float:
    """Return how many seconds the process is old."""
    return (time.clock_gettime_ns(_CLOCK) - _BEGAN_NS) / 1e9


def elapsed_at(moment: datetime) -> float:
    """Return how many seconds old the process is at a moment; negative for one before it began."""
    return (moment - _BEGAN).total_seconds()


def format_timestamp(timestamp: float) -> str:
    """Return a time of the file system, in seconds since 1970."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")
