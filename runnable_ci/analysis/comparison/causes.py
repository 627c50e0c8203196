"""Which difference between two runs explains the others, as far as the runs tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runnable_ci.analysis.comparison.endings import EXTERNAL, ended_in_words, follows_another, short_why, was_killed
from runnable_ci.analysis.comparison.model import (
    INPUT_KINDS,
    NOT_READ,
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

    `steps` come in an order in which each follows what it was made from; sentences call the runs by `names`. A step
    that only did not come to its end, since the run was cancelled or another one failed, comes after all others.
    """
    found = _diverging(steps)
    return _divergence(found[0], names) if found else None


def further_divergences(steps: Sequence[StepComparison], names: tuple[str, str]) -> tuple[Divergence, ...]:
    """Return the later steps that end otherwise, or give something else for a reason of their own, each with why."""
    later = (
        step
        for step in _diverging(steps)[1:]
        if step.in_a != step.in_b or any(one.kind != "machine" for one in _own_causes(step))
    )
    return tuple(_divergence(step, names) for step in later)


def _diverging(steps: Sequence[StepComparison]) -> list[StepComparison]:
    """Return the steps that are over in both runs and give something else or ended otherwise, and not merely follow."""
    over = (step for step in steps if step.in_a and step.in_b and RUNNING not in (step.in_a, step.in_b))
    found = [step for step in over if step.diverges and not _merely_follows(step)]
    return sorted(found, key=lambda step: bool(EXTERNAL.intersection((step.in_a, step.in_b))))


def _divergence(step: StepComparison, names: tuple[str, str]) -> Divergence:
    causes = _own_causes(step)
    return Divergence(step.name, step.label, tuple(causes), _explanation(step, causes, names))


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
    whys = [why for ended, why in ((step.in_a, step.why_a), (step.in_b, step.why_b)) if ended == "skipped"]
    return bool(whys) and all(not why or follows_another(why) for why in whys)


def _explanation(step: StepComparison, causes: Sequence[RunDifference], names: tuple[str, str]) -> str:
    why = _why_it_ended(step, names)
    ended = (step.in_a, step.in_b)
    if step.in_a != step.in_b:
        how = " and ".join(f"{ended_in_words(how)} in {run}" for how, run in zip(ended, names, strict=True))
    else:
        how = "failed in both" if why else "gives something else"
    begin = f"`{step.label}` {how}"
    if not why:
        return f"{begin}{_what_differs(step, causes, names)}"
    if EXTERNAL.intersection(ended) or "skipped" in ended:
        return f"{begin}: {why}"
    has_cause = any(one.counts and one.kind != "machine" for one in step.inputs)
    if has_cause or not was_killed(why):
        return f"{begin}: {why}{_what_differs(step, causes, names, before='; ')}"
    return f"{begin}: {why}"


def _why_it_ended(step: StepComparison, names: tuple[str, str]) -> str:
    """Return the step's own cause of not succeeding, of the run that has it or of both."""
    whys = {run: short_why(why) for run, why in zip(names, (step.why_a, step.why_b), strict=True) if why}
    if len({*whys.values()}) == 2 or [*whys] == [names[0]]:
        return ", ".join(f"in {run} {why}" for run, why in whys.items())
    return next(iter(whys.values()), "")


def _what_differs(
    step: StepComparison, causes: Sequence[RunDifference], names: tuple[str, str], before: str = ": "
) -> str:
    """Return what of the step's inputs differs, as the end of a sentence that begins with `before`."""

    def words(found: Iterable[RunDifference]) -> str:
        return listed((in_words(one, names) for one in found), at_most=_NAMED_MAX)

    certain = [one for one in causes if one.kind != "machine" and one.note != POSSIBLE]
    if certain:
        given: list[RunDifference] = []
        if step.in_a != step.in_b:  # values of other steps may be why one failed; what it gives only follows from them
            given = [one for one in step.inputs if one.kind == "value" and one.made_by and one.counts and not one.note]
        return f"{before}{words([*certain[: _NAMED_MAX - 1], *given, *certain[_NAMED_MAX - 1 :]])}"
    if possible := [one for one in causes if one.kind != "machine"]:
        return f"{before}perhaps {words(possible)}"
    if follows := [one for one in step.inputs if one.made_by and one.counts]:
        return f"{before}{words(follows)}"
    if unread := [one for one in step.inputs if one.note == NOT_READ]:
        return f"{before}{words(unread)}"
    if causes:
        return f", made from the same on another machine: {words(causes)}"
    if step.not_seen:
        return f"; nothing that was recorded of its inputs differs, but {step.not_seen}"
    why = "it is not deterministic, or takes what is not recorded, such as a variable that `env-read` does not name"
    return f"{' though' if before == ': ' else ';'} nothing that was recorded of its inputs differs: {why}"
