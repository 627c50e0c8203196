"""What a person, or a job, says of results of other runs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from runnable_ci.runs.remote.writers import AcceptedWriters

NEVER = "never"


class ReuseOptions(NamedTuple):
    """Whose results may take the place of steps; by default what the pipeline file says."""

    said: str | None = None
    """`never`, or the run or the branch whose results are reused."""
    branches: tuple[str, ...] | None = None
    """Whose runs are looked at in the registry, of a job; None: the branch that is checked out, and the default one."""
    accepted: AcceptedWriters | None = None
    """Whose results are used of what a registry holds; None: everybody's."""
    unasked: str = ""
    """Why nothing is reused unless a person says so, such as `schedule`; empty where it may be."""
