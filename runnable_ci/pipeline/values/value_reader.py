"""Text as a value: the one reader, which knows what is declared of it. Pure.

A value whose type is declared nowhere keeps its text: it is a number, a boolean or null only where writing that gives
the same text again. The `read_…` functions raise `ValueError` with what is wrong, to follow the name of the value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.validation import not_json, shown

ValueType = Literal["text", "number", "boolean", "list", "table", "any"]
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_EXPONENT: Final = re.compile(r"e\+?(-?)0?([0-9])")
_NOT_FINITE: Final = re.compile(r"([+-]?)(?:(nan(?:\([a-z0-9_]*\))?|na)|inf(?:inity)?)", re.IGNORECASE)
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_DESCRIPTIONS: Final[Mapping[ValueType, str]] = {
    "text": "text",
    "number": "a number",
    "boolean": "a boolean",
    "list": "a list",
    "table": "a table",
    "any": "a value",
}
_HINTS: Final[Mapping[ValueType, str]] = {
    "text": "put it in quotes",
    "number": "such as 5, 0.5 or 1e-3; or null",
    "boolean": "true or false; or null",
    "list": "write it as JSON, such as [1, 2]; or null",
    "table": 'write it as JSON, such as {"depth": 5}, or give one key: NAME.depth=5; or null',
}
NOT_JSON_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
"""How metrics have the numbers that JSON lacks."""


class AmbiguousText(str):
    """A word of a file that its readers read in two ways, such as YAML's `no`: only a declared type says in which."""

    __slots__ = ()


class Declared(NamedTuple):
    """What is declared of a parameter, by a value that it has or by an input."""

    type: ValueType = "any"
    where: str = ""
    """What declares it, as messages name it."""
    keys: Mapping[str, Declared] = MappingProxyType({})
    """Of a table: what is declared of its keys."""
    options: tuple[Any, ...] = ()
    """The values that it may have; any where there is none."""
    is_secret: bool = False
    """Whether no message may show a value."""

    @classmethod
    def by_value(cls, value: Any, where: str) -> Declared:
        """Return what a value declares of others of its name."""
        keys = {key: cls.by_value(item, where) for key, item in value.items()} if isinstance(value, dict) else {}
        return cls(type_of(value), where, keys)

    def hidden(self) -> Declared:
        """Return the declaration of a secret."""
        return self._replace(is_secret=True, keys={key: one.hidden() for key, one in self.keys.items()})

    def read(self, text: str, name: str) -> Any:
        """Return text as a value of the declared type. Raises `UsageError` with the value's `name`."""
        return self.accept(self._read(text, name), name)

    def accept(self, value: Any, name: str) -> Any:
        """Return a value that has a type of its own as one of the declared type: text in it is read.

        Raises `UsageError` with the value's `name`.
        """
        if isinstance(value, AmbiguousText) and self.type not in ("boolean", "text"):
            raise UsageError(f"{name}: {value} is read in two ways", hint="text in quotes; true, false; 10, 1e6, 0.5")
        if isinstance(value, str) and self.type not in ("any", "text"):
            value = self._read(value, name)
        elif self.type == "boolean" and type_of(value) == "number" and value in (0, 1):
            value = bool(value)
        if value is not None and self.type not in ("any", type_of(value)):
            raise self._refusal(value, name)
        if isinstance(value, dict):
            unknown = Declared()
            return {key: self.keys.get(key, unknown).accept(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [Declared().accept(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return self._checked(str(value) if isinstance(value, AmbiguousText) else value, name)

    def _read(self, text: str, name: str) -> Any:
        if self.type not in ("any", "text") and text.strip() == "null":
            return None
        try:
            return read_as(text, self.type)
        except ValueError as e:
            raise self._refusal(text, name) from e

    def _checked(self, value: Any, name: str) -> Any:
        if self.options and value is not None and all(type_of(o) != type_of(value) or o != value for o in self.options):
            options = ", ".join(map(shown, self.options))
            near = did_you_mean(str(value), map(str, self.options), "give one of these")
            raise UsageError(f"{name} is one of {options} in {self.where}, not {self._shown(value)}", hint=near)
        return value

    def _refusal(self, value: Any, name: str) -> UsageError:
        what = f"{name} is {_DESCRIPTIONS[self.type]} in {self.where}, not {self._shown(value)}"
        return UsageError(what, hint=_HINTS.get(self.type, ""))

    def _shown(self, value: Any) -> str:
        return "what is given for it" if self.is_secret else shown(value)


def type_of(value: Any) -> ValueType:
    """Return the type of a value, `any` of null and of what is no JSON."""
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "table"
        case _:
            return "any"


def read_as(text: str, declared: ValueType) -> Any:
    """Return text as a value of a type."""
    match declared:
        case "text":
            return text
        case "number":
            return read_number(text)
        case "boolean":
            return read_boolean(text)
        case "list" | "table":
            value = read_json(text)
            if type_of(value) != declared:
                raise ValueError(f"is not {_DESCRIPTIONS[declared]}")
            return value
        case "any":
            return read_untyped(text)


def read_untyped(text: str) -> Any:
    """Return JSON where writing it gives the same text, else the text.

    Two spellings of an exponent are the same text (`1e-05`, `1E-5`), a list or table is that however it is written.
    Text in quotes keeps them: `"json"` is what reads them.
    """
    try:
        value = read_json(text)
    except ValueError:
        return text
    is_kept = isinstance(value, list | dict) or _spelling(json.dumps(value)) == _spelling(text)
    return value if is_kept and not isinstance(value, str) else text


def _spelling(number: str) -> str:
    """Return a number with its exponent as short as it can be written."""
    return _EXPONENT.sub(r"e\1\2", number.lower(), count=1)


def read_json(text: str) -> Any:
    """Return the value of JSON as the standard has it: no `NaN`, no number that is larger than any."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as e:
        raise ValueError(f"is not JSON: {e.msg.lower()} at line {e.lineno}, column {e.colno}") from e
    except RecursionError as e:
        raise ValueError("is nested too deeply") from e
    if problem := not_json(value):
        raise ValueError(f"is not JSON: {problem}")
    return value


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"is not JSON: {word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"is not JSON: {digits[:40]} is too large")
    return number


def read_number(text: str) -> int | float:
    """Return a number as C, Python, bc and R write it: `.50`, `+0.5`, `5.`, `007`, `1e3`; not `1_000` or `0x1f`."""
    digits = text.strip()
    if not _NUMBER.fullmatch(digits):
        raise ValueError("is not a number")
    number = int(digits) if _INTEGER.fullmatch(digits) and len(digits) < 4000 else float(digits)
    if problem := not_json(number):
        raise ValueError(f"is too large: {problem}")
    return number


def read_boolean(text: str) -> bool:
    """Return true for `true`, `yes`, `on`, `1`, and false for `false`, `no`, `off`, `0`, in any letter case."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("is not a boolean")
    return word in _TRUE


def read_metric(text: str) -> Any:
    """Return a metric: a number, also one that is not finite (`nan`, `-inf`, R's `NA`), or numbers in lists and tables.

    Those that are not finite are the texts `NaN`, `Infinity` and `-Infinity`.
    """
    if found := _NOT_FINITE.fullmatch(text.strip()):
        sign, nan = found.groups()
        return "NaN" if nan else f"{'-' if sign == '-' else ''}Infinity"
    try:
        return read_number(text)
    except ValueError as e:
        try:
            value = json.loads(text, parse_constant=str, parse_float=_finite)
        except (ValueError, RecursionError):
            raise e from None
        if not isinstance(value, list | dict) or not_json(value):
            raise
    if place := next(_not_numbers(value, ""), ""):
        raise ValueError(f"is not a number at `{place}`")
    return value


def _not_numbers(value: Any, place: str) -> Any:
    """Yield the places in a metric where something else than a number is."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_numbers(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_numbers(item, f"{place}[{i}]")
    elif type_of(value) != "number" and value not in NOT_JSON_NUMBERS:
        yield place or "?"


def environment_text(value: Any) -> str:
    """Return a parameter as an environment variable: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
