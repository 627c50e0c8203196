"""Which runs are put together from two others, and what they say of a metric. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["code", "data", "values", "packages"]
KINDS: Final[tuple[Kind, ...]] = ("code", "data", "values", "packages")
Side = Literal["A", "B"]
Role = Literal["alone", "together", "none", "unknown"]
"""It moves the metric by itself; only, or otherwise, with other kinds; not at all; that could not be seen."""
NEAR: Final = 1e-9
"""Changes below this part of the values are none: the same sum in another order."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A run of which some kinds are taken from the other side."""

    base: Side
    taken: frozenset[Kind] = frozenset()

    @property
    def other(self) -> Side:
        """The side that it takes from."""
        return "B" if self.base == "A" else "A"

    def side(self, kind: Kind) -> Side:
        """Return from which run a kind comes."""
        return self.other if kind in self.taken else self.base

    def label(self, a: str = "A", b: str = "B") -> str:
        """Return what it is, such as `A with the data of B`, with what the runs are called."""
        base, other = (a, b) if self.base == "A" else (b, a)
        return f"{base} with the {in_words(self.taken)} of {other}" if self.taken else f"{base}, made again here"


@dataclass(frozen=True, slots=True)
class Effect:
    """How far one kind moved the metric."""

    kind: Kind
    from_a: float | None
    """In A, with this kind taken from B; None where that run gave no metric."""
    from_b: float | None
    """In B, as against B with this kind taken from A."""
    role: Role


@dataclass(frozen=True, slots=True)
class Attribution:
    """What moved a metric."""

    start: float
    end: float
    effects: Sequence[Effect]
    rest: float
    """What is left once all that differs was taken from the other run: chance, or what is not held."""

    @property
    def moved_by(self) -> list[Kind]:
        """The kinds that moved it, alone or with others."""
        return [one.kind for one in self.effects if one.role in ("alone", "together")]

    @property
    def together(self) -> list[Kind]:
        """Those whose effect depends on the others."""
        return [one.kind for one in self.effects if one.role == "together"]

    @property
    def unknown(self) -> list[Kind]:
        """Those of which it could not be seen."""
        return [one.kind for one in self.effects if one.role == "unknown"]

    @property
    def has_rest(self) -> bool:
        """Whether something that is none of the kinds moved it."""
        return not is_near(self.rest, 0.0, self.start, self.end)


def planned(kinds: Sequence[Kind], *, ends_too: bool) -> list[Hybrid]:
    """Return the runs that are needed to tell the kinds that differ apart.

    Each kind is taken from the other run, in A and in B. With `ends_too` A and B themselves are made again, as what
    was recorded of them does not hold here; else A with all of B shows what is left that is none of the kinds.
    """
    found = [Hybrid("A"), Hybrid("B")] if ends_too else [Hybrid("A", frozenset(kinds))] if kinds else []
    if len(kinds) > 1:
        found += [Hybrid("A", frozenset([kind])) for kind in kinds]
    if len(kinds) > 2:  # with two, B with one kind of A is A with the other one of B
        found += [Hybrid("B", frozenset([kind])) for kind in kinds]
    return found


def attribute(kinds: Sequence[Kind], a: float, b: float, metric: Mapping[Hybrid, float | None]) -> Attribution:
    """Return what the hybrids say; `metric` has what each gave, None where it gave none. `a` and `b` were recorded."""

    def value(hybrid: Hybrid) -> float | None:
        if hybrid in metric:
            return metric[hybrid]
        return metric.get(Hybrid(hybrid.other, frozenset(kinds) - hybrid.taken))

    start = metric.get(Hybrid("A"))
    start = a if start is None else start
    made = metric.get(Hybrid("B"), metric.get(Hybrid("A", frozenset(kinds))))
    end = b if made is None else made
    effects = []
    for kind in kinds:
        if len(kinds) == 1:
            change = None if made is None else end - start
            from_a = from_b = change
        else:
            forth, back = value(Hybrid("A", frozenset([kind]))), value(Hybrid("B", frozenset([kind])))
            from_a = None if forth is None else forth - start
            from_b = None if back is None else end - back
        effects.append(Effect(kind, from_a, from_b, _role(from_a, from_b, start, end)))
    return Attribution(start, end, effects, (b - a) - (end - start) if kinds else b - a)


def _role(from_a: float | None, from_b: float | None, start: float, end: float) -> Role:
    if from_a is None or from_b is None:
        return "unknown"
    if not is_near(from_a, from_b, start, end):
        return "together"
    return "none" if is_near(from_a, 0.0, start, end) else "alone"


def in_words(kinds: Collection[Kind]) -> str:
    """Return kinds as a text, such as `code, data and values`."""
    *first, last = [kind for kind in KINDS if kind in kinds]
    return f"{', '.join(first)} and {last}" if first else last


def is_near(one: float, other: float, *values: float) -> bool:
    """Return whether two changes of a metric of these values are the same."""
    return abs(one - other) <= NEAR * max(map(abs, values), default=0.0)
