"""Which runs of a listing are shown, and in which order. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.expressions.arithmetic import FUNCTIONS, parse_calculation
from runnable_ci.pipeline.expressions.expression import Expression
from runnable_ci.pipeline.expressions.syntax import ExpressionError
from runnable_ci.pipeline.expressions.values import is_true
from runnable_ci.runs.reader import Summary
from runnable_ci.runs.retention import age
from runnable_ci.util.text import flattened

STATUSES: Final[Mapping[str, str]] = {
    "succeeded": "SUCCESS",
    "failed": "FAIL",
    "running": "PROCESSING",
    "damaged": "DAMAGED",
}
"""What `--status` takes → what a run log says; its own words are taken too."""
_KEYS: Final[Mapping[str, Callable[[Summary], Any]]] = {
    "started": lambda run: run.start_time,
    "duration": lambda run: run.seconds,
    "run": lambda run: run.run_id,
}


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that all must hold; what is empty is none."""

    status: str = ""
    branch: str = ""
    commit: str = ""
    """How it begins."""
    tag: str = ""
    pipeline: str = ""
    since: str = ""
    """A time, or an age such as `12h`, `30d`."""
    until: str = ""
    where: Sequence[str] = ()
    """Conditions on metrics and parameters: `score > 0.9 && parameters.lr == 0.1`."""
    sort: str = ""
    """A metric or parameter, `duration` or `run`; by default when they began."""
    reverse: bool = False
    limit: int | None = None
    """The last so many of those found."""


def select(runs: Iterable[Summary], query: Query, *, moment: datetime) -> list[Summary]:
    """Return the runs of a listing, the newest last, that a query finds, in its order.

    A run that has not what a condition names is not among them. Raises `UsageError` for a condition that is none, for
    a name that no run has, and for what is no time.
    """
    found = list(runs)
    conditions = [_parsed(text) for text in query.where]
    for condition in conditions:
        _require_known(condition, found)
    kept = [run for run in found if _fits(run, query, moment) and all(_holds(it, run) for it in conditions)]
    if query.sort and query.sort != "started":
        value = _sorted_by(query.sort, found)
        kept = [run for run in kept if _is_ordered(value(run))]
        kept.sort(key=lambda run: _order(value(run)))
    if query.reverse:
        kept.reverse()
    return kept if query.limit is None else kept[max(0, len(kept) - query.limit) :]


def _fits(run: Summary, query: Query, moment: datetime) -> bool:
    status = STATUSES.get(query.status, query.status)
    return (
        status in ("", run.status)
        and query.branch in ("", run.ref)
        and run.commit.startswith(query.commit)
        and query.tag in ("", run.tag)
        and query.pipeline in ("", run.name)
        and (not query.since or _time(run.start_time) >= _moment(query.since, moment))
        and (not query.until or _time(run.start_time) <= _moment(query.until, moment))
    )


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(text: str, moment: datetime) -> datetime:
    """Return a moment of a date, a time, or an age. Raises `UsageError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    try:
        return moment - age(text)
    except UsageError:
        raise UsageError(f"`{text}` is no time", hint="such as 2026-11-01, 2026-11-01T12:00, 12h, 30d or 8w") from None


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


def _order(value: Any) -> tuple[bool, float, str]:
    """Return the sort key of a value: numbers before texts."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")
