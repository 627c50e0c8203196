"""Steps that may run at the same time and put the same file: nobody could say whose it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from runnable_ci.pipeline.branches.put_patterns import put_patterns
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import can_overlap, literal_prefix


class Overlap(NamedTuple):
    """Two steps, and a glob of each that can match one path."""

    step: str
    pattern: str
    other_step: str
    other_pattern: str


def check_puts(pipeline: Pipeline, outlined: Pipeline) -> None:
    """Raise where two steps put the same file and neither comes after the other: the result would be random."""
    steps = outlined.steps
    found = find_overlap({name: steps[name].needs for name in steps}, put_patterns(pipeline.steps, steps))
    if found:
        one, other = steps[found.step], steps[found.other_step]
        raise pipeline.error(
            other,
            f"put: `{found.other_pattern}` can match the same file as `{found.pattern}` of step `{one.shown}`, which "
            "may run at the same time",
            f"write to folders of their own, or let `{other.shown}` need `{one.shown}`",
            table="catalog",
            key="put",
        )


def find_overlap(needs: Mapping[str, Sequence[str]], puts: Mapping[str, Sequence[str]]) -> Overlap | None:
    """Return an overlap of two steps' `puts` of which neither `needs` the other, directly or not.

    `needs` has each step after those that it needs.
    """
    if sum(map(bool, puts.values())) < 2:
        return None
    names = list(needs)
    places = {name: place for place, name in enumerate(names)}
    above = _ancestors(needs, places)
    patterns = [(places[name], pattern) for name, patterns in puts.items() for pattern in patterns]
    for (first, one), (second, other) in map(sorted, _same_prefix(patterns)):
        if first != second and not above[second] >> first & 1 and can_overlap(one, other):
            return Overlap(names[first], one, names[second], other)
    return None


def _ancestors(needs: Mapping[str, Sequence[str]], places: Mapping[str, int]) -> list[int]:
    """Return a number for each step that has the bit of each step above it: a long chain costs one operation a step."""
    found: list[int] = []
    for step in needs.values():
        bits = 0
        for place in map(places.__getitem__, step):
            bits |= found[place] | 1 << place
        found.append(bits)
    return found


def _same_prefix(patterns: Sequence[tuple[int, str]]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield the pairs of patterns of which one's literal prefix begins with the other's: no others can overlap."""
    shorter: list[tuple[str, tuple[int, str]]] = []
    for prefix, item in sorted((literal_prefix(item[1]), item) for item in patterns):
        # In this order all that begins with a prefix follows it at once: a stack holds those that may still be one.
        while shorter and not prefix.startswith(shorter[-1][0]):
            shorter.pop()
        yield from ((other, item) for _, other in shorter)
        shorter.append((prefix, item))
