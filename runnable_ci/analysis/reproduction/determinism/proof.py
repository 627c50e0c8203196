"""Which culprit makes a step vary: runs in which one thing is held, until it is the same each time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from runnable_ci.analysis.reproduction.determinism.culprits import Culprit

Held = frozenset[Culprit]
Try = Callable[[Held], str]
"""Make a run with these held; what the step gave, empty where it did not end as it does without."""
SURE: Final = 5
"""How often a held run is the same at least, before that counts: results that are few come out the same by chance."""
SURE_OF_FEW: Final = 8
"""Where the free runs gave one result twice, or there were but two of them: with two results by chance 1 in 128."""


@dataclass(slots=True)
class CulpritProof:
    """What the held runs say about one step."""

    make: Try
    times: int
    """How often it has to be the same."""
    refuted: list[Culprit] = field(default_factory=list)
    runs: int = 0

    def find(self, suspects: Sequence[Culprit], others: Sequence[Culprit]) -> Held | None:
        """Return what has to be held for the same result each time; None where nothing that can be held does it.

        `suspects` are those that something speaks for, the likeliest first.
        """
        for one in suspects:
            if self._is_same(frozenset([one])):
                return frozenset([one])
            self.refuted.append(one)
        if len(suspects) > 1 and self._is_same(frozenset(suspects)):
            return self._smallest(suspects)
        everything = [*suspects, *others]
        if not self._is_same(frozenset(everything)):
            return None
        for one in others:
            if self._is_same(frozenset([one])):
                return frozenset([one])
            self.refuted.append(one)
        return self._smallest(everything)

    def _smallest(self, held: Collection[Culprit]) -> Held:
        """Leave out one after the other, the least likely first, as long as it stays the same."""
        needed = list(held)
        for one in reversed(list(held)):
            rest = [name for name in needed if name != one]
            if len(rest) > 1 and self._is_same(frozenset(rest)):
                needed = rest
        return frozenset(needed)

    def _is_same(self, held: Held) -> bool:
        first = ""
        for at in range(self.times):
            self.runs += 1
            found = self.make(held)
            if not found or (at and found != first):
                return False
            first = found
        return True


def times_needed(times: int, distinct: int) -> int:
    """Return how often a held run has to be the same, where `times` free ones gave so many distinct results."""
    return max(times, SURE if distinct == times and times > 2 else SURE_OF_FEW)
