"""The instances of a matrix as legs of a job: by their keys, where the file has the values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runnable_ci.pipeline.branches.matrix import Matrix, combinations, instances

LEGS_MAX: Final = 256
"""Source: GitHub docs, "Actions limits": jobs that a matrix generates in a workflow run."""


def literal_keys(matrix: Matrix) -> list[str] | None:
    """Return the key of each instance, once; None where an expression gives some of the values.

    A key is `[A-Za-z0-9_-]+`, whatever the values are.
    """
    if matrix.whole or "${{" in str(matrix.definition()):
        return None
    branches = instances(combinations(matrix.axes, matrix.include, matrix.exclude), matrix.axes)
    return [*dict.fromkeys(branch.key for branch in branches)]


def legs(keys: Sequence[str]) -> list[str]:
    """Return what the legs of a job run: an instance, or a chunk of them, `K/N`, where GitHub would not take all."""
    if len(keys) <= LEGS_MAX:
        return [*keys]
    size = -(-len(keys) // LEGS_MAX)
    count = -(-len(keys) // size)
    return [f"{number}/{count}" for number in range(1, count + 1)]
