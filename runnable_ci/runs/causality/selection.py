"""Which attempt at each step counts where invocations had not seen each other: finished work is kept. Pure.

Of the attempts that no other one followed, a success counts before any failure. Of several successes one is chosen so
that as much as possible of what was made from them stays: each finished step speaks for the attempts that it was made
from, the longest line of steps first. The best choice of all would be a search among all combinations; this one is
wrong only where lines cross, and then costs a step more than the best.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from runnable_ci.runs.causality.ancestry import Ancestry
from runnable_ci.runs.model import PROCESSING, SUCCESS, Invocation, StepAttempt

WORK_MAX: Final = 10_000_000
"""Comparisons, some seconds of them; a log that would need more was made to, and less is kept of what it finished."""


class Try(NamedTuple):
    """An attempt, with its own files, and the digest of the invocation that made it."""

    by: str
    attempt: StepAttempt


class _Line(NamedTuple):
    """A finished step, and which attempts would keep it so."""

    rank: tuple[bool, bool, int, int, str]
    fits: Mapping[str, frozenset[int]]
    """Step → those of its candidates from which the step was made, or that gave the same."""


@dataclass(slots=True, eq=False, repr=False)
class Selection:
    """The attempts that count."""

    tries: Mapping[str, Sequence[Try]]
    """Step → its attempts, in the order of the invocations."""
    invocations: Mapping[str, Invocation]
    """By their digests, the last one at the end."""
    ancestry: Ancestry
    _candidates: dict[str, list[int]] = field(init=False)
    _places: dict[str, int] = field(init=False)
    _given: dict[tuple[str, int], str] = field(default_factory=dict)
    _fits: dict[tuple[str, str], frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._candidates = {step: self._newest(tries) for step, tries in self.tries.items()}
        self._places = {digest: i for i, digest in enumerate(self.invocations)}

    def chosen(self) -> dict[str, int]:
        """Return step → the place of the attempt that counts, among its attempts."""
        open_steps = {step for step, found in self._candidates.items() if len(found) > 1}
        allowed = {step: frozenset(found) for step, found in self._candidates.items()}
        for line in sorted(self._lines(open_steps), key=lambda line: line.rank, reverse=True):
            if all(allowed[step] & fits for step, fits in line.fits.items()):
                allowed |= {step: allowed[step] & fits for step, fits in line.fits.items()}
        return {step: max(found) for step, found in allowed.items() if found}

    def _newest(self, tries: Sequence[Try], among: str = "") -> list[int]:
        """Return the successes that no attempt followed, else the attempt that comes nearest to one.

        With `among` those that an invocation had seen or made.
        """
        places = [i for i, one in enumerate(tries) if not among or self.ancestry.had_seen(among, one.by)]
        last = {tries[i].by: i for i in places}
        newest = self.ancestry.newest(last)
        kept = [i for digest, i in last.items() if digest in newest]
        successes = [i for i in kept if tries[i].attempt.status == SUCCESS]
        return successes or sorted(kept, key=lambda i: (completeness(tries[i].attempt), i))[-1:]

    def _lines(self, open_steps: set[str]) -> Iterator[_Line]:
        """Yield, for each finished step whose result hangs on what is chosen, what it speaks for."""
        if not open_steps:
            return
        current = [*self.invocations.values()][-1].parameters if self.invocations else {}
        direct = {step: self._needs(step) for step in self.tries}
        left = WORK_MAX
        for step, needs in sorted(direct.items()):
            above = _reached(step, direct)
            left -= len(above)
            if left < 0:
                return
            if open_steps.isdisjoint({step, *above}):
                continue
            for i in self._candidates[step]:
                made = self.tries[step][i]
                if made.attempt.status != SUCCESS:
                    continue
                left -= len(self.invocations)
                for digest in self._speakers(step, made.by):
                    left -= len(above)
                    if left < 0:
                        return
                    is_current = self.invocations[digest].parameters == current
                    # What it needs directly may be the same though what that was made from is another.
                    for is_whole, of in ((True, above), (False, needs)):
                        fits = {need: self._fitting(need, digest) for need in of} | {step: frozenset([i])}
                        yield _Line((is_whole, is_current, len(above), self._places[digest], step), fits)

    def _speakers(self, step: str, by: str) -> Iterator[str]:
        """Yield the invocation that made an attempt at a step, and those that found nothing changed and reused it."""
        for digest, invocation in self.invocations.items():
            decision = invocation.decisions.get(step)
            if digest == by or (decision and decision.action == "reuse" and by in self._had(step, digest)):
                yield digest

    def _had(self, step: str, digest: str) -> set[str]:
        """Return who made the attempt at a step that an invocation had, as far as is known."""
        decision = self.invocations[digest].decisions.get(step)
        if decision is not None and decision.reused_from:
            return {decision.reused_from}
        return {self.tries[step][i].by for i in self._newest(self.tries[step], digest)}

    def _fitting(self, step: str, digest: str) -> frozenset[int]:
        """Return the candidates of a step that gave what an invocation had of it."""
        if (step, digest) not in self._fits:
            had = self._had(step, digest)
            given = {self._gave(step, i) for i, one in enumerate(self.tries[step]) if one.by in had}
            self._fits[step, digest] = frozenset(i for i in self._candidates[step] if self._gave(step, i) in given)
        return self._fits[step, digest]

    def _gave(self, step: str, place: int) -> str:
        """Return a text for all that an attempt gives to later steps, the same for the same contents."""
        if (step, place) not in self._given:
            attempt = self.tries[step][place].attempt
            returned = attempt.output_parameters | attempt.user_defined_metrics
            given = [
                sorted((e.name, e.kind, e.data_hash, e.target) for e in attempt.data_catalog if e.stage == "put"),
                {name: (one.kind, one.data_hash or one.value) for name, one in returned.items()},
                attempt.made,
                attempt.status,
            ]
            self._given[step, place] = json.dumps(given, sort_keys=True)
        return self._given[step, place]

    def _needs(self, step: str) -> set[str]:
        """Return what a step needs, as its candidates were defined."""
        defined = (self.tries[step][i].attempt.definition.get("needs") for i in self._candidates[step])
        found = (need for needs in defined if isinstance(needs, list) for need in needs)
        return {need for need in found if isinstance(need, str) and need in self.tries}


def completeness(of: StepAttempt | Invocation) -> int:
    """Return how much is known of the end: nothing yet, that its process was gone, or the end itself."""
    if of.status == PROCESSING:
        return 0
    return 1 if of.interrupted else 2


def _reached(step: str, needs: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [*needs[step]]
    while waiting:
        if (need := waiting.pop()) not in found:
            found.add(need)
            waiting.extend(needs[need])
    return found - {step}
