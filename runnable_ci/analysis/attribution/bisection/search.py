"""Which commit is tried next, and what the tried ones leave. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class CommitSearch:
    """Halves the commits that may be the first bad one, as `git bisect` does: in a history with merges too.

    A commit is a bit of an integer, so that "its ancestors among those left" is one operation.
    """

    commits: Sequence[str]
    """Those that the bad one has and the good one has not, each after its parents; the last one is bad."""
    parents: Mapping[str, Sequence[str]]
    _above: list[int] = field(default_factory=list)
    """Of each commit itself and its ancestors."""
    _left: int = 0
    _bad: int = 0
    _skipped: int = 0

    def __post_init__(self) -> None:
        """Know the ancestors of each commit."""
        places = {commit: place for place, commit in enumerate(self.commits)}
        for place, commit in enumerate(self.commits):
            found = 1 << place
            for parent in self.parents.get(commit, ()):
                if parent in places:
                    found |= self._above[places[parent]]
            self._above.append(found)
        self._bad = len(self.commits) - 1
        self._left = self._above[self._bad] if self.commits else 0

    @property
    def left(self) -> list[str]:
        """The commits that may be the first bad one, each after its parents."""
        return [self.commits[place] for place in _places(self._left)]

    @property
    def first_bad(self) -> str:
        """The commit that is found; empty while several may be."""
        return self.commits[self._bad] if self._left == 1 << self._bad else ""

    def next(self) -> str:
        """Return the commit to try; empty where nothing is left to try.

        Near commits often fail alike: after each one that was skipped another part of the history is tried.
        """
        place = _chosen(self._above, self._left, self._bad, self._skipped)
        return "" if place is None else self.commits[place]

    def good(self, commit: str) -> None:
        """Note that the condition does not hold for a commit, and so for none of its ancestors."""
        self._left &= ~self._above[self.commits.index(commit)]

    def bad(self, commit: str) -> None:
        """Note that the condition holds for a commit."""
        self._bad = self.commits.index(commit)
        self._left &= self._above[self._bad]

    def skip(self, commit: str) -> None:
        """Note that a commit cannot be tried."""
        self._skipped |= 1 << self.commits.index(commit)

    def most(self) -> int:
        """Return how many commits are still tried at most, where each of the others can be."""
        return _most(self._above, self._left, self._bad, self._skipped, {})


def _most(above: Sequence[int], left: int, bad: int, skipped: int, known: dict[tuple[int, int], int]) -> int:
    if (left, bad) not in known:
        place = _chosen(above, left, bad, skipped)
        if place is None:
            return 0
        if_bad = _most(above, left & above[place], place, skipped, known)
        known[left, bad] = 1 + max(if_bad, _most(above, left & ~above[place], bad, skipped, known))
    return known[left, bad]


def _chosen(above: Sequence[int], left: int, bad: int, skipped: int) -> int | None:
    """Return the commit whose ancestors are nearest to half of those left; to another part after skipped ones."""
    count = left.bit_count()
    part = _part((left & skipped).bit_count())
    best: tuple[float, int] | None = None
    for place in _places(left & ~skipped & ~(1 << bad)):
        distance = abs((above[place] & left).bit_count() - part * count)
        if best is None or distance < best[0]:
            best = distance, place
    return None if best is None else best[1]


def _part(number: int) -> float:
    """Return 1/2, 1/4, 3/4, 1/8, 5/8, 3/8, 7/8 …: parts that lie far from those before."""
    found, scale, number = 0.0, 0.5, number + 1
    while number:
        number, bit = divmod(number, 2)
        found += scale * bit
        scale /= 2
    return found


def _places(bits: int) -> list[int]:
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found
