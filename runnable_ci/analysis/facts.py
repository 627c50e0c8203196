"""What several views of a run show in the same way. Pure."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import RunLog, StepAttempt


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a metric can be calculated with and drawn."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def share_of(value: float, low: float, high: float) -> float:
    """Return where a number is between two others, as 0 to 1; 1 where these are the same.

    Halves are calculated with: the largest numbers are farther apart than any number is large.
    """
    span = high / 2 - low / 2
    return (value / 2 - low / 2) / span if span else 1.0


def command_of(attempt: StepAttempt) -> str:
    """Return what an attempt ran, such as `python: train:fit`; empty where nothing is known of it."""
    kinds = (kind for kind in ("run", "python", "notebook") if kind in attempt.definition)
    return next((f"{kind}: {attempt.definition[kind]}" for kind in kinds), "")


def newest_environment(log: RunLog) -> Environment:
    """Return the environment of the newest attempt, as far as it is known."""
    newest = log.newest_attempt()
    known = log.environments.get(newest.environment) if newest else None
    return known or next(reversed(log.environments.values()), Environment())
