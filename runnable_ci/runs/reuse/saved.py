"""What results of other runs saved a run. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import format_duration, pluralize


class Saved(NamedTuple):
    """The steps that an invocation did not run since other runs had their results."""

    steps: int = 0
    seconds: float = 0.0
    """How long they took there."""
    places: tuple[str, ...] = ()
    """Where these runs were found: branches, or runs of this store."""

    @classmethod
    def of(cls, found: Iterable[tuple[StepAttempt, str]]) -> Saved:
        """Return what attempts at steps took together that were found at these places."""
        pairs = list(found)
        return cls(len(pairs), sum(it.seconds or 0.0 for it, _ in pairs), tuple(dict.fromkeys(at for _, at in pairs)))

    @property
    def where(self) -> str:
        """Where these runs were found, in few words."""
        return self.places[0] if len(self.places) == 1 else pluralize(len(self.places), "run")

    def __str__(self) -> str:
        return f"{self.steps} reused from {self.where}, saved {format_duration(self.seconds)}"


def saved(log: RunLog) -> Saved:
    """Return what results of other runs saved the newest invocation of a run."""
    taken = {name: it for name, it in decisions_of(log).items() if it.taken_from and name in log.steps}
    return Saved.of(
        (log.steps[name].attempts[-1], it.taken_branch or f"run {it.taken_from.partition('/')[0]}")
        for name, it in taken.items()
    )
