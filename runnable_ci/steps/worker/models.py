"""Arguments built from their annotation: pydantic models (version 1 or 2) and dataclasses, and containers of these."""

from __future__ import annotations

from .arguments import (
    REQUIRED,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Parameters,
    fill,
    holds_model,
    is_union,
    members,
    model_of,
    signature,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build(model: Any, parameters: Parameters, argument: str, default: Any, *, optional: bool) -> Any:
    """The instance for one argument: from the parameter of its name, else from those of the model's fields.

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


_LISTS = ("list", "Sequence", "MutableSequence", "Collection", "Iterable")
_DICTS = ("dict", "Mapping", "MutableMapping")


def built(annotation: Any, value: Any, name: str) -> Any:
    """The value with all the models in it that the annotation names; what else is in it stays as it is.

    Left alone are unions of more than one type beside None, and containers other than lists, tuples and dicts.
    """
    model, optional = model_of(annotation)
    if model is not None:
        is_built = isinstance(value, model) or (value is None and optional)
        return value if is_built else _from_value(model, value, name)
    if not holds_model(annotation):
        return value
    inner = members(annotation)
    if is_union(annotation):
        others = [member for member in inner if member is not type(None)]
        if len(others) > 1 or value is None:
            return value
        return built(others[0], value, name)
    container = getattr(getattr(annotation, "__origin__", None), "__name__", "")
    if container in _LISTS:
        return [built(inner[0], item, "%s[%d]" % (name, i)) for i, item in enumerate(_as(list, value, name))]
    if container in _DICTS:
        return {key: built(inner[-1], item, '%s["%s"]' % (name, key)) for key, item in _as(dict, value, name).items()}
    if container == "tuple":
        items = _as(list, value, name)
        types = inner[:1] * len(items) if inner[-1] is Ellipsis else inner
        if len(items) != len(types):
            raise _wrong("`%s` has %d items, its annotation %d" % (name, len(items), len(types)))
        return tuple(built(one, item, "%s[%d]" % (name, i)) for i, (one, item) in enumerate(zip(types, items)))
    return value


def _as(kind: Any, value: Any, name: str) -> Any:
    from .returns import type_name

    if isinstance(value, kind):
        return value
    what = "list" if kind is list else "table"
    raise _wrong("`%s` is of type %s, not the %s that its annotation asks for" % (name, type_name(value), what))


def _wrong(problem: str) -> Exception:
    from .failures import WrongParameterError

    return WrongParameterError(problem)


def missing_fields(model: Any, sources: dict[str, Any]) -> list[str]:
    """The fields that a model cannot be built without and that no parameter gives."""
    return [names[0] for names, required in _fields(model) if required and not _given(names, sources)]


def _from_value(model: Any, value: Any, name: str) -> Any:
    if _is_pydantic(model):
        return _validated(model, value)
    from .failures import WrongParameterError, did_you_mean
    from .returns import type_name

    if not isinstance(value, dict):
        problem = "`%s` is of type %s, not the table that dataclass `%s` is built from"
        raise WrongParameterError(problem % (name, type_name(value), model.__name__))
    known = [field for names, _ in _fields(model) for field in names]
    for key in value:
        if key not in known:
            problem = "`%s` has `%s`, which is no field of dataclass `%s`" % (name, key, model.__name__)
            raise WrongParameterError(problem, hint=did_you_mean(key, known))
    sources = {key: {"kind": "json", "value": item} for key, item in value.items()}
    return _constructed(model, Parameters(sources, [], []), name)


def _constructed(model: Any, parameters: Parameters, name: str) -> Any:
    args, kwargs = fill(model, parameters, what="dataclass `%s`" % model.__name__, where="key of `%s`" % name)
    return model(*args, **kwargs)


def _validated(model: Any, value: Any) -> Any:
    return model.model_validate(value) if hasattr(model, "model_validate") else model.parse_obj(value)


def _is_pydantic(model: Any) -> bool:
    return hasattr(model, "model_validate") or hasattr(model, "parse_obj")


def _given(names: tuple[str, ...], parameters: Any) -> str | None:
    return next((name for name in names if name in parameters), None)


def _fields(model: Any) -> list[tuple[tuple[str, ...], bool]]:
    """The names (with aliases) of each field, and whether it is required."""
    if hasattr(model, "model_validate"):
        return [
            (_names(name, field.validation_alias, field.alias), field.is_required())
            for name, field in model.model_fields.items()
        ]
    if hasattr(model, "parse_obj"):
        return [(_names(name, field.alias), bool(field.required)) for name, field in model.__fields__.items()]
    return [
        ((name,), default is REQUIRED)
        for name, kind, default, _ in signature(model)
        if kind not in (VAR_POSITIONAL, VAR_KEYWORD)
    ]


def _names(name: str, *aliases: Any) -> tuple[str, ...]:
    return (name, *(alias for alias in aliases if isinstance(alias, str) and alias != name))
