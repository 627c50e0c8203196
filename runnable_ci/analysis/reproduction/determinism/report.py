"""What varies from run to run, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from runnable_ci.analysis.reproduction.determinism.culprits import CULPRITS
from runnable_ci.runs.notes.notes_model import Variation
from runnable_ci.util.text import listed, printable

_LISTED_MAX: Final = 6


def lines_of(variations: Mapping[str, Variation], labels: Mapping[str, str]) -> Iterator[str]:
    """Yield what varies and why, as text."""
    for name, one in variations.items():
        label = labels.get(name, name)
        if one.distinct == 1:
            yield f"{label} is the same each time now: {one.not_tried}"
            continue
        yield f"{label} varies, {one.distinct} results: {listed(one.outputs, at_most=_LISTED_MAX)}"
        named = [*_named(one.culprits)] if one.proved else [*_named(it for it in one.culprits if it not in one.refuted)]
        if one.proved:
            yield f"  proved: with {' and '.join(named)} held it is the same {one.held_times} times"
        elif named:
            yield f"  likely: {named[0]}"
            if named[1:]:
                yield f"  less likely: {'; '.join(named[1:_LISTED_MAX])}"
        elif not one.not_tried:
            yield "  the cause is not known"
        if one.not_tried:
            yield f"  not proved: {one.not_tried}"
        yield from (f"  {printable(line)}" for line in one.evidence[:_LISTED_MAX])
        if one.refuted:
            how = "not it alone" if one.proved else "with it held it still varied"
            yield f"  {how}: {'; '.join(_named(one.refuted))}"


def _named(culprits: Iterable[str]) -> Iterator[str]:
    return (CULPRITS.get(culprit, culprit) for culprit in culprits)  # type: ignore[call-overload]
