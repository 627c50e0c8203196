"""The parameters of a step by names of its own: what `with` binds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runnable_ci.pipeline.expressions import Expression, template, values
from runnable_ci.pipeline.expressions.lookups import expressions_in, parameter_of
from runnable_ci.pipeline.expressions.rendering import value_of
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

    One that is another parameter, or an item of it, is that one, also an object, or a secret.
    """
    found = {}
    for name, written in step.arguments.items():
        paths = [path for expression in expressions_in(written) for path in expression.references()]
        found[name] = Bound(_parameter(written, contexts, parameters), paths)
    return found


def _parameter(written: Any, contexts: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> Parameter | None:
    """Return what a value of `with` is: another parameter, an item of it, or what its expressions give."""
    parts = template(written).parts if isinstance(written, str) else ()
    if len(parts) == 1 and not isinstance(only := parts[0], str):
        name, key = parameter_of(only)
        if name and key is None:
            return parameters.get(name)
        if key is not None and name in parameters and parameters[name].items:
            return _item(name, parameters[name], Expression("", key).evaluate(contexts))
    return Parameter.of_json(value_of(written, contexts))


def _item(name: str, of: Parameter, key: Any) -> Parameter:
    """Return one of several objects; null where there is none, as in any list."""
    found = values.find(of.items, key)
    if found is None or not found.data_hash:
        return Parameter.of_json(None)
    made = Parameter.of_object(name, data_hash=found.data_hash, size=found.size, object_type=found.object_type)
    return made.model_copy(update={"redacted": of.redacted})
