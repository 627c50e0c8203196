"""What results of other runs saved a run. Pure."""

from __future__ import annotations

from typing import NamedTuple

from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import format_duration, pluralize, seconds_between


class Saved(NamedTuple):
    """The steps that an invocation did not run since other runs had their results."""

    steps: int = 0
    seconds: float = 0.0
    """How long they took there."""
    places: tuple[str, ...] = ()
    """Where these runs were found: branches, or runs of this store."""

    def __str__(self) -> str:
        return f"{self.steps} reused from {places_named(self.places)}, saved {format_duration(self.seconds)}"


def saved(log: RunLog) -> Saved:
    """Return what results of other runs saved the newest invocation of a run."""
    taken = {name: it for name, it in decisions_of(log).items() if it.taken_from and name in log.steps}
    lasts = [log.steps[name].attempts[-1] for name in taken]
    seconds = sum(seconds_between(last.start_time, last.end_time) or 0.0 for last in lasts)
    places = dict.fromkeys(it.taken_branch or f"run {it.taken_from.partition('/')[0]}" for it in taken.values())
    return Saved(len(taken), seconds, tuple(places))


def places_named(places: tuple[str, ...]) -> str:
    """Return where results were found, in few words."""
    return places[0] if len(places) == 1 else pluralize(len(places), "run")
