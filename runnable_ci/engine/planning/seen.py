"""What the expressions of a step see: parameters, and the steps before it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from runnable_ci.engine.planner import as_parameter
from runnable_ci.pipeline.expressions import ExpressionError
from runnable_ci.pipeline.expressions.lookups import by_own_name
from runnable_ci.pipeline.expressions.template import OPEN
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter


class NotKnownYetError(ExpressionError):
    """A step that was not run yet gives what an expression looks up: only in plans."""


class Known(Mapping[str, Any]):
    """A table in which some keys have no value that could be used: looking one up raises why."""

    def __init__(self, values: Mapping[str, Any], withheld: Mapping[str, ExpressionError]) -> None:
        self._values = {**dict.fromkeys(withheld), **values}
        self._withheld = withheld

    def __getitem__(self, key: str) -> Any:
        if key in self._withheld:
            raise self._withheld[key]
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Settled(NamedTuple):
    """How a step before this one ended."""

    outcome: str
    """`success`, `failure`, `cancelled` or `skipped`; empty where it is only planned."""
    conclusion: str
    """The same, where a failure that is allowed counts as success."""
    outputs: Mapping[str, Parameter]
    """What it returned."""
    returns: Collection[str]
    """What it declares."""


def contexts(step: Step, parameters: Mapping[str, Parameter], settled: Mapping[str, Settled]) -> dict[str, Any]:
    """Return what the expressions of a step see; `settled` has all steps that come before it."""
    planned = [name for name, one in settled.items() if not one.outcome]
    waiting = {name: NotKnownYetError(f"`{name}` runs first") for name in planned}
    given = {key: NotKnownYetError(f"`{name}` returns `{key}`") for name in planned for key in settled[name].returns}
    above = by_own_name(step.name, settled)
    needs = by_own_name(step.name, step.needs)
    return {
        "parameters": _table(parameters, given),
        "steps": Known(
            {own: _step_of(settled[name]) for own, name in above.items()},
            {own: waiting[name] for own, name in above.items() if name in waiting},
        ),
        "needs": Known(
            {own: _need_of(settled[name]) for own, name in needs.items()},
            {own: waiting[name] for own, name in needs.items() if name in waiting},
        ),
        "env": {name: text for name, text in step.env.items() if OPEN not in text},
        "matrix": _table({name: as_parameter(value) for name, value in step.bound.items()}, {}),
    }


def _step_of(one: Settled) -> dict[str, Any]:
    return {"outcome": one.outcome, "conclusion": one.conclusion, "outputs": _table(one.outputs, {})}


def _need_of(one: Settled) -> dict[str, Any]:
    return {"result": one.conclusion, "outputs": _table(one.outputs, {})}


def _table(parameters: Mapping[str, Parameter], withheld: Mapping[str, ExpressionError]) -> Mapping[str, Any]:
    """Return values as expressions see them: an object has none, nor has a secret that the run log does not have."""
    lost = {
        name: ExpressionError(f"`{name}` is a secret: its value is not in the run log")
        if parameter.redacted
        else ExpressionError(f"`{name}` is an object, which has no text", hint="pass it whole to a function, in `with`")
        for name, parameter in parameters.items()
        if parameter.redacted or parameter.kind == "object"
    }
    return Known({name: parameter.value for name, parameter in parameters.items()}, {**lost, **withheld})
