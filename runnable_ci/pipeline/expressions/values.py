"""What values are to expressions: true or false, equal, a number, a text; and the functions on them. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from runnable_ci.pipeline.expressions.syntax import ExpressionError, number_of
from runnable_ci.pipeline.validation import not_json

TEXT_MAX: Final = 1024 * 1024
"""Characters that a function may make: `format` within `format` doubles."""
_NUMBER: Final = re.compile(
    r"[+-]?(?:0x[0-9a-f]+|0o[0-7]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII
)
_PLACE: Final = re.compile(r"\{\{|\}\}|\{([0-9]+)\}|[{}]", re.ASCII)


class FoundItems(list[Any]):
    """What `.*` found: what follows is looked for in each."""


def is_true(value: Any) -> bool:
    """Return whether a value counts as true: all but false, null, zero, NaN and the empty text."""
    match value:
        case None | bool() | str():
            return bool(value)
        case int() | float():
            return value != 0 and not math.isnan(value)
        case _:
            return True


def number(value: Any) -> int | float:
    """Return a value as a number, NaN where it is none."""
    match value:
        case None:
            return 0
        case bool():
            return int(value)
        case int() | float():
            return value
        case str():
            text = value.strip()
            if not text:
                return 0
            if len(text) <= 1000 and _NUMBER.fullmatch(text):
                return number_of(text)
            return {"Infinity": math.inf, "-Infinity": -math.inf}.get(text, math.nan)
        case _:
            return math.nan


def text(value: Any) -> str:
    """Return a value as text: a list or table as JSON, null as the empty text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def compare(sign: str, left: Any, right: Any) -> bool:
    """Return whether a comparison holds: of texts whatever their case, of lists and tables by content, else of
    numbers.
    """
    if isinstance(left, str) and isinstance(right, str):
        left, right = left.casefold(), right.casefold()
    elif isinstance(left, list | Mapping) and isinstance(right, list | Mapping):
        left, right = _canonical(left), _canonical(right)
        if sign not in ("==", "!="):
            return False
    elif left is not None or right is not None:
        left, right = number(left), number(right)
    match sign:
        case "==":
            return bool(left == right)
        case "!=":
            return bool(left != right)
        case "<":
            return left is not None and bool(left < right)
        case "<=":
            return left is None or bool(left <= right)
        case ">":
            return left is not None and bool(left > right)
        case _:
            return left is None or bool(left >= right)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def find(of: Any, key: Any) -> Any:
    """Return what a key finds in a value, None where there is nothing."""
    if isinstance(of, FoundItems):
        return FoundItems(one for item in of for one in _at(item, key))
    return next(iter(_at(of, key)), None)


def _at(of: Any, key: Any) -> list[Any]:
    """Return what is found, or nothing."""
    if isinstance(of, Mapping):
        name = text(key)
        return [of[name]] if name in of else []
    if isinstance(of, list):
        at = number(key)
        return [of[int(at)]] if 0 <= at < len(of) else []
    return []


def items(of: Any) -> FoundItems:
    """Return all that is in a list or table; of what `.*` found, all in each of them."""
    if isinstance(of, FoundItems):
        return FoundItems(one for item in of for one in items(item))
    if isinstance(of, Mapping):
        return FoundItems(of.values())
    return FoundItems(of if isinstance(of, list) else ())


def _contains(search: Any, item: Any) -> bool:
    if isinstance(search, list):
        return any(compare("==", one, item) for one in search)
    return text(item).casefold() in text(search).casefold()


def _starts_with(search: Any, begin: Any) -> bool:
    return text(search).casefold().startswith(text(begin).casefold())


def _ends_with(search: Any, end: Any) -> bool:
    return text(search).casefold().endswith(text(end).casefold())


def _format(form: Any, *values: Any) -> str:
    pieces: list[str] = []
    form, at = text(form), 0
    for place in _PLACE.finditer(form):
        pieces.append(form[at : place.start()])
        at = place.end()
        if place[1] is None and place[0] not in ("{{", "}}"):
            raise ExpressionError(
                f"format: a `{place[0]}` stands alone", hint=f"write `{place[0] * 2}` for the sign itself"
            )
        if place[1] is not None and int(place[1][:9]) >= len(values):
            raise ExpressionError(f"format: there is no value for `{place[0]}`", hint="the first value is {0}")
        pieces.append(place[0][0] if place[1] is None else text(values[int(place[1])]))
        _require_short(pieces[-2:])
    return _joined([*pieces, form[at:]])


def _join(of: Any, separator: Any = ",") -> str:
    if not isinstance(of, list):
        return text(of)
    parts = [text(item) for item in of]
    _require_short([text(separator)] * len(parts))
    return _joined(part for at, item in enumerate(parts) for part in ([text(separator)] if at else []) + [item])


def _require_short(pieces: Iterable[str]) -> None:
    if sum(map(len, pieces)) > TEXT_MAX:
        raise ExpressionError(f"a text has more than {TEXT_MAX} characters")


def _joined(pieces: Iterable[str]) -> str:
    pieces = list(pieces)
    _require_short(pieces)
    return "".join(pieces)


def _to_json(value: Any) -> str:
    return _joined([json.dumps(value, ensure_ascii=False, indent=2)])


def _from_json(value: Any) -> Any:
    try:
        found = json.loads(text(value))
    except (ValueError, RecursionError) as e:
        raise ExpressionError(f"fromJSON: {text(value)[:60]!r} is not JSON") from e
    if problem := not_json(found):
        raise ExpressionError(f"fromJSON: {problem}")
    return found


class Function(NamedTuple):
    """A function that all expressions have."""

    name: str
    """As it is written."""
    least: int
    most: int
    """How many arguments it takes."""
    call: Callable[..., Any]


FUNCTIONS: Final[Mapping[str, Function]] = {
    one.name.lower(): one
    for one in (
        Function("contains", 2, 2, _contains),
        Function("startsWith", 2, 2, _starts_with),
        Function("endsWith", 2, 2, _ends_with),
        Function("format", 1, 255, _format),
        Function("join", 1, 2, _join),
        Function("toJSON", 1, 1, _to_json),
        Function("fromJSON", 1, 1, _from_json),
    )
}
"""By their names in lower case."""
