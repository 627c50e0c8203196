"""The arguments of the user's function, by name from the parameters.

An argument is built from its value as its annotation says. One of a pydantic model (version 1 or 2) or a dataclass may
also be built from the parameters of its fields, an `argparse.Namespace` from all of them.
"""

from __future__ import annotations

import inspect
import sys

from .annotations import is_namespace, model_of, signature
from .argument_values import Builder
from .errors import MissingParameterError, WrongParameterError, did_you_mean, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REQUIRED = inspect.Parameter.empty
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
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

    def has_value(self, name: str) -> bool:
        """Return whether there is a parameter of that name which is no object: an object is what its step made of
        it.
        """
        return name in self.sources and self.sources[name]["kind"] != "object"

    def values(self) -> dict[str, Any]:
        """Return all that are no objects."""
        return {name: self.take(name) for name in self.sources if self.has_value(name)}

    def take(self, name: str) -> Any:
        """Return the value; `UnreadableObjectError` where its pickle cannot be loaded in this interpreter."""
        if name not in self.consumed:
            self.consumed.append(name)
        source = self.sources[name]
        if source["kind"] == "object":
            from .objects import load  # takes pickle along, which most steps do not need

            if "paths" in source:  # of the instances of a matrix
                return [load(path, name) if path else None for path in source["paths"]]
            return load(source["path"], name)
        return _metric(source["value"]) if source["kind"] == "metric" else source["value"]

    def take_or(self, name: str, default: Any) -> Any:
        """Return the value, or the default where there is no such parameter."""
        if name in self.sources:
            return self.take(name)
        self.defaulted.append(name)
        return default

    def rest(self) -> list[str]:
        """Return the names not taken yet whose values are JSON."""
        return [name for name in self.sources if name not in self.consumed and self.sources[name]["kind"] != "object"]


def _metric(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _metric(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_metric(item) for item in value]
    return _METRICS.get(value, value) if isinstance(value, str) else value


def fill(
    function: Any, parameters: Parameters, *, what: str, where: str = "parameter or earlier step", within: str = ""
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of the call; messages call them as they do what they are `within`, such as `model.`.

    Raises `MissingParameterError` where nothing provides a required one, `WrongParameterError` for a value of another
    type than its annotation.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    missing = []
    rest: list[Any] = []
    for argument in signature(function):
        if argument.kind in _VARIADIC:
            rest += [argument.annotation] if argument.kind == argument.VAR_KEYWORD else []
            continue
        name, default, annotation = argument.name, argument.default, argument.annotation
        model, optional = model_of(annotation)
        if model is not None:
            value = _build_argument(model, parameters, name, default, optional=optional)
        elif is_namespace(annotation) and name not in parameters:
            value = sys.modules["argparse"].Namespace(**parameters.values())
        else:
            value = _built(annotation, parameters, name, default, within=within)
        if value is REQUIRED:
            missing.append((name, model))
        elif argument.kind == argument.POSITIONAL_ONLY:
            positional.append(value)
        elif value is not default:
            named[name] = value
    if missing:
        raise _missing_parameter(missing, parameters.sources, function, what=what, where=where)
    for annotation in rest:
        named.update((name, _built(annotation, parameters, name, None, within=within)) for name in parameters.rest())
    return positional, named


def _built(annotation: Any, parameters: Parameters, name: str, default: Any, *, within: str) -> Any:
    """Return the value of an argument as its annotation says; the default, and an object, as it is."""
    value = parameters.take_or(name, default)
    if not parameters.has_value(name) or annotation is REQUIRED or (value is None and default is None):
        return value
    return Builder(_from_value).build(annotation, value, within + name)


def _missing_parameter(
    missing: list[tuple[str, Any]], sources: dict[str, Any], function: Any, *, what: str, where: str
) -> MissingParameterError:
    """Return the error for arguments (name, annotated model or None) that nothing gives."""
    hints = []
    for name, model in missing:
        hint = did_you_mean(name, sources)
        if model is not None:
            lacking = [names[0] for names, required in _fields(model) if required and not _given(names, sources)]
            fields = ", ".join("`%s`" % field for field in lacking)
            hint = "specify `%s`, or the missing fields of %s: %s" % (name, model.__name__, fields)
        if hint:
            hints.append(hint)
    names = ", ".join("`%s`" % name for name, _ in missing)
    problem = "%s needs %s, which no %s provides" % (what, names, where)
    return MissingParameterError(problem, hint="; ".join(hints), at=function)


def _build_argument(model: Any, parameters: Parameters, argument: str, default: Any, *, optional: bool) -> Any:
    """Return the instance for one argument: from the parameter of its name, else from those of the model's fields.

    `default` where there is neither. What a model has to say against the values is its own exception.
    """
    if argument in parameters:
        value = parameters.take(argument)
        if isinstance(value, model) or (value is None and (optional or default is None)):
            return value
        return _from_value(model, value, argument)
    fields = _fields(model)
    if any(required and not _given(names, parameters) for names, required in fields):
        return default
    used = [key for key in (_given(names, parameters) for names, _ in fields) if key]
    if not used and default is not REQUIRED:
        return default
    if _is_pydantic(model):
        return _validated(model, {key: parameters.take(key) for key in used})
    sources = {key: parameters.sources[key] for key in used}
    return _constructed(model, Parameters(sources, parameters.consumed, []), argument)


def _from_value(model: Any, value: Any, name: str) -> Any:
    if _is_pydantic(model):
        return _validated(model, value)
    if not isinstance(value, dict):
        problem = "`%s` is of type %s, not the table that dataclass `%s` is built from"
        raise WrongParameterError(problem % (name, type_name(value), model.__name__))
    known = [field for names, _ in _fields(model) for field in names]
    for key in value:
        if key not in known:
            problem = "`%s` has `%s`, which is no field of dataclass `%s`" % (name, key, model.__name__)
            raise WrongParameterError(problem, hint=did_you_mean(key, known))
    sources = {key: {"kind": "json", "value": item} for key, item in value.items()}
    return _constructed(model, Parameters(sources, [], []), name, within="%s." % name)


def _constructed(model: Any, parameters: Parameters, name: str, *, within: str = "") -> Any:
    what = "dataclass `%s`" % model.__name__
    args, kwargs = fill(model, parameters, what=what, where="key of `%s`" % name, within=within)
    return model(*args, **kwargs)


def _validated(model: Any, value: Any) -> Any:
    return model.model_validate(value) if hasattr(model, "model_validate") else model.parse_obj(value)


def _is_pydantic(model: Any) -> bool:
    return hasattr(model, "model_validate") or hasattr(model, "parse_obj")


def _given(names: tuple[str, ...], parameters: Any) -> str | None:
    return next((name for name in names if name in parameters), None)


def _fields(model: Any) -> list[tuple[tuple[str, ...], bool]]:
    """Return the names (with aliases) of each field, and whether it is required."""
    if hasattr(model, "model_validate"):
        return [
            (_names(name, field.validation_alias, field.alias), field.is_required())
            for name, field in model.model_fields.items()
        ]
    if hasattr(model, "parse_obj"):
        return [(_names(name, field.alias), bool(field.required)) for name, field in model.__fields__.items()]
    return [
        ((argument.name,), argument.default is REQUIRED)
        for argument in signature(model)
        if argument.kind not in _VARIADIC
    ]


def _names(name: str, *aliases: Any) -> tuple[str, ...]:
    return (name, *(alias for alias in aliases if isinstance(alias, str) and alias != name))
