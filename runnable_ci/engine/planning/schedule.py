"""Which steps may begin: those of which all needs are settled, in the order of the pipeline, and those that are tried
again. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from runnable_ci.pipeline.keys.tables import Attempts
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import StepAttempt
from runnable_ci.util.text import format_duration

_SIGNALS = 128
"""A shell adds the signal that ended a command to this."""


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

    def begin(self, step: str, position: tuple[int, ...]) -> None:
        """Let a step begin that waited for nothing but the time."""
        heapq.heappush(self._ready, (position, step))

    def next(self) -> str:
        """Return the step that begins next, and take it out."""
        return heapq.heappop(self._ready)[1]

    def __bool__(self) -> bool:
        """Whether a step may begin."""
        return bool(self._ready)


@dataclass(slots=True, eq=False, repr=False)
class Tries:
    """The tries of steps in one invocation; times are those of one clock, in seconds."""

    _made: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, float] = field(default_factory=dict)
    """Step → when it is tried again."""

    def again(self, step: Step, failed: StepAttempt, now_s: float) -> str:
        """Let a step whose attempt failed wait for another; return what to say of that, empty where there is none."""
        made = self._made[step.name] = self._made.get(step.name, 0) + 1
        if made >= step.attempts.most or not is_retried(failed, step.attempts):
            return ""
        self._waiting[step.name] = now_s + step.attempts.wait_s
        wait_s = step.attempts.wait_s
        when = f" in {wait_s:g} s" if wait_s < 60 else f" in {format_duration(wait_s)}"
        when = when if wait_s else ""
        return f"trying again{when} ({made + 1} of {step.attempts.most})"

    def number(self, step: str) -> int:
        """Return which try of a step is next, counted from 1."""
        return self._made.get(step, 0) + 1

    def due(self, now_s: float) -> Iterator[str]:
        """Yield the steps that are to begin another try; they wait no more."""
        for step in [step for step, at in self._waiting.items() if at <= now_s]:
            del self._waiting[step]
            yield step

    def dropped(self) -> Iterator[str]:
        """Yield the steps that wait, which do so no more."""
        while self._waiting:
            yield self._waiting.popitem()[0]

    def wait_s(self, now_s: float, *, at_most: float) -> float:
        """Return how long it is until the first of them is due."""
        return max(0.0, min([at_most, *(at - now_s for at in self._waiting.values())]))

    def __contains__(self, step: str) -> bool:
        return step in self._waiting

    def __bool__(self) -> bool:
        """Whether any step waits."""
        return bool(self._waiting)


def is_retried(failed: StepAttempt, attempts: Attempts) -> bool:
    """Return whether an attempt ended in a way after which there is another."""
    if failed.outcome == "cancelled":
        return False
    if attempts.on is None:
        return True
    ends: list[str | int] = ["timeout"] if failed.outcome == "timed_out" else []
    if failed.outcome == "interrupted":  # elsewhere, and nobody there saw its end
        ends.append("lost")
    if failed.outcome == "failed" and failed.exit_code is not None:
        is_lost = failed.exit_code < 0
        ends += ["lost", _SIGNALS - failed.exit_code] if is_lost else [failed.exit_code]
    return any(end in attempts.on for end in ends)
