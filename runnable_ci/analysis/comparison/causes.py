"""Which difference between two runs explains the others, as far as the runs tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from runnable_ci.analysis.comparison.model import (
    INPUT_KINDS,
    POSSIBLE,
    RUNNING,
    Divergence,
    RunDifference,
    StepComparison,
)
from runnable_ci.analysis.comparison.wording import in_words
from runnable_ci.util.text import listed

_NAMED_MAX = 3


def first_divergence(steps: Sequence[StepComparison], names: tuple[str, str]) -> Divergence | None:
    """Return the first step that gives something else or ends otherwise, with why; None where none does.

    `steps` come in an order in which each follows what it was made from; sentences call the runs by `names`.
    """
    first = next((step for step in steps if _diverges(step)), None)
    return _divergence(first, names) if first else None


def further_divergences(steps: Sequence[StepComparison], names: tuple[str, str]) -> tuple[Divergence, ...]:
    """Return the later steps that give something else for a reason of their own, each with why."""
    later = [step for step in steps if _diverges(step)][1:]
    return tuple(_divergence(step, names) for step in later if any(one.kind != "machine" for one in _own_causes(step)))


def _divergence(step: StepComparison, names: tuple[str, str]) -> Divergence:
    causes = _own_causes(step)
    return Divergence(step.name, step.label, tuple(causes), _explanation(step, causes, names))


def _diverges(step: StepComparison) -> bool:
    """Whether a step that is over in both runs gives something else or ended otherwise, and does not merely follow."""
    is_over = step.in_a and step.in_b and RUNNING not in (step.in_a, step.in_b)
    return bool(is_over) and step.diverges and not _merely_follows(step)


def _own_causes(step: StepComparison) -> list[RunDifference]:
    """Return what of a step's inputs differs and no step before it made."""
    return ranked(one for one in step.inputs if one.counts and not one.made_by)


def ranked(differences: Iterable[RunDifference]) -> list[RunDifference]:
    """Return differences, the likeliest cause first: what was seen before what may be, what people change before what
    machines bring along.
    """
    return sorted(differences, key=lambda one: (one.kind == "machine", bool(one.note), INPUT_KINDS.index(one.kind)))


def _merely_follows(step: StepComparison) -> bool:
    """Whether a step did not run in one of the runs, as another one before it ended otherwise."""
    return "skipped" in (step.in_a, step.in_b) and not step.outputs


def _explanation(step: StepComparison, causes: Sequence[RunDifference], names: tuple[str, str]) -> str:
    words = partial(in_words, names=names)
    ends = f"`{step.label}` " + (
        f"{step.in_a} in {names[0]} and {step.in_b} in {names[1]}" if step.in_a != step.in_b else "gives something else"
    )
    certain = [one for one in causes if one.kind != "machine" and one.note != POSSIBLE]
    if certain:
        return f"{ends}: {listed(map(words, certain), at_most=_NAMED_MAX)}"
    if possible := [one for one in causes if one.kind != "machine"]:
        return f"{ends}: perhaps {listed(map(words, possible), at_most=_NAMED_MAX)}"
    follows = [one for one in step.inputs if one.made_by]
    if follows:
        return f"{ends}: {listed(map(words, follows), at_most=_NAMED_MAX)}"
    if causes:
        return f"{ends}, made from the same on another machine: {listed(map(words, causes), at_most=_NAMED_MAX)}"
    if step.not_seen:
        return f"{ends}; nothing that was recorded of its inputs differs, but {step.not_seen}"
    why = "it is not deterministic, or takes what is not recorded"
    return f"{ends} though nothing that was recorded of its inputs differs: {why}"
