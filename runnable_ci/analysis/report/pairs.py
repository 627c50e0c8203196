"""A name with a value, as the page lists them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PAIRS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """A name with a value."""

    name: str
    value: str
    note: str = ""


def pairs(facts: Mapping[str, str]) -> list[Pair]:
    """Return the facts that are known."""
    return [Pair(name, value) for name, value in facts.items() if value]


def bounded(found: Sequence[Pair], at_most: int = PAIRS_MAX) -> list[Pair]:
    """Return the first pairs, and how many more there are."""
    more = len(found) - at_most
    return [*found] if more <= 0 else [*found[:at_most], Pair("…", f"{more:,} more")]
