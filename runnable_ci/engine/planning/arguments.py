"""The parameters of a step by names of its own: what `with` binds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runnable_ci.pipeline.expressions import template
from runnable_ci.pipeline.expressions.lookups import expressions_in
from runnable_ci.pipeline.expressions.rendering import value_of
from runnable_ci.pipeline.expressions.syntax import ContextName, Literal, Lookup
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter


class Bound(NamedTuple):
    """A parameter that a step has by a name of its own."""

    parameter: Parameter | None
    """None: there is none of the name that it would be."""
    paths: list[tuple[str, ...]]
    """What its value was looked up by."""


def bound(step: Step, contexts: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, Bound]:
    """Return what `with` binds, by the names that the step has. Raises `ExpressionError`.

    One that is another parameter is that one, also an object, or a secret.
    """
    found = {}
    for name, written in step.arguments.items():
        paths = [path for expression in expressions_in(written) for path in expression.references()]
        other = _only_parameter(written)
        made = parameters.get(other) if other else Parameter.of_json(value_of(written, contexts))
        found[name] = Bound(made, paths)
    return found


def _only_parameter(written: Any) -> str:
    """Return the parameter that a value of `with` is, and nothing else."""
    parts = template(written).parts if isinstance(written, str) else ()
    if len(parts) != 1 or isinstance(parts[0], str):
        return ""
    match parts[0].tree:
        case Lookup(ContextName("parameters"), Literal(str() as name)):
            return name
        case _:
            return ""
