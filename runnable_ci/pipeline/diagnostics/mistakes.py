"""What is wrong with a table of the pipeline file, and how it is written right. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from runnable_ci.errors import PipelineError, did_you_mean
from runnable_ci.pipeline.schema import (
    STEP_NAME,
    YEAR_MINUTES,
    CatalogConfig,
    InputConfig,
    PipelineConfig,
    Place,
    PutConfig,
    StepConfig,
)
from runnable_ci.pipeline.validation import shown

_EXPECTED: Final = {
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "greater_than": "must be greater than 0",
    "less_than_equal": f"must be at most {YEAR_MINUTES}, a year",
    "finite_number": "must be a finite number",
}
_EXAMPLES: Final = {
    "list_type": '["…"]',
    "bool_type": "true",
    "float_type": "30",
    "greater_than": "30",
    "less_than_equal": "30",
    "finite_number": "30",
}
"""How a value of the expected type may look."""
_STEP_FORM: Final = '[steps.{name}] with run = "…"'
_OTHER_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "step": {
        **dict.fromkeys(("script", "command", "cmd", "commands", "bash"), 'run = "…"'),
        **dict.fromkeys(("function", "entrypoint", "call"), 'python = "module:function"'),
        **dict.fromkeys(
            ("depends-on", "depends_on", "dependsOn", "dependencies", "after", "requires"), 'needs = ["…"]'
        ),
        **dict.fromkeys(("deps", "inputs"), 'catalog = { get = ["…"] }'),
        **dict.fromkeys(("outs", "artifacts", "products"), 'catalog = { put = ["…"] }'),
        "outputs": 'returns = ["…"] for values, catalog = { put = ["…"] } for files',
        **dict.fromkeys(("params", "args", "arguments"), 'parameters = ["…"], or under [parameters]'),
        **dict.fromkeys(("environment", "environ", "variables"), 'env = { NAME = "…" }'),
        **dict.fromkeys(("cwd", "workdir", "dir", "directory"), 'working-directory = "…"'),
        "timeout": "timeout-minutes = 30",
        "uses": 'an action runs in a workflow; a step here has run = "…" or python = "module:function"',
    },
    "pipeline": {
        **dict.fromkeys(("jobs", "step", "stages", "tasks", "rules", "nodes"), _STEP_FORM.format(name="NAME")),
        **dict.fromkeys(("params", "vars", "variables"), "[parameters]"),
        **dict.fromkeys(("interpreter", "python-version"), 'python = ".venv/bin/python"'),
    },
}
"""What other tools call it → the form here."""


def validation_error(place: Place, validation: ValidationError, *, of_step: str = "") -> PipelineError:
    """Convert pydantic's first finding into an error; that there is no step is the last thing to say.

    It was found in the whole file, or in a table `of_step` keys.
    """
    found = validation.errors()
    first = next((error for error in found if error["type"] not in ("missing", "too_short")), found[0])
    path = [str(part) for part in first["loc"]]
    model: type[BaseModel] = PipelineConfig
    table: list[str] = []
    if of_step:
        model, table = StepConfig, [of_step]
    elif path[:1] in (["steps"], ["inputs"]) and len(path) > 1:
        model = StepConfig if path[0] == "steps" else InputConfig
        table, path = path[:2], path[2:]
    if path[:1] == ["catalog"] and len(path) > 1:
        model, table, path = CatalogConfig, [*table, "catalog"], path[1:]
    if model is CatalogConfig and path[:1] == ["put"] and len(path) > 2:
        model, table, path = PutConfig, [*table, "put"], path[2:]
    key, where, given = ".".join(path), ".".join(table), first["input"]
    said = shown(given)
    if path[:1] == ["secrets"]:  # people write the secret itself there
        given, said = "NAME", "a text" if isinstance(given, str) else said
    known = {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
    form = _right_form(first["type"], path, given)
    hint = f"write {form}" if form else next((known[part] for part in path[:1] if part in known), "")
    match first["type"]:
        case "extra_forbidden":
            return place.error(where, f"unknown key `{key}`", _known_key(key, given, model, known), key=path)
        case "missing" if model is PutConfig:
            return place.error(where, f"an entry has no `{key}`", hint)
        case "missing" | "too_short":
            return place.error(where, "there is no step", f"add a table such as {_STEP_FORM.format(name='train')}")
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            listed = f"one of {', '.join(allowed)}"
            if not isinstance(given, str):
                return place.error(where, f"{key}: must be {listed}, not {said}", hint, key=path)
            what = "unknown kind" if path[:1] == ["returns"] else "there is no"
            return place.error(where, f"{key}: {what} {shown(given)}", did_you_mean(given, allowed, listed), key=path)
        case "value_error":
            return place.error(where, f"{key}: {first['ctx']['error']}", hint, key=path)
        case "dict_type" | "model_type" if not key and model is InputConfig:
            example = f'write [inputs.{table[-1]}] with type = "number"'
            return place.error(where, f"must be a table, not {said}", example)
        case "dict_type" | "model_type" if not key:
            return place.error(where, f"must be a table, not {said}", f"write {_step_form(table[-1], given)}")
        case kind:
            expected = _EXPECTED.get(kind, first["msg"].lower())
            return place.error(where, f"{key}: {expected}, not {said}", hint, key=path)


def _right_form(kind: str, path: Sequence[str], given: Any) -> str:
    """Return how a value of the wrong type, or something like it, is written right; empty where that is not clear."""
    *_, key = path or [""]
    if path == ["steps"]:
        names = [item.get("name") for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        valid = [name for name in names if isinstance(name, str) and STEP_NAME.fullmatch(name)]
        return f"a table for each step: {_step_form(valid[0] if valid else 'NAME', None)}"
    if key.isdecimal() and len(path) > 1:  # an item of a list
        return f"each item in quotes: {path[-2]} = [{_text_of(given)}]" if kind == "string_type" else ""
    match kind, given:
        case "list_type", str() if given:
            return f"{key} = [{_text_of(given)}]"
        case "list_type", dict() if given:
            return f"{key} = [{', '.join(_text_of(name) for name in given)}]"
        case "string_type", list() if (
            given and path in (["run"], ["python"]) and all(isinstance(i, str) for i in given)
        ):
            return f"{key} = {_text_of(shlex.join(given))}"
        case "string_type", bool() | int() | float():
            return f"{key} = {_text_of(given)}"
        case "bool_type", str() if given.lower() in ("false", "no", "off", "0"):
            return f"{key} = false"
        case "float_type", str() if re.fullmatch(r"[0-9]+(\.[0-9]+)?", given.strip()):
            return f"{key} = {given.strip()}"
        case "dict_type", str() if path == ["returns"]:
            return f"{key} = [{_text_of(given)}]"
        case "dict_type" | "model_type", _:
            tables = {"catalog": '{ get = ["…"], put = ["…"] }', "env": '{ NAME = "…" }', "returns": '["…"]'}
            return f"{key} = {tables[key]}" if key in tables else "[parameters], and below it NAME = value"
        case _:
            return f"{key} = {_EXAMPLES[kind]}" if kind in _EXAMPLES else ""


def _step_form(name: str, given: Any) -> str:
    """Return a step's table; `given` is what stands in its place."""
    command = _text_of(given) if isinstance(given, str) and given else '"…"'
    return f"[steps.{name}] with run = {command}"


def _known_key(key: str, given: Any, model: type[BaseModel], known: Mapping[str, str]) -> str:
    """Return a hint for a key that its table does not have: where it belongs, what it is called here, or all keys."""
    listed = "the keys of this table are: " + ", ".join(known)
    in_catalog, in_step, at_top = (_keys_of(table) for table in (CatalogConfig, StepConfig, PipelineConfig))
    if model is StepConfig and key in in_catalog:
        value = json.dumps(given, ensure_ascii=False) if _is_list_of_texts(given) else '["…"]'
        return f"write catalog = {{ {key} = {'true' if key == 'persist' else value} }}"
    if model is CatalogConfig and key in in_step:
        return f"`{key}` is a key of the step: write it outside `catalog`"
    if model is PipelineConfig and key in in_step:
        return f"`{key}` is a key of a step: write it in its table, such as [steps.train]"
    if model is not PipelineConfig and key in at_top:
        return f"`{key}` is a key of the whole pipeline: write it at the top, above the first table"
    words = _OTHER_WORDS.get({StepConfig: "step", PipelineConfig: "pipeline"}.get(model, ""), {})
    if key in words:
        return f"write {words[key]}" if not words[key].startswith("an ") else words[key]
    return did_you_mean(key, known, listed)


def _keys_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _text_of(value: Any) -> str:
    """Return a value as TOML text in quotes."""
    if isinstance(value, bool):
        return f'"{str(value).lower()}"'
    if isinstance(value, int | float):
        return f'"{value}"'
    return shown(value) if isinstance(value, str) else '"…"'
