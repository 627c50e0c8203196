"""Whether a step may run by what came before it: its condition, and what only skipped steps make. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from runnable_ci.engine.planning.seen import NotKnownYetError
from runnable_ci.pipeline.expressions import ExpressionError, parse
from runnable_ci.pipeline.expressions.checks import STATUS_FUNCTIONS
from runnable_ci.pipeline.expressions.values import is_true
from runnable_ci.pipeline.patterns import as_glob, can_overlap, select
from runnable_ci.pipeline.step import Step


class Verdict(NamedTuple):
    """What a condition says."""

    holds: bool | None
    """None: it is known once steps before have run."""
    reason: str = ""
    error: str = ""
    """Why it has no value."""
    is_of_status: bool = False
    """Whether it says itself what must have become of the steps before."""


def judge(step: Step, contexts: Mapping[str, Any], *, failed: str, cancelled: bool) -> Verdict:
    """Return whether the condition of a step holds; `failed` is a step before it that did not succeed."""
    expression = parse(step.condition)
    functions: dict[str, Callable[[], bool]] = {
        "success": lambda: not failed and not cancelled,
        "failure": lambda: bool(failed) and not cancelled,
        "always": lambda: True,
        "cancelled": lambda: cancelled,
    }
    is_of_status = any(call.name in STATUS_FUNCTIONS for call in expression.calls())
    if not is_of_status and failed:
        return Verdict(False)
    try:
        holds = is_true(expression.evaluate(contexts, functions))
    except NotKnownYetError as e:
        return Verdict(None, f"if {step.condition}: {e.message}", is_of_status=is_of_status)
    except ExpressionError as e:
        return Verdict(True, "", f"if: {e.message}", is_of_status)
    return Verdict(holds, "" if holds else f"the condition {step.condition} is false", is_of_status=is_of_status)


def missing_from(
    step: Step,
    omitted: Iterable[Step],
    others: Iterable[Step],
    *,
    required: Collection[str],
    parameters: Collection[str],
    files: Collection[str],
    is_there: Callable[[str], bool],
) -> str:
    """Return why a step is skipped since an `omitted` one is: it makes what the step takes, and nothing else does.

    `others` are the rest of the steps before it, `parameters` and `files` what it can see, `is_there` tells whether
    the workspace has a file that a glob means.
    """
    others = list(others)
    for skipped in omitted:
        for name in required:
            if name in skipped.returns and name not in parameters and not any(name in it.returns for it in others):
                return f"`{skipped.shown}`, which returns `{name}`, was skipped"
        for pattern in step.get or ():
            glob = as_glob(pattern)
            if (
                any(can_overlap(glob, as_glob(put)) for put in skipped.put)
                and not any(can_overlap(glob, as_glob(put)) for other in others for put in other.put)
                and not select(pattern, files)
                and not is_there(pattern)
            ):
                return f"`{skipped.shown}`, which puts `{pattern}`, was skipped"
    return ""
