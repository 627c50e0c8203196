"""Which invocations of a run had seen which: what was recorded tells that, and no clock. Pure.

Source: Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978 (happened before).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from runnable_ci.errors import RunLogError
from runnable_ci.runs.model import DecisionRecord, Invocation, RunLog
from runnable_ci.runs.run_identity import heads, invocation_digest, with_parents

INVOCATIONS_MAX: Final = 10_000
"""A bit for each pair of them is kept."""


class Ancestry:
    """The causal order of invocations, by their digests.

    Where logs of earlier versions contradict each other, as their order was that of clocks, invocations are parents of
    each other in a circle: then the first one by its digest had not seen the others.
    """

    def __init__(self, parents: Mapping[str, Iterable[str]]) -> None:
        """Take the digest of each invocation → those of the newest that it had seen; unknown ones do not count."""
        if len(parents) > INVOCATIONS_MAX:
            raise RunLogError(f"the run log has {len(parents):,} invocations, more than {INVOCATIONS_MAX:,}")
        known = {digest: sorted(parent for parent in seen if parent in parents) for digest, seen in parents.items()}
        self._places: dict[str, int] = {}
        self._past: dict[str, int] = {}
        self._parents: dict[str, list[str]] = {}
        for digest in _parents_first(known):
            self._parents[digest] = [parent for parent in known[digest] if parent in self._places]
            past = 0
            for parent in self._parents[digest]:
                past |= self._past[parent] | 1 << self._places[parent]
            self._past[digest] = past
            self._places[digest] = len(self._places)

    @classmethod
    def of(cls, invocations: Iterable[Invocation]) -> Ancestry:
        """Return the order of the invocations of one log. Raises `RunLogError` where these are too many."""
        return cls({invocation_digest(one): one.parents or () for one in with_parents([*invocations])})

    def had_seen(self, digest: str, other: str) -> bool:
        """Return whether an invocation is the other one or had seen it; of unknown ones, which no log names, each."""
        return (
            digest == other or other not in self._places or bool(self._past.get(digest, 0) >> self._places[other] & 1)
        )

    def newest(self, digests: Iterable[str]) -> set[str]:
        """Return those of some invocations that no other one of them had seen."""
        among = set(digests)
        seen = 0
        for digest in among:
            seen |= self._past.get(digest, 0)
        known = {digest for digest in among if digest in self._places}
        return {digest for digest in known if not seen >> self._places[digest] & 1} or among

    def ordered(self, finished: Mapping[str, int]) -> list[str]:
        """Return all invocations, each after those that it had seen; `finished`: how many steps each has finished.

        Of those that had not seen each other the one with more finished work in its past comes later, then the one
        with the longer past. Neither ever gets less as more is done or known of it, so that the last one of a
        merge is the last one of some log in it.
        """
        weights: dict[str, int] = {}
        for digest in self._places:
            parents = self._parents[digest]
            if len(parents) == 1:
                before = weights[parents[0]]
            else:
                bits = reversed(bin(self._past[digest])[2:])
                before = sum(finished.get(one, 0) for one, bit in zip(self._places, bits, strict=False) if bit == "1")
            weights[digest] = before + finished.get(digest, 0)
        return sorted(weights, key=lambda digest: (weights[digest], self._past[digest].bit_count(), digest))


def decisions_of(log: RunLog) -> Mapping[str, DecisionRecord]:
    """Return what the newest invocation did with each step; where several had not seen each other, one of them.

    That is one which had seen the attempt that counts, and did something with the step rather than to skip it.
    """
    if len(log.invocations) < 2 or len(heads(log.invocations)) < 2:
        return log.invocations[-1].decisions if log.invocations else {}
    by_digest = {invocation_digest(invocation): invocation for invocation in log.invocations}
    numbers = {invocation.number: digest for digest, invocation in by_digest.items()}
    ancestry = Ancestry.of(log.invocations)
    last = ancestry.newest(by_digest)
    newest = [digest for digest in reversed(by_digest) if digest in last]
    found: dict[str, DecisionRecord] = {}
    for name in dict.fromkeys(name for digest in newest for name in by_digest[digest].decisions):
        step = log.steps.get(name)
        made = numbers.get(step.attempts[-1].invocation, "") if step and step.attempts else ""
        said = [
            ((ancestry.had_seen(digest, made), decision.action != "skip"), decision)
            for digest in newest
            if (decision := by_digest[digest].decisions.get(name)) is not None
        ]
        found[name] = max(said, key=lambda item: item[0])[1]
    return found


def _parents_first(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """Return all digests, each after its parents; not recursive, since a chain of them may be long."""
    order: dict[str, None] = {}
    entered: set[str] = set()
    for digest in sorted(parents):
        stack = [digest]
        while stack:
            entered.add(stack[-1])
            if waiting := [parent for parent in parents[stack[-1]] if parent not in entered]:
                stack.extend(waiting)
            else:
                order[stack.pop()] = None
    return [*order]
