"""What steps put, as globs that can be compared before anything runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runnable_ci.pipeline.branches.matrix import AxisError, Matrix, combinations
from runnable_ci.pipeline.expressions.values import text as text_of
from runnable_ci.pipeline.patterns import as_glob, globs_of
from runnable_ci.pipeline.step import Step

_AXIS: Final = re.compile(r"\$\{\{\s*matrix\.(\w+)\s*\}\}")
_WILDCARD: Final = re.compile(r"[*?\[]")
_KNOWN_MAX: Final = 100
"""Instances of a step whose paths are compared one by one; more are compared by one glob for all."""


def put_patterns(steps: Mapping[str, Step], outlined: Mapping[str, Step]) -> dict[str, list[str]]:
    """Return what each step of an outline puts.

    Where the file says which instances there are, their own paths count: `${{ matrix.file }}` alone could be any path.
    """
    known = {name: _known(step.branching.matrix) for name, step in steps.items() if step.branching}
    return {
        name: list(
            dict.fromkeys(glob for pattern in step.put for glob in _globs(pattern, known.get(name.partition(".")[0])))
        )
        for name, step in outlined.items()
    }


def _known(matrix: Matrix | None) -> Sequence[Mapping[str, Any]]:
    """Return the values of the instances that the file lists; none where an expression gives them."""
    if matrix is None or matrix.whole or isinstance(matrix.include, str) or isinstance(matrix.exclude, str):
        return ()
    if not all(isinstance(values, list) for values in matrix.axes.values()):
        return ()
    try:
        found = combinations(matrix.axes, matrix.include, matrix.exclude)
    except AxisError:  # said where the matrix is checked
        return ()
    return found if len(found) <= _KNOWN_MAX else ()


def _globs(pattern: str, instances: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if not instances or not _AXIS.search(pattern):
        return [_glob(pattern)]
    return [_glob(_filled(pattern, instance)) for instance in instances]


def _glob(pattern: str) -> str:
    """Return the glob of a pattern, as if no value that is not known had a `/` in a name: few have, and else steps with
    files in one folder could not be distinguished.
    """
    return globs_of(as_glob(pattern))[0]


def _filled(pattern: str, instance: Mapping[str, Any]) -> str:
    """Return a pattern with the values of an instance, as globs that match just those; what else is in it stays."""

    def value(axis: re.Match[str]) -> str:
        return _WILDCARD.sub(r"[\g<0>]", text_of(instance[axis[1]])) if axis[1] in instance else axis[0]

    return _AXIS.sub(value, pattern)
