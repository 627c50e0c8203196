"""Which culprits make a step vary: runs in which some are held, until it is the same each time. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from runnable_ci.analysis.reproduction.determinism.culprits import MOMENT, OTHER_MOMENT, Culprit

Held = frozenset[Culprit]
Try = Callable[[Held, int], str]
"""Make a run with these held in the step, a held clock from a moment on (s since 1970); what it gave.

Empty where it did not end as it does without.
"""
SURE: Final = 5
"""How often a held run is the same at least, before that counts: results that are few come out the same by chance."""
BY_CHANCE: Final = 1 / 128
"""How likely so many runs may be the same by chance, as often as the free runs gave the same."""
STEP_RUNS_MAX: Final = 80
ALL_RUNS_MAX: Final = 240
"""Runs that are made to prove what makes one step, and all steps of a run, vary."""


@dataclass(slots=True)
class RunsLeft:
    """How many runs may still be made, for all steps together."""

    number: int = ALL_RUNS_MAX


class _NoRunLeftError(Exception):
    """As many runs were made as are made at most."""


@dataclass(slots=True)
class CulpritProof:
    """What the held runs say about one step."""

    make: Try
    times: int
    """How often it has to be the same."""
    left: RunsLeft = field(default_factory=RunsLeft)
    refuted: list[Culprit] = field(default_factory=list)
    runs: int = 0
    cut_short: str = ""
    """Why it was not tried further."""

    def find(
        self, suspects: Sequence[Culprit], others: Sequence[Culprit], *, varies_above: bool = False
    ) -> Held | None:
        """Return what has to be held for the same result each time, and nothing that need not be.

        None where nothing that can be held does it, or it was not tried to the end; empty where the step has no cause
        of its own: with what is held in the steps before it, as `varies_above` says, it is the same. `suspects` are
        those that something speaks for, the likeliest first.
        """
        if self.times > STEP_RUNS_MAX:
            self.cut_short = f"it varies too rarely: {self.times:,} runs would be needed"
            return None
        try:
            if varies_above and self._same(frozenset()):
                return frozenset()
            found = self._smallest_of(suspects, others)
            return self._with_clock(found, [*suspects, *others]) if found else None
        except _NoRunLeftError:
            self.cut_short = f"{self.runs} runs were made with something held, and no more are made"
            return None

    def _smallest_of(self, suspects: Sequence[Culprit], others: Sequence[Culprit]) -> Held | None:
        for one in suspects:
            if self._same(frozenset([one])):
                return frozenset([one])
            self.refuted.append(one)
        if len(suspects) > 1 and self._same(frozenset(suspects)):
            return self._smallest(suspects)
        everything = [*suspects, *others]
        if not self._same(frozenset(everything)):
            return None
        for one in others:
            if self._same(frozenset([one])):
                return frozenset([one])
            self.refuted.append(one)
        return self._smallest(everything)

    def _smallest(self, held: Collection[Culprit]) -> Held:
        """Leave out some, the least likely first, as long as it stays the same: first half of them, one in the end."""
        needed = list(held)
        size = len(needed) // 2
        while size:
            for end in range(len(needed), 0, -size):
                rest = [*needed[: max(0, end - size)], *needed[end:]]
                if len(rest) > 1 and self._same(frozenset(rest)):
                    needed = rest
            size //= 2
        return frozenset(needed)

    def _with_clock(self, found: Held, holdable: Collection[Culprit]) -> Held:
        """Return what has to be held with the clock, where the step gives something else at another moment.

        A time stamp of minutes or days is the same in runs that follow each other, so these do not show it. Both runs
        have the clock held, since that changes more than the time: where objects lie in memory, for one.
        """
        if "time" in found or "time" not in holdable or not found:
            return found
        timed = found | frozenset[Culprit](["time"])
        now, then = (self._made(timed, moment) for moment in (MOMENT, OTHER_MOMENT))
        is_other = bool(now and then) and now != then
        return timed if is_other and self._same(timed) else found

    def _same(self, held: Held) -> bool:
        first = ""
        for at in range(self.times):
            found = self._made(held)
            if not found or (at and found != first):
                return False
            first = found
        return True

    def _made(self, held: Held, moment: int = MOMENT) -> str:
        if self.runs >= STEP_RUNS_MAX or self.left.number <= 0:
            raise _NoRunLeftError
        self.runs += 1
        self.left.number -= 1
        return self.make(held, moment)


def times_needed(results: Mapping[str, int]) -> int:
    """Return how often a held run has to be the same, by how often the free runs gave each result.

    What comes out the same in nine of ten runs needs more of them than what is another each time.
    """
    total = sum(results.values())
    most = max(results.values(), default=0)
    if most == total:  # what differs is nothing that is compared here, and would be the same whatever is held
        return STEP_RUNS_MAX + 1
    return max(SURE, math.ceil(math.log(BY_CHANCE) / math.log(most / total)))
