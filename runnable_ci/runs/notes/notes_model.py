"""What people noted of a run, as the run log has it."""

from __future__ import annotations

from runnable_ci.util.bounded_json import Record


class RunNotes(Record):
    """Notes on a run; of several versions of a run the newest notes count."""

    noted: str = ""
    """When they were written, UTC; empty for a run without any."""
    by: str = ""
    tag: str | None = None
    """The run's label, in place of that with which it began; None where it was not changed."""
    description: str = ""
    pinned: bool = False
    """`gc` and `prune` keep the run."""
