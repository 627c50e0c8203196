"""What failed, as the page says it first: which step, how, where in the code. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runnable_ci.runs.branches.labels import is_only_branches
from runnable_ci.runs.model import RunLog

FAILURES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class ShownFailure:
    """A step that failed."""

    place: int
    """Which of the page's steps it is."""
    label: str
    message: str
    where: str
    """`FILE:LINE`, where that is known."""
    traceback: str


def failures_of(log: RunLog, labels: Mapping[str, str], places: Mapping[str, int]) -> list[ShownFailure]:
    """Return the steps that failed, in the order of the run; a page shows the first `FAILURES_MAX`."""
    found = []
    for name in log.failed_steps():
        step = log.steps[name]
        if is_only_branches(step) or name not in places:
            continue
        last = step.attempts[-1]
        error = last.exception
        where = f"{error.file}:{error.line}" if error and error.file and error.line else ""
        said = f"{error.type}: {error.message}" if error and error.type else last.message
        found.append(ShownFailure(places[name], labels[name], said, where, error.traceback if error else ""))
    return found
