"""Times as the run log has them: UTC, ISO 8601, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the present time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def format_timestamp(timestamp: float) -> str:
    """Return a time of the file system, in seconds since 1970."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")
