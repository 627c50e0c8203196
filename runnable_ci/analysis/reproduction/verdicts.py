"""What is said of each step of a run that was made again, and of the whole run. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

from runnable_ci.analysis.comparison.contents.compare import ContentComparison, Tolerance
from runnable_ci.analysis.comparison.endings import ended_in_words, short_why
from runnable_ci.analysis.comparison.model import NOT_READ, RunComparison, RunDifference, StepComparison
from runnable_ci.analysis.comparison.wording import in_words, noun_of
from runnable_ci.runs.notes.notes_model import StepVerdict, Verdict
from runnable_ci.util.text import listed

ORDER: Final[Sequence[Verdict]] = (
    "reproduced",
    "within tolerance",
    "other hardware or packages",
    "not comparable",
    "different",
)
"""The worst last; it is the whole run's. What is different is so whatever else could not be compared."""
ENVIRONMENT: Final = frozenset({"image", "interpreter", "package", "platform", "machine", "variable"})
_NAMED_MAX: Final = 3


def step_verdicts(
    compared: RunComparison,
    contents: Mapping[tuple[str, str], ContentComparison],
    blocked: Mapping[str, str],
    tolerance: Tolerance,
    begun: Mapping[str, str],
) -> dict[str, StepVerdict]:
    """Return the verdict on each step that the first run (A of the comparison) tried.

    `contents` are the files that differ, by step and name, as they were compared with the tolerance; `blocked` the
    steps of which an input is not there, with why; `begun` those that began from what is not there any more, with what:
    where they differ, that says nothing.
    """
    found: dict[str, StepVerdict] = {}
    for step in compared.steps:
        if step.in_a in ("", "skipped", "running"):
            continue
        found[step.name] = _verdict(step, contents, blocked, tolerance, found, begun)
    return found


def whole_verdict(verdicts: Mapping[str, StepVerdict], left_out: Container[str] = ()) -> Verdict:
    """Return the verdict on a run, the worst of its steps' but for those that were left out."""
    said = {one.verdict for name, one in verdicts.items() if name not in left_out}
    return next((verdict for verdict in reversed(ORDER) if verdict in said), "not comparable")


def _verdict(
    step: StepComparison,
    contents: Mapping[tuple[str, str], ContentComparison],
    blocked: Mapping[str, str],
    tolerance: Tolerance,
    before: Mapping[str, StepVerdict],
    begun: Mapping[str, str],
) -> StepVerdict:
    if step.name in blocked:
        return StepVerdict(verdict="not comparable", reason=blocked[step.name])
    if step.in_b in ("", "skipped"):
        return StepVerdict(
            verdict="not comparable", reason=f"it did not run: {step.why_b or 'a step before it failed'}"
        )
    outputs = [one for one in step.outputs if one.kind != "output"]
    if step.in_a == step.in_b and not outputs:
        return StepVerdict(verdict="reproduced")
    origin = _origin(step, before)
    if step.in_a != step.in_b:
        then, now = (ended_in_words(how) for how in (step.in_a, step.in_b))
        why = step.why_b or (f"then {step.why_a}" if step.why_a else "")
        reason = f"it {then} then, and {now} now{why and f': {short_why(why)}'}"
    else:
        far = [one for one in outputs if not _is_near(step.name, one, contents, tolerance)]
        if not far:
            return StepVerdict(verdict="within tolerance", reason=_noted(step.name, outputs, contents), follows=origin)
        reason = _listed(far)
    given = [one for one in step.inputs if one.counts and not is_own_variable(one)]
    other = [one for one in given if one.kind in ENVIRONMENT]
    if other:
        return StepVerdict(verdict="other hardware or packages", reason=f"{reason}; {_listed(other)}", follows=origin)
    if origin and before[origin].verdict in ("within tolerance", "other hardware or packages", "not comparable"):
        return StepVerdict(verdict=before[origin].verdict, reason=reason, follows=origin)
    inputs = [one for one in given if not one.made_by]
    if step.name in begun:
        return StepVerdict(verdict="not comparable", reason=f"{reason}; {begun[step.name]}", follows=origin)
    if inputs:
        return StepVerdict(verdict="not comparable", reason=f"{reason}; it was given something else: {_listed(inputs)}")
    unread = [one for one in step.inputs if one.note == NOT_READ and not one.made_by]
    if step.in_a != step.in_b and unread:
        named = listed(map(noun_of, unread), at_most=_NAMED_MAX)
        reason += f"; what was not read before the end may have been something else: {named}"
        return StepVerdict(verdict="not comparable", reason=reason)
    return StepVerdict(verdict="different", reason=reason, follows=origin)


def is_own_variable(one: RunDifference) -> bool:
    """Return whether an input is the name of the run, which is another one each time."""
    return one.kind == "variable" and one.name == "RUNNABLE_RUN_ID"


def _origin(step: StepComparison, before: Mapping[str, StepVerdict]) -> str:
    """Return the first step from which a difference in the inputs comes."""
    made_by = [one.made_by for one in step.inputs if one.made_by in before]
    worse = [name for name in made_by if before[name].verdict != "reproduced"]
    return (before[worse[0]].follows or worse[0]) if worse else ""


def _noted(
    step: str, differences: Iterable[RunDifference], contents: Mapping[tuple[str, str], ContentComparison]
) -> str:
    """Return differences with what is noted of the contents, such as that pictures have the same pixels."""
    notes = {one: content.notes for one in differences if (content := contents.get((step, one.name)))}
    texts = (in_words(one) + (f" ({'; '.join(notes[one])})" if notes.get(one) else "") for one in differences)
    return listed(texts, at_most=_NAMED_MAX)


def _listed(differences: Iterable[RunDifference]) -> str:
    return listed(map(in_words, differences), at_most=_NAMED_MAX)


def _is_near(
    step: str, one: RunDifference, contents: Mapping[tuple[str, str], ContentComparison], tolerance: Tolerance
) -> bool:
    if one.change != "changed":
        return False
    if one.kind == "file":
        content = contents.get((step, one.name))
        return content is not None and content.is_near
    if one.kind in ("metric", "result"):
        return values_are_near(one.before, one.after, tolerance)
    return False


def values_are_near(before: Any, after: Any, tolerance: Tolerance) -> bool:
    """Return whether two values of JSON are the same but for numbers within the tolerance."""
    from runnable_ci.analysis.comparison.contents.cells import Counted, compare_values

    counted = Counted(tolerance.relative, tolerance.absolute)
    compare_values(counted, before, after)
    return counted.numbers_only and counted.near == counted.different
