"""How long steps may take at most, as the pipeline file says it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from runnable_ci.github.job_graph.instances import literal_keys
from runnable_ci.pipeline.step import Step

SET_UP_MINUTES: Final = 15
"""What a job's limit has beside the time of its steps: checkout, packages, images, publishing."""
JOB_MINUTES_MAX: Final = 360
"""Source: GitHub docs, "Actions limits": execution time of a job on a hosted runner."""


def longest_s(step: Step) -> float | None:
    """Return how long a step may take with all of its tries and branches, one after another; None where nobody says."""
    branching = step.branching
    if branching is None:
        if step.timeout_s is None:
            return None
        return step.timeout_s * step.attempts.most + step.attempts.wait_s * (step.attempts.most - 1)
    branch_s = total_s(branching.body.values())
    if branch_s is None:
        return None
    if branching.loop is not None:
        return branch_s * branching.loop.most
    if branching.matrix is None:
        return branch_s
    keys = literal_keys(branching.matrix)
    return None if keys is None else branch_s * len(keys)


def total_s(steps: Iterable[Step]) -> float | None:
    """Return how long steps may take one after another; None where nobody says."""
    total = 0.0
    for step in steps:
        one = longest_s(step)
        if one is None:
            return None
        total += one
    return total


def job_minutes(steps_s: float | None) -> int | None:
    """Return the limit of a job whose steps may take so long; None for GitHub's own limit."""
    return None if steps_s is None else SET_UP_MINUTES + math.ceil(steps_s / 60)
