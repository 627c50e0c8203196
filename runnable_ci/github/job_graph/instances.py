"""The instances of a matrix as legs of a job: by their keys, where the file has the values. Pure."""

from __future__ import annotations

from runnable_ci.pipeline.branches.matrix import Matrix, combinations, instances


def literal_keys(matrix: Matrix) -> list[str] | None:
    """Return the key of each instance, once; None where an expression gives some of the values.

    A key is `[A-Za-z0-9_-]+`, whatever the values are.
    """
    if matrix.whole or "${{" in str(matrix.definition()):
        return None
    branches = instances(combinations(matrix.axes, matrix.include, matrix.exclude), matrix.axes)
    return [*dict.fromkeys(branch.key for branch in branches)]
