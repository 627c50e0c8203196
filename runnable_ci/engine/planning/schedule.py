"""Which steps may begin: those of which all needs are settled, in the order of the pipeline. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from runnable_ci.pipeline.step import Step


def begun(step: str) -> str:
    """Return what is settled once the branches of a step are known."""
    return f"{step}/begun"


def first_needs(step: Step) -> tuple[str, ...]:
    """Return what must be settled before a step, or the first of its branches, begins."""
    if step.branching is None or not step.branching.follows:
        return step.needs
    return tuple(begun(need) if need in step.branching.follows else need for need in step.needs)


@dataclass(slots=True, eq=False, repr=False)
class Schedule:
    """Steps that wait for others, and steps that may begin; more may be added at any moment."""

    _waiting: dict[str, int] = field(default_factory=dict)
    """Step → how many of its needs are not settled."""
    _followers: dict[str, list[tuple[tuple[int, ...], str]]] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set)
    _ready: list[tuple[tuple[int, ...], str]] = field(default_factory=list)
    _held: dict[str, Iterator[Sequence[tuple[str, tuple[str, ...], tuple[int, ...]]]]] = field(default_factory=dict)
    """Step → its branches that are to begin once one of the others has ended."""
    _left: dict[str, int] = field(default_factory=dict)
    """`STEP.BRANCH` → how many of its steps are not settled; counted where branches are held back."""

    def add(self, step: str, needs: Iterable[str], position: tuple[int, ...]) -> None:
        """Add a step; `needs` may be added later than it."""
        open_needs = {need for need in needs if need not in self._settled}
        for need in open_needs:
            self._followers.setdefault(need, []).append((position, step))
        if open_needs:
            self._waiting[step] = len(open_needs)
        else:
            heapq.heappush(self._ready, (position, step))

    def add_branches(
        self, step: str, branches: Iterable[Sequence[tuple[str, tuple[str, ...], tuple[int, ...]]]], most: int | None
    ) -> None:
        """Add the steps of branches, each with its needs and its position; at `most` so many branches at a time."""
        waiting = iter(branches)
        for _ in range(most or 0):
            self._begin_branch(waiting, counted=True)
        if most is None:
            while self._begin_branch(waiting, counted=False):
                pass
        else:
            self._held[step] = waiting

    def _begin_branch(
        self, branches: Iterator[Sequence[tuple[str, tuple[str, ...], tuple[int, ...]]]], *, counted: bool
    ) -> bool:
        steps = next(branches, None)
        if steps is None:
            return False
        if counted:
            self._left[steps[0][0].rpartition(".")[0]] = len(steps)
        for name, needs, position in steps:
            self.add(name, needs, position)
        return True

    def settle(self, step: str) -> None:
        """Let begin what waited for this step alone."""
        self._settled.add(step)
        for position, follower in self._followers.pop(step, ()):
            self._waiting[follower] -= 1
            if not self._waiting[follower]:
                del self._waiting[follower]
                heapq.heappush(self._ready, (position, follower))
        branch = step.rpartition(".")[0]
        if branch in self._left:
            self._left[branch] -= 1
            if not self._left[branch]:
                del self._left[branch]
                self._begin_branch(self._held[branch.rpartition(".")[0]], counted=True)

    def next(self) -> str:
        """Return the step that begins next, and take it out."""
        return heapq.heappop(self._ready)[1]

    def __bool__(self) -> bool:
        """Whether a step may begin."""
        return bool(self._ready)
