"""The branches of a step, as the run log has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runnable_ci.util.bounded_json import Record

BranchKind = Literal["map", "loop", "dag"]
"""Of a step with branches: instances of a matrix, rounds, or the one of another file's steps."""


class BranchRecord(Record):
    """One branch of a step, as the newest invocation had it."""

    name: str
    """Its key: the names of its steps begin with `STEP.NAME.`."""
    label: str = ""
    values: dict[str, Any] = Field(default_factory=dict)
    """Axis → value."""
