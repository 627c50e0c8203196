"""What the user's function returned, as the step's `returns` declare it."""

from __future__ import annotations

import enum
import json
import os

from .errors import WrongReturnsError, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DEEPEST = 100
_LONGEST_INT_BITS = 14_000  # Python refuses to read integers of more than 4300 digits
_INFINITY = float("inf")


def keep(result: Any, returns: list[list[str]], objects: str, function: Any, name: str) -> dict[str, Any]:
    """Return the value or, for an object, the file of each declared return.

    Pickles are written to the folder `objects`.
    """
    what = "function `%s`" % name
    values = _matched(result, [key for key, _ in returns], function, what)
    return keep_values([(key, kind, value) for (key, kind), value in zip(returns, values)], objects, function, what)


def keep_values(returned: list[tuple[str, str, Any]], objects: str, function: Any, what: str) -> dict[str, Any]:
    """Return the value or, for an object, the file of each return: its name, kind and value."""
    kept: dict[str, Any] = {}
    for key, kind, value in returned:
        if kind == "object":
            from .objects import dump  # takes pickle along, which most steps do not need

            pickler = dump(value, os.path.join(objects, key + ".pickle"), name=key, function=function, what=what)
            kept[key] = {"kind": kind, "file": key + ".pickle", "type": type_name(value), "pickler": pickler}
        else:
            kept[key] = {
                "kind": "json" if kind == "text" else kind,
                "value": _checked(value, key, kind, function, what),
            }
    return kept


def _matched(result: Any, names: list[str], function: Any, what: str) -> list[Any]:
    if len(names) == 1:
        return [result]
    if isinstance(result, dict) and set(result) == set(names):
        return [result[name] for name in names]
    if isinstance(result, (tuple, list)) and len(result) == len(names):
        return list(result)
    if isinstance(result, (tuple, list)):
        got = "%d value%s" % (len(result), "" if len(result) == 1 else "s")
    elif isinstance(result, dict):
        got = "a dict with the keys %s" % ", ".join(map(str, result))
    else:
        got = "nothing" if result is None else "one value of type %s" % type_name(result)
    problem = "%s returned %s, the step's `returns` names %d (%s)" % (what, got, len(names), ", ".join(names))
    raise WrongReturnsError(problem, hint="return a tuple in the order of `returns`", at=function)


def _checked(value: Any, name: str, kind: str, function: Any, what: str) -> Any:
    try:
        return _require_text(value) if kind == "text" else _plain(value, kind == "metric", _DEEPEST)
    except _UnfitError as unfit:
        holder = {"metric": "a metric", "text": "text"}.get(kind, "JSON")
        problem = "%s returned what %s cannot hold: `%s%s` %s" % (what, holder, name, unfit.path, unfit.problem)
        hint = unfit.hint or "declare `%s` as `object` in the step's `returns`" % name
        raise WrongReturnsError(problem, hint=hint, at=function) from None


class _UnfitError(Exception):
    """A value inside a return that JSON has no equal for, and the way to it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem, self.hint, self.path = problem, hint, ""


def _require_text(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    raise _UnfitError("is of type %s" % type_name(value), "return str(…), or declare another kind")


def _plain(value: Any, metric: bool, depth: int) -> Any:
    """Return the value in JSON's own types: nothing is lost or changed on the way, else `_UnfitError`.

    The non-finite numbers of a metric become the strings `NaN`, `Infinity` and `-Infinity`.
    """
    if depth == 0:
        raise _UnfitError("is nested deeper than %d levels, or contains itself" % _DEEPEST)
    if isinstance(value, (list, tuple)):
        return _items(value, metric, depth)
    if isinstance(value, dict):
        return _entries(value, metric, depth)
    if isinstance(value, float):
        return _float(float(value), metric)
    if value is None or isinstance(value, (bool, str)):
        if metric:
            hint = "a metric is a number, or numbers in lists and dicts"
            raise _UnfitError("is not a number but %r" % (value,), hint)
        return _text(value) if isinstance(value, str) else value
    if isinstance(value, int):
        if value.bit_length() > _LONGEST_INT_BITS:
            raise _UnfitError("is an integer of more than 4200 digits")
        return int(value)
    return _plain(_converted(value), metric, depth - 1)


def _items(value: Any, metric: bool, depth: int) -> list[Any]:
    plain: list[Any] = []
    try:
        for item in value:
            plain.append(_plain(item, metric, depth - 1))  # noqa: PERF401  # its length tells where an error is
    except _UnfitError as unfit:
        unfit.path = "[%d]%s" % (len(plain), unfit.path)
        raise
    return plain


def _entries(value: dict[Any, Any], metric: bool, depth: int) -> dict[str, Any]:
    plain = {}
    key = None
    try:
        for key, item in value.items():
            plain[_key(key)] = _plain(item, metric, depth - 1)
    except _UnfitError as unfit:
        if isinstance(key, str):
            unfit.path = '["%s"]%s' % (key, unfit.path)
        raise
    return plain


def _float(value: float, metric: bool) -> float | str:
    if value - value == 0:
        return value
    name = "NaN" if value != value else ("Infinity" if value == _INFINITY else "-Infinity")
    if not metric:
        raise _UnfitError("is %s" % name, "declare it as `metric` or as `object`, or return None for it")
    return name


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
    raise _UnfitError("has a key that is not a string but %r" % (key,))


def _text(value: str) -> str:
    """Return a plain string of the same characters; lone surrogates (undecodable file names) are no text."""
    value = str.__str__(value)  # an enum's own `str` is another text
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _UnfitError("is not valid Unicode text: %a" % value) from error
    return value


def _converted(value: Any) -> Any:
    """Return what models, dataclasses and scalars of number libraries say themselves that they are in JSON."""
    kind = type(value)
    if hasattr(kind, "model_validate"):
        return value.model_dump(mode="json")
    if hasattr(kind, "parse_obj"):
        return json.loads(value.json())
    if hasattr(kind, "__dataclass_fields__"):
        import dataclasses  # the user's code has it already

        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        if type(item) in (bool, int, float, str):
            return item
    hint = ""
    if isinstance(value, os.PathLike):
        hint = "return str(path), or keep the file itself by `catalog.put`"
    elif isinstance(value, enum.Enum):
        hint = "return the `.value` of the enum"
    raise _UnfitError("is of type %s" % type_name(value), hint)
