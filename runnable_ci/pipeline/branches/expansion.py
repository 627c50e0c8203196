"""Branches as steps: what a step with a matrix, a loop or a file of its own becomes once its branches are known. Pure.

A step of a branch is called `STEP.BRANCH.STEP`, as in the reference system's run logs; and so do branches of branches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from runnable_ci.pipeline.branches.matrix import Branch, only_branch
from runnable_ci.pipeline.step import Branching, Step

ANY = "0"
"""The key of the branch that represents all of them."""


class Opened(NamedTuple):
    """A step whose branches are known."""

    branches: Sequence[Sequence[Step]]
    """The steps of each branch, each after those that it needs."""
    end: Step
    """The step itself: it comes after all of them."""


def opened(step: Step, branches: Sequence[Branch], *, first: int = 0) -> Opened:
    """Return what a step becomes with these branches; those before the `first` are there already."""
    assert step.branching is not None  # noqa: S101 - for the type checker
    branching = step.branching
    of_branches, lasts, before = [], [], step.needs
    for branch in branches:
        prefix = f"{step.name}.{branch.key}."
        if branching.loop is None:
            before = (*(need for need in step.needs if need not in branching.follows), *_followed(branching, branch))
        of_branches.append([_in_branch(step, inner, branch, prefix, before) for inner in branching.body.values()])
        last = [f"{prefix}{name}" for name in branching.last()]
        lasts.extend(last)
        before = (*step.needs, *last)
    return Opened(of_branches[first:], step._replace(needs=tuple(dict.fromkeys((*lasts, *step.needs)))))


def _followed(branching: Branching, branch: Branch) -> tuple[str, ...]:
    """Return the steps that end the branch of the same values in the step that this one follows."""
    return tuple(f"{step}.{branch.key}.{name}" for step, last in branching.follows.items() for name in last)


def _in_branch(step: Step, inner: Step, branch: Branch, prefix: str, before: tuple[str, ...]) -> Step:
    needs = tuple(f"{prefix}{need}" for need in inner.needs) or before
    label = f"{step.shown} ({branch.label})" if branch.label else step.shown
    is_itself = inner.name == step.name.rpartition(".")[2]
    branching = inner.branching and inner.branching._replace(
        follows={f"{prefix}{name}": last for name, last in inner.branching.follows.items()}
    )
    if inner.kind == "notebook":
        from runnable_ci.pipeline.notebook_keys import executed_in_branch  # few pipelines have one

        inner = executed_in_branch(inner, prefix.rstrip(".") if is_itself else f"{prefix}{inner.name}")
    values = {**step.bound, **inner.bound, **branch.values, **branch.given}
    if branch.key != ANY and inner.has_expressions():
        from runnable_ci.pipeline.expressions import ExpressionError
        from runnable_ci.pipeline.expressions.rendering import rendered  # few steps need it

        with suppress(ExpressionError):  # it fails by that when it is to run
            inner = rendered(inner, {"matrix": {n: getattr(value, "value", value) for n, value in values.items()}})
    return inner._replace(
        branching=branching,
        name=f"{prefix}{inner.name}",
        needs=needs,
        label=label if is_itself else f"{label} / {inner.name}",
        bound=values,
        in_matrix=step.in_matrix or (step.branching is not None and step.branching.matrix is not None),
        defaults={**inner.defaults, **step.defaults},
    )


def outlined_name(name: str) -> str:
    """Return the name that a step has in the outline of its pipeline."""
    parts = name.split(".")
    return ".".join(ANY if i % 2 else part for i, part in enumerate(parts))


def outlined_steps(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Return steps with one branch for all those of a step, which can be checked before any is known."""
    return {one.name: one for step in steps.values() for one in _outlined(step)}


def _outlined(step: Step) -> Iterator[Step]:
    branching = step.branching
    if branching is None:
        yield step
        return
    matrix = branching.matrix
    axes = dict.fromkeys(matrix.names() if matrix else ())
    branch = only_branch()._replace(key=ANY, values=axes, given=dict.fromkeys(step.arguments))
    made = opened(step._replace(branching=branching._replace(follows={})), [branch])
    for inner in made.branches[0]:
        yield from _outlined(inner)
    end = made.end._replace(branching=None)
    yield end._replace(kind="python", command=branching.reduce) if branching.reduce else end
