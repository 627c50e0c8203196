"""Conditions on what runs measured and were given, and their order by it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.expressions.arithmetic import FUNCTIONS, parse_calculation
from runnable_ci.pipeline.expressions.expression import Expression
from runnable_ci.pipeline.expressions.syntax import ExpressionError
from runnable_ci.pipeline.expressions.values import is_true
from runnable_ci.pipeline.values.value_reader import NOT_JSON_NUMBERS
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.util.text import flattened

_KEYS: Final[Mapping[str, Callable[[Summary], Any]]] = {
    "started": lambda run: run.start_time,
    "duration": lambda run: run.seconds,
    "run": lambda run: run.run_id,
}


def holding(conditions: Sequence[str], runs: Sequence[Summary], listed: Sequence[Summary]) -> list[Summary]:
    """Return the runs for which all conditions hold; not those that lack what one names.

    Raises `UsageError` for what is no condition, and for a name that none of the `listed` runs has.
    """
    parsed = [_parsed(text) for text in conditions]
    for condition in parsed:
        _require_known(condition, listed)
    return [run for run in runs if all(_holds(condition, run) for condition in parsed)]


def by_value(name: str, runs: Sequence[Summary], listed: Sequence[Summary]) -> list[Summary]:
    """Return the runs that have a value of this name, the smallest first. Raises `UsageError` where none has."""
    value = _sorted_by(name, listed)
    return sorted((run for run in runs if _is_ordered(value(run))), key=lambda run: _order(value(run)))


def _parsed(text: str) -> Expression:
    try:
        return parse_calculation(text)
    except ExpressionError as e:
        raise UsageError(f"the condition `{text}`: {e.message}", hint=e.hint or "such as score > 0.9") from e


def _contexts(run: Summary) -> dict[str, Any]:
    """Return what a condition sees of a run: values by their names, a metric before a parameter."""
    metrics, parameters = nested(run.metrics), nested(run.parameters)
    own = {"metrics": metrics, "parameters": parameters, "duration": run.seconds}
    return {**parameters, **metrics, **own}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as tables of tables, by what stands between the dots of their names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split(".")
        table = found
        for part in above:
            inner = table.setdefault(part, {})
            table = inner if isinstance(inner, dict) else {}
        table.setdefault(last, value)
    return found


def _require_known(condition: Expression, runs: Sequence[Summary]) -> None:
    contexts = [_contexts(run) for run in runs]
    for path in condition.references():
        if runs and not any(_at(context, path) is not None for context in contexts):
            raise _unknown(".".join(path), runs)


def _unknown(name: str, runs: Sequence[Summary]) -> UsageError:
    known = {key for run in runs for key in (*flattened(run.metrics), *flattened(run.parameters))} | {"duration"}
    hint = did_you_mean(name, known, f"they have {', '.join(sorted(known)[:20])}")
    return UsageError(f"no run has a metric or parameter `{name}`", hint=hint)


def _at(context: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(context, Mapping) or name not in context:
            return None
        context = context[name]
    return context


def _holds(condition: Expression, run: Summary) -> bool:
    contexts = _contexts(run)
    if any(_at(contexts, path) is None for path in condition.references()):
        return False
    try:
        return is_true(condition.evaluate(contexts, FUNCTIONS))
    except ExpressionError as e:
        raise UsageError(f"the condition `{condition}`: {e.message}", hint=e.hint) from e


def _sorted_by(name: str, runs: Sequence[Summary]) -> Callable[[Summary], Any]:
    if name in _KEYS and not any(name in run.metrics for run in runs):
        return _KEYS[name]
    path = name.split(".")
    if runs and not any(_at(_contexts(run), path) is not None for run in runs):
        raise _unknown(name, runs)
    return lambda run: _at(_contexts(run), path)


def _is_ordered(value: Any) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _order(value: Any) -> tuple[int, float, str]:
    """Return the sort key of a value: NaN before numbers, texts behind them."""
    if isinstance(value, str) and value not in NOT_JSON_NUMBERS:
        return 2, 0.0, value
    return (0, 0.0, "") if math.isnan(float(value)) else (1, float(value), "")
