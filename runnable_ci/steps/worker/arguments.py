"""The arguments of the user's function, by name from the parameters."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The numbers that `inspect` gives the kinds of arguments, for the functions that it is not imported for.
POSITIONAL_ONLY, EITHER, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)
REQUIRED = object()
_METRICS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Parameters:
    """The parameters in scope, decoded or unpickled when they are taken.

    `consumed` grows by the names taken, `defaulted` by those that were asked for and are not there.
    """

    def __init__(self, sources: dict[str, Any], consumed: list[str], defaulted: list[str]) -> None:
        self.sources = sources
        self.consumed = consumed
        self.defaulted = defaulted

    def __contains__(self, name: str) -> bool:
        return name in self.sources

    def has_json(self, name: str) -> bool:
        """Whether there is a parameter of that name which is no object: an object is what its step made of it."""
        return name in self.sources and self.sources[name]["kind"] == "json"

    def take(self, name: str) -> Any:
        """The value; `UnreadableObjectError` where its pickle cannot be loaded in this interpreter."""
        if name not in self.consumed:
            self.consumed.append(name)
        source = self.sources[name]
        if source["kind"] == "object":
            from .objects import load

            return load(source["path"], name)
        return _metric(source["value"]) if source["kind"] == "metric" else source["value"]

    def take_or(self, name: str, default: Any) -> Any:
        """The value, or the default where there is no such parameter."""
        if name in self.sources:
            return self.take(name)
        self.defaulted.append(name)
        return default

    def rest(self) -> list[str]:
        """The names not taken yet whose values are JSON."""
        return [name for name in self.sources if name not in self.consumed and self.sources[name]["kind"] != "object"]


def _metric(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _metric(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_metric(item) for item in value]
    return _METRICS.get(value, value) if isinstance(value, str) else value


def fill(
    function: Any, parameters: Parameters, *, what: str, where: str = "parameter or earlier step"
) -> tuple[list[Any], dict[str, Any]]:
    """What to call the function with; `MissingParameterError` where nothing gives a required argument.

    Only arguments annotated with a pydantic model or a dataclass, or with lists, tuples and dicts of them, are built:
    an annotation is never called as a cast.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    missing = []
    takes_rest = False
    for name, kind, default, annotation in signature(function):
        if kind in (VAR_POSITIONAL, VAR_KEYWORD):
            takes_rest = takes_rest or kind == VAR_KEYWORD
            continue
        model, optional = model_of(annotation)
        if model is not None:
            from .models import build

            value = build(model, parameters, name, default, optional=optional)
        else:
            value = parameters.take_or(name, default)
            if holds_model(annotation) and parameters.has_json(name):
                from .models import built

                value = built(annotation, value, name)
        if value is REQUIRED:
            missing.append((name, model))
        elif kind == POSITIONAL_ONLY:
            positional.append(value)
        elif value is not default:
            named[name] = value
    if missing:
        from .failures import missing_parameter

        raise missing_parameter(missing, parameters.sources, function, what=what, where=where)
    if takes_rest:
        named.update((name, parameters.take(name)) for name in parameters.rest())
    return positional, named


def signature(function: Any) -> list[tuple[str, int, Any, Any]]:
    """Name, kind, default or `REQUIRED`, and annotation or None of each argument, in order."""
    if type(function) is not type(fill) or vars(function):  # decorated, perhaps, or not a plain function
        from .signatures import inspected

        return inspected(function)
    code = function.__code__
    count, keyword_only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = dict(zip(reversed(names[:count]), reversed(function.__defaults__ or ())))
    defaults.update(function.__kwdefaults__ or {})
    kinds = [POSITIONAL_ONLY] * code.co_posonlyargcount + [EITHER] * (count - code.co_posonlyargcount)
    kinds += [KEYWORD_ONLY] * keyword_only + [VAR_POSITIONAL] * bool(code.co_flags & 4)
    kinds += [VAR_KEYWORD] * bool(code.co_flags & 8)
    annotations = _annotations(function)
    return [
        (name, kind, defaults.get(name, REQUIRED), resolved(annotations.get(name), function.__globals__))
        for name, kind in zip(names, kinds)
    ]


def _annotations(function: Any) -> Any:
    """The annotations as they are written, also where Python 3.14 cannot evaluate one of them."""
    try:
        return function.__annotations__ or {}
    except NameError:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
        raise


def resolved(annotation: Any, namespace: dict[str, Any]) -> Any:
    """What an annotation stands for where it is a string, None where that cannot be known.

    One at a time, unlike `typing.get_type_hints`, which gives none of them where one name is imported for type
    checkers only.
    """
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if not isinstance(annotation, str):
        return _resolved_inside(annotation, namespace)
    try:
        found = eval(annotation, namespace)  # noqa: S307  # the user's own source, as `typing` evaluates it
    except Exception:
        return None
    return found if isinstance(found, str) else _resolved_inside(found, namespace)


def _resolved_inside(annotation: Any, namespace: dict[str, Any]) -> Any:
    """`List["Item"]` as `List[Item]`: the members that are strings, where they can be known."""
    inner = members(annotation)
    found = tuple(
        member if isinstance(member, str) or (known := resolved(member, namespace)) is None else known
        for member in inner
    )
    if all(new is old for new, old in zip(found, inner)):
        return annotation
    if is_union(annotation):  # has no `copy_with` since Python 3.14
        return sys.modules["typing"].Union[found]
    copy = getattr(annotation, "copy_with", None)  # of what `typing` made; `list[…]` has none
    return annotation if copy is None else copy(found)


def members(annotation: Any) -> tuple[Any, ...]:
    """What stands in the brackets of an annotation, or between the bars of a union."""
    inner = getattr(annotation, "__args__", ())
    return inner if isinstance(inner, tuple) else ()


def is_union(annotation: Any) -> bool:
    """Whether an annotation is `Union[…]`, `Optional[…]` or `… | …`."""
    typing = sys.modules.get("typing")
    union = getattr(annotation, "__origin__", None) is typing.Union if typing else False
    return union or type(annotation).__name__ == "UnionType"


def holds_model(annotation: Any) -> bool:
    """Whether an annotation is or has in it a pydantic model or a dataclass."""
    return model_of(annotation)[0] is not None or any(map(holds_model, members(annotation)))


def model_of(annotation: Any) -> tuple[Any, bool]:
    """The pydantic model (known by its methods) or dataclass of an annotation, or None; whether it is optional."""
    if is_union(annotation):
        others = [member for member in members(annotation) if member is not type(None)]
        return (model_of(others[0])[0], True) if len(others) == 1 else (None, False)
    marks = ("model_validate", "parse_obj", "__dataclass_fields__")
    is_model = isinstance(annotation, type) and any(hasattr(annotation, mark) for mark in marks)
    return (annotation if is_model else None), False
