"""One argument's value: what its annotation says, built from JSON, or refused.

What an annotation says of types that JSON has no equal for, and that nothing here knows, is a question of `isinstance`.
Where even that has no answer (a protocol, a name that only type checkers import) the value is passed as it is.
"""

from __future__ import annotations

import json
import re
import sys

from .annotations import is_namespace, is_union, members, model_of, resolved
from .errors import WrongParameterError, did_you_mean, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_LISTS = ("list", "Sequence", "MutableSequence", "Collection", "Iterable", "Container", "Reversible")
_DICTS = ("dict", "Mapping", "MutableMapping")
_SETS = ("set", "frozenset", "Set", "MutableSet", "AbstractSet")
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_UNFIT = object()


class Builder:
    """Builds values; `from_table` makes a dataclass or model (the first argument) of a table."""

    def __init__(self, from_table: Callable[[Any, Any, str], Any]) -> None:
        self._from_table = from_table

    def build(self, annotation: Any, value: Any, name: str) -> Any:
        """Return the value as what the annotation says. Raises `WrongParameterError` with `name` where it is none."""
        annotation = _plain_annotation(annotation)
        if _says_nothing(annotation):
            return value
        if is_union(annotation):
            return self._one_of(members(annotation), value, name)
        if value is None:
            if annotation is type(None):
                return None
            raise _wrong(name, value, _described(annotation))
        container = getattr(annotation, "__origin__", None)
        model, _ = model_of(annotation if container is None else container)  # also of a generic one
        if model is not None:
            return value if isinstance(value, model) else self._from_table(model, value, name)
        if _is_literal(annotation):
            return _literal(members(annotation), value, name)
        if isinstance(annotation, type) and container is None:
            return self._of_class(annotation, value, name)
        return self._contained(annotation, container, value, name)

    def _one_of(self, choices: tuple[Any, ...], value: Any, name: str) -> Any:
        """Return the value as the one type of a union that it is of, else as the only one that it can be built as."""
        if value is None and type(None) in choices:
            return None
        others = [choice for choice in map(_plain_annotation, choices) if choice is not type(None)]
        if len(others) == 1:
            return self.build(others[0], value, name)
        if type(value) in others:
            return value
        if type(value) is int and float in others:
            return float(value)
        built: list[Any] = []
        # A number is text only where nothing else is asked for.
        for choice in [choice for choice in others if not _says_nothing(choice) and choice is not str]:
            try:
                found = self.build(choice, value, name)
            except Exception:  # noqa: S112 - a model has exceptions of its own, and is only one of several
                continue
            if not any(_is_same(found, other) for other in built):
                built.append(found)
        if len(built) == 1:
            return built[0]
        if any(map(_says_nothing, others)):
            return value
        if not built:
            raise _wrong(name, value, "one of " + ", ".join(map(_short, choices)))
        kinds = " or ".join(sorted(map(type_name, built)))
        hint = "annotate it with a type of which only one can be built from it"
        raise WrongParameterError("`%s` is %s, which can be %s" % (name, _shown(value), kinds), hint=hint)

    def _of_class(self, kind: Any, value: Any, name: str) -> Any:
        if kind.__name__ in _LISTS + _DICTS + _SETS + ("tuple",) and kind.__module__ in ("builtins", "collections.abc"):
            return self._contained(kind, kind, value, name)
        if is_namespace(kind):
            return kind(**_require_kind(dict, value, name))
        if hasattr(kind, "__total__"):
            return self._typed_dict(kind, value, name)
        if hasattr(kind, "_fields") and issubclass(kind, tuple):
            if isinstance(value, list) and len(value) <= len(kind._fields):
                value = dict(zip(kind._fields, value))
            return self._from_table(kind, value, name)
        built = _scalar(kind, value, name)
        if built is not _UNFIT:
            return built
        try:
            fits = isinstance(value, kind)
        except TypeError:  # a protocol that is only for type checkers
            return value
        if fits:
            return value
        raise _wrong(name, value, _described(kind), hint="return it as `object` from the step that makes it")

    def _typed_dict(self, kind: Any, value: Any, name: str) -> Any:
        types = {
            key: resolved(annotation, vars(sys.modules[kind.__module__]))
            for base in reversed(kind.__mro__)
            for key, annotation in getattr(base, "__annotations__", {}).items()
        }
        table = _require_kind(dict, value, name)
        required = getattr(kind, "__required_keys__", types if kind.__total__ else ())
        for key in sorted(required):
            if key not in table:
                raise WrongParameterError("`%s` has no `%s`, which `%s` needs" % (name, key, kind.__name__))
        return {key: self.build(types.get(key), item, '%s["%s"]' % (name, key)) for key, item in table.items()}

    def _contained(self, annotation: Any, origin: Any, value: Any, name: str) -> Any:
        container, inner = getattr(origin, "__name__", ""), members(annotation)
        if container in _LISTS:
            return self._items(inner, _require_kind(list, value, name), name)
        if container in _SETS:
            items = self._items(inner, _require_kind(list, value, name), name)
            return frozenset(items) if container == "frozenset" else set(items)
        if container in _DICTS:
            of_key, of_item = inner[:2] if len(inner) == 2 else (None, None)
            return {
                self.build(of_key, key, '%s["%s"]' % (name, key)): self.build(of_item, item, '%s["%s"]' % (name, key))
                for key, item in _require_kind(dict, value, name).items()
            }
        if container == "tuple":
            return self._tuple(inner, _require_kind(list, value, name), name)
        try:
            if isinstance(value, origin):
                return value
        except TypeError:  # of a form that has no instances
            return value
        raise _wrong(name, value, _described(annotation))

    def _items(self, inner: tuple[Any, ...], items: list[Any], name: str) -> list[Any]:
        return [self.build(inner[0] if inner else None, item, "%s[%d]" % (name, i)) for i, item in enumerate(items)]

    def _tuple(self, inner: tuple[Any, ...], items: list[Any], name: str) -> tuple[Any, ...]:
        if not inner or inner[-1] is Ellipsis:
            return tuple(self._items(inner, items, name))
        if len(items) != len(inner):
            raise WrongParameterError("`%s` has %d items, its annotation %d" % (name, len(items), len(inner)))
        return tuple(self.build(one, item, "%s[%d]" % (name, i)) for i, (one, item) in enumerate(zip(inner, items)))


def _plain_annotation(annotation: Any) -> Any:
    """Return the type in `Annotated[…]`, `NewType`, `Required[…]` and the like."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif getattr(getattr(annotation, "__origin__", None), "_name", "") in ("Required", "NotRequired", "Final"):
            annotation = annotation.__args__[0]
        else:
            return annotation


def _says_nothing(annotation: Any) -> bool:
    """Return whether an annotation is that of any value, or of one that is not known."""
    if annotation is None or annotation is object or isinstance(annotation, str):
        return True
    typing = sys.modules.get("typing")
    return typing is not None and (annotation is typing.Any or isinstance(annotation, typing.TypeVar))


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are the same, 5 and 5.0 too, but not 1 and true."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _scalar(kind: Any, value: Any, name: str) -> Any:
    """Return a value of a class that JSON's scalars or texts can be, `_UNFIT` where the class is none of these."""
    if kind is bool:
        found = _BOOLEANS.get(str(value).strip().lower(), _UNFIT) if isinstance(value, (str, bool, int)) else _UNFIT
        return _required(found, kind, value, name)
    if _is_kind(kind, "enum", "Enum"):
        return _required(_member(kind, value), kind, value, name)
    if issubclass(kind, str):
        text = value if isinstance(value, str) else _text_of(value)
        found = _UNFIT if text is None else text if kind is str else kind(text)
        return _required(found, kind, value, name)
    if kind in (int, float, complex) or _is_kind(kind, "numbers", "Number") or issubclass(kind, (int, float)):
        return _required(_number(kind, value), kind, value, name)
    of_text = _is_kind(kind, "pathlib", "PurePath") or _is_kind(kind, "uuid", "UUID")
    is_time = _is_kind(kind, "datetime", "date") or _is_kind(kind, "datetime", "time")
    if kind is getattr(sys.modules.get("os"), "PathLike", None):
        import pathlib

        kind, of_text = pathlib.Path, True
    if of_text or is_time:
        if not isinstance(value, str):
            raise _wrong(name, value, _described(kind))
        try:
            return _time(kind, value) if is_time else kind(value)
        except ValueError as error:
            raise _wrong(name, value, _described(kind)) from error
    return _UNFIT


def _required(found: Any, kind: Any, value: Any, name: str) -> Any:
    if found is _UNFIT:
        raise _wrong(name, value, _described(kind))
    return found


def _number(kind: Any, value: Any) -> Any:
    """Return a number of a class; `_UNFIT` where that would be another number."""
    if isinstance(value, bool):
        return _UNFIT
    if isinstance(value, str):
        text = value.strip()
        if _is_kind(kind, "decimal", "Decimal") or _is_kind(kind, "fractions", "Fraction"):
            return kind(text) if _NUMBER.fullmatch(text) else _UNFIT
        if _INTEGER.fullmatch(text):
            value = int(text)
        elif _NUMBER.fullmatch(text):
            value = float(text)
    if not isinstance(value, (int, float)):
        return _UNFIT
    if issubclass(kind, int):
        if isinstance(value, float) and not value.is_integer():
            return _UNFIT
        return kind(int(value))
    try:
        if _is_kind(kind, "decimal", "Decimal") or _is_kind(kind, "fractions", "Fraction"):
            return kind(repr(value))
        built = kind(value)
    except (ValueError, OverflowError, TypeError):  # an abstract class; a number that is too large
        return value if isinstance(value, kind) else _UNFIT
    return built


def _member(kind: Any, value: Any) -> Any:
    """Return the member of an enum: by its value, else by its name, else by how its value is written."""
    given = tuple(value) if isinstance(value, list) else value
    for member in kind:
        if type(member.value) is type(given) and member.value == given:
            return member
    if isinstance(value, str) and value in kind.__members__:
        return kind.__members__[value]
    written = [member for member in kind if _text_of(member.value) == _text_of(value) is not None]
    return written[0] if len(written) == 1 else _UNFIT


def _literal(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    written = [
        choice for choice in choices if _text_of(getattr(choice, "value", choice)) == _text_of(value) is not None
    ]
    if len(written) == 1:
        return written[0]
    near = did_you_mean(str(value), [str(choice) for choice in choices])
    raise _wrong(name, value, "one of " + ", ".join(map(repr, choices)), hint=near)


def _time(kind: Any, text: str) -> Any:
    if _is_kind(kind, "datetime", "datetime") or _is_kind(kind, "datetime", "time"):
        if _is_kind(kind, "datetime", "datetime") and not _DATE.match(text):
            raise ValueError
        return kind.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "Zz" else text)
    if not _DATE.fullmatch(text):
        raise ValueError
    return kind.fromisoformat(text)


def _is_kind(kind: Any, module: str, name: str) -> bool:
    """Return whether a class is one of a module's, which is loaded where an annotation has it."""
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and issubclass(kind, base)


def _is_literal(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return origin is not None and getattr(origin, "_name", "") == "Literal"


def _text_of(value: Any) -> str | None:
    """Return a scalar as a shell step gets it, None for what is none."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (bool, int, float)) else None


def _require_kind(kind: Any, value: Any, name: str) -> Any:
    if isinstance(value, kind):
        return value
    what = "list" if kind is list else "table"
    raise WrongParameterError(
        "`%s` is of type %s, not the %s that its annotation asks for" % (name, type_name(value), what)
    )


def _wrong(name: str, value: Any, expected: str, *, hint: str = "") -> WrongParameterError:
    return WrongParameterError("`%s` is %s, not %s" % (name, _shown(value), expected), hint=hint)


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    if value is None or isinstance(value, (bool, int, float, str)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:57] + "..."
    return "of type " + type_name(value)


def _short(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _described(kind: Any) -> str:
    """Return what an annotation asks for, in words."""
    if isinstance(kind, type):
        if _is_kind(kind, "enum", "Enum"):
            listed: Any = kind
            return "one of %s (%s)" % (", ".join(str(member.value) for member in listed), kind.__name__)
        if _is_kind(kind, "pathlib", "PurePath"):
            return "a path"
        if _is_kind(kind, "datetime", "datetime"):
            return "a datetime such as 2026-01-31T12:00"
        if _is_kind(kind, "datetime", "date"):
            return "a date such as 2026-01-31"
    text = _short(kind)
    return "%s %s" % ("an" if text[:1].lower() in "aeiou" else "a", text)
