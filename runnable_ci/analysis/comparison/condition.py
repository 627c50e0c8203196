"""A condition on two runs' metrics, under which the newer one counts as failed: `score < base - 0.01`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.history.conditions import nested
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.expressions.arithmetic import FUNCTIONS, numbers_in, parse_calculation
from runnable_ci.pipeline.expressions.expression import Expression
from runnable_ci.pipeline.expressions.syntax import ExpressionError
from runnable_ci.pipeline.expressions.values import is_true
from runnable_ci.util.text import format_pairs, listed

BASE: Final = "base"
DURATION: Final = "duration"
"""How long a run took, in seconds; a metric of that name is in `metrics`."""
_SHOWN: Final = {"divide": "the result of /", "multiply": "the result of *", "add": "a sum", "subtract": "a difference"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a condition holds."""

    condition: str
    fails: bool
    reason: str
    """The values that decided it, in one line."""


def parse_condition(text: str) -> Expression:
    """Return the expression of a condition. Raises `UsageError`."""
    try:
        return parse_calculation(text)
    except ExpressionError as e:
        place = f" (character {e.position + 1})" if e.position else ""
        raise UsageError(
            f"the condition `{text}`: {e.message}{place}", hint=e.hint or "such as score < base - 0.01"
        ) from e


def judge(condition: Expression, found: RunComparison) -> Judgement:
    """Return whether a condition holds for B, with A as `base`.

    A metric by its name is B's, `base.NAME` is A's, and `base` alone A's of the only metric that the condition names. A
    metric with a number that is none fails, and so does what is calculated or compared and is none, as a division by 0
    or the list of a matrix's instances: no comparison with it would. Raises `UsageError` for a metric that a run does
    not have: nothing can be said then.
    """
    before = {one.name: one.before for one in found.all_metrics if one.before is not None}
    after = {one.name: one.after for one in found.all_metrics if one.after is not None}
    paths = condition.references()
    alone = _named_alone(condition, paths)
    used: dict[str, Any] = {}
    for path in paths:
        is_base = path[0] == BASE
        names = alone if path == (BASE,) else [name for name in path if name not in (BASE, "metrics")]
        run, known = (found.a, before) if is_base else (found.b, after)
        value = run.seconds if names == [DURATION] and "metrics" not in path else known.get(".".join(names))
        if value is None:
            hint = did_you_mean(".".join(names), [*known, DURATION], f"it has {listed([*known, DURATION], at_most=20)}")
            raise UsageError(f"run {run.run_id} has no metric `{'.'.join(names)}`, which a condition names", hint=hint)
        used[".".join(path)] = value
    contexts = {DURATION: found.b.seconds, **nested(after), "metrics": nested(after)}
    contexts[BASE] = used.get(BASE, {DURATION: found.a.seconds, **nested(before), "metrics": nested(before)})
    odd = [name for name, value in used.items() if any(map(_is_odd, numbers_in([value])))]
    odd_results: list[str] = []
    try:
        holds = is_true(condition.evaluate(contexts, _watched(odd_results)))
        odd_results += [text for text in condition.compared_lists(contexts, FUNCTIONS) if text not in odd_results]
    except ExpressionError as e:
        raise UsageError(f"the condition `{condition}`: {e.message}", hint=e.hint) from e
    strange = odd or odd_results
    are = "is not a number" if len(strange) == 1 else "are not numbers"
    reason = format_pairs(used) + (f"; {listed(strange)} {are}, which fails" if strange else "")
    return Judgement(str(condition), holds or bool(strange), reason)


def _watched(odd: list[str]) -> dict[str, Callable[..., Any]]:
    """Return the functions of conditions, which note in `odd` what they give that is not a number."""

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            if _is_odd(result) and name not in odd:
                odd.append(name)
            return result

        return call

    return {name: watched(_SHOWN.get(name, f"{name}(…)"), function) for name, function in FUNCTIONS.items()}


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _named_alone(condition: Expression, paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the metric that `base` alone refers to. Raises `UsageError` where that is open."""
    if (BASE,) not in paths:
        return []
    named = sorted({path for path in paths if path[0] != BASE})
    if len(named) != 1 or any(path[0] == BASE and len(path) > 1 for path in paths):
        which = listed((f"`base.{'.'.join(path)}`" for path in named), at_most=5) or "`base.NAME`"
        raise UsageError(f"the condition `{condition}` does not say which metric of the base", hint=f"write {which}")
    return [name for name in named[0] if name != "metrics"]
