"""Inputs: parameters of which the pipeline file says more than a value, in GitHub's words. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from runnable_ci.errors import UsageError
from runnable_ci.pipeline.schema import PipelineConfig, Place
from runnable_ci.pipeline.validation import check_parameter_name, not_json, shown
from runnable_ci.pipeline.values.value_reader import Declared, ValueType
from runnable_ci.redaction.environment import is_secret
from runnable_ci.util.text import table, truncate

_TYPES: Final[Mapping[str, ValueType]] = {
    "string": "text",
    "choice": "text",
    "environment": "text",
    "number": "number",
    "boolean": "boolean",
}


class Input(NamedTuple):
    """A parameter with a type, and what else the file says of it."""

    type: str
    default: Any
    """None: there is none."""
    required: bool
    description: str
    declared: Declared


def resolve_inputs(place: Place, pipeline: PipelineConfig) -> dict[str, Input]:
    """Return the inputs of a pipeline file. Raises `PipelineError` for what an input cannot be."""
    inputs: dict[str, Input] = {}
    for name, config in pipeline.inputs.items():
        where = f"inputs.{name}"
        check_parameter_name(name, lambda message, hint, name=name: place.error("inputs", message, hint, key=name))
        if name in pipeline.parameters:
            raise place.error(where, f"`{name}` is also in [parameters]", "write it once: its value is the `default`")
        if config.type == "choice" and not config.options:
            raise place.error(where, "a choice has no options", 'such as options = ["a", "b"]')
        declared = Declared(_TYPES[config.type], place.file)
        for option in config.options:
            _require(place, where, declared, option, "options")
        declared = Declared(_TYPES[config.type], place.file, options=tuple(config.options))
        if config.default is not None:
            _require(place, where, declared, config.default, "default")
        inputs[name] = Input(config.type, config.default, config.required, config.description, declared)
    return inputs


def _require(place: Place, where: str, declared: Declared, value: Any, key: str) -> None:
    """Raise `PipelineError` for a value in the file that is not of its own input's type."""
    try:
        found = declared.accept(value, key)
    except UsageError as e:
        raise place.error(where, e.message, e.hint, key=key) from e
    if type(found) is not type(value) or not_json(value):
        raise place.error(
            where, f"{key}: {value!r} is not of the type of the input", "write it without quotes", key=key
        )


def require_inputs(inputs: Mapping[str, Input], parameters: Mapping[str, Any], file: str) -> None:
    """Raise `UsageError` for the first input that is required and has no value."""
    for name, one in inputs.items():
        if one.required and parameters.get(name) is None:
            what = f" ({one.description})" if one.description else ""
            raise UsageError(f"{file}: the input `{name}`{what} is required", hint=f"--param {name}=…")


def input_lines(parameters: Mapping[str, Any], inputs: Mapping[str, Input], *, secrets: Collection[str]) -> list[str]:
    """Return a table of what a run can be given: types, defaults, which values there are, and what they are for."""
    hidden = {name.upper() for name in secrets}
    rows: list[list[str]] = []
    for name in {**inputs, **parameters}:
        one = inputs.get(name)
        default = parameters.get(name)
        is_hidden = name.upper() in hidden or (isinstance(default, str) and is_secret(name, default))
        about = [
            *(["required"] if one and one.required else []),
            *([f"one of {', '.join(map(shown, one.declared.options))}"] if one and one.declared.options else []),
            *([one.description] if one and one.description else []),
        ]
        text = "" if name not in parameters else "***" if is_hidden else json.dumps(default, ensure_ascii=False)
        kind = one.type if one else Declared.by_value(default, "").type.replace("text", "string")
        rows.append([name, kind, truncate(text), "; ".join(about)])
    return table(["INPUT", "TYPE", "DEFAULT", "DESCRIPTION"], rows) if rows else ["no inputs, no parameters"]
