"""Arguments built from their annotation: pydantic models (version 1 or 2) and dataclasses."""

from __future__ import annotations

from .arguments import REQUIRED, VAR_KEYWORD, VAR_POSITIONAL, Parameters, fill, signature

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
