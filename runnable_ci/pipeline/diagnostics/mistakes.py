"""What is wrong with a table of the pipeline file, and how it is written right. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from runnable_ci.errors import PipelineError, did_you_mean
from runnable_ci.pipeline.keys.tables import YEAR_MINUTES, InputConfig, PutConfig, StrategyConfig
from runnable_ci.pipeline.schema import STEP_NAME, PipelineConfig, Place, StepConfig
from runnable_ci.pipeline.validation import shown

_EXPECTED: Final = {
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "finite_number": "a finite number",
}
"""What a value of another type must be."""
_EXAMPLES: Final = {
    "list_type": '["…"]',
    "bool_type": "true",
    "int_type": "3",
    "greater_than_equal": "3",
    **dict.fromkeys(("float_type", "greater_than", "less_than_equal", "finite_number"), "30"),
}
"""How a value of the expected type may look."""
_TABLES: Final = {
    "catalog": 'catalog = { get = ["…"], put = ["…"] }',
    "env": 'env = { NAME = "…" }',
    "returns": 'returns = ["…"]',
    "strategy": 'strategy = { matrix = { sample = ["a", "b"] } }',
    "matrix": 'matrix = { sample = ["a", "b"] }',
    "loop": 'loop = { until = "…", max = 10 }',
    "attempts": "attempts = 3",
    "container": 'container = { image = "…" }',
    "credentials": 'credentials = { username = "USER", password = "TOKEN" }',
    "with": "with = { name = value }",
    "resources": 'resources = { cpus = 4, memory = "16G" }',
    "slurm": 'slurm = { partition = "gpu", time = "4h" }',
    "executors": '[executors.NAME] with slurm = { partition = "gpu" } or command = "ssh node {}"',
    "inputs": '[inputs.NAME] with type = "number"',
    "on": 'on = { push = { branches = ["main"] } }',
    "workflow": '[workflow] with setup = "pip install …"',
    "defaults": "[defaults], and below it KEY = value",
}
"""How tables look."""
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
    },
    "pipeline": {
        **dict.fromkeys(("jobs", "step", "stages", "tasks", "rules", "nodes"), _STEP_FORM.format(name="NAME")),
        **dict.fromkeys(("params", "vars", "variables"), "[parameters]"),
        **dict.fromkeys(("interpreter", "python-version"), 'python = ".venv/bin/python"'),
    },
}
"""What other tools call it → the form here."""


class _Spot(NamedTuple):
    """Where in a file a finding is."""

    models: list[type[BaseModel]]
    """The models of the tables around it, the innermost last."""
    table: list[str]
    """The keys that lead to the innermost table."""
    path: list[str]
    """The keys below that."""
    is_member: bool
    """Whether one member of a union says that it is not this type: another may say more."""


def validation_error(place: Place, validation: ValidationError, *, of_step: str = "") -> PipelineError:
    """Convert pydantic's first finding into an error; that something is missing is the last thing to say.

    It was found in the whole file, or in a table `of_step` keys.
    """
    around = (
        _Spot([PipelineConfig, StepConfig], [of_step], [], False) if of_step else _Spot([PipelineConfig], [], [], False)
    )
    found = [(error, _spot(error["loc"], around)) for error in validation.errors()]
    most = [one for one in found if not (one[1].is_member and any(_is_below(other, one) for other in found))]
    first, spot = next((one for one in most if one[0]["type"] not in ("missing", "too_short")), most[0])
    kinds = [error["type"] for error, other in most if other == spot] if spot.is_member else [first["type"]]
    models, table, path, _ = spot
    model = models[-1]
    key, where, given = ".".join(path), ".".join(table), first["input"]
    said = shown(given)
    if path[:1] == ["secrets"] or "credentials" in (*table, *path):  # people write the secret itself there
        given, said = ("NAME", "a text") if isinstance(given, str) else (given, said)
        given = "NAME" if path[:1] == ["secrets"] else given
    known = {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
    is_table = next((kind for kind in kinds if kind in ("dict_type", "model_type")), "")
    form = _right_form(is_table or first["type"], path, given) if is_table or len(kinds) == 1 else ""
    hint = f"write {form}" if form else next((known[part] for part in path[:1] if part in known), "")
    match first["type"]:
        case "extra_forbidden":
            return place.error(where, f"unknown key `{key}`", _known_key(key, given, spot, known), key=path)
        case "missing" if model is PutConfig:
            return place.error(where, f"an entry has no `{key}`", hint)
        case "missing" if table[2:] or of_step:
            message = f"`{table[-1]}` has no `{key}`"
            return place.error(".".join(table[:-1]), message, f"write {_TABLES[table[-1]]}", key=table[-1])
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
        case _:
            return place.error(where, f"{key}: {_expected(first, kinds, path)}, not {said}", hint, key=path)


def _is_below(finding: tuple[Any, _Spot], member: tuple[Any, _Spot]) -> bool:
    """Return whether a finding is in the value of which a member of a union says that its type is wrong."""
    around = member[0]["loc"][:-1]
    return len(finding[0]["loc"]) > len(member[0]["loc"]) and finding[0]["loc"][: len(around)] == around


def _spot(loc: Sequence[str | int], around: _Spot) -> _Spot:
    """Return where a finding is; pydantic's names for the members of a union are no keys."""
    models, table, path = [*around.models], [*around.table], [*around.path]
    of: Any = models[-1]
    is_member = False
    for part in loc:
        if isinstance(of, type) and issubclass(of, BaseModel) and of is not models[-1]:
            models.append(of)
            table, path = [*table, *(key for key in path if not key.isdecimal())], []
        members = [one for one in get_args(of) if one is not NoneType] if get_origin(of) in (Union, UnionType) else []
        is_member = len(members) > 1
        if is_member:
            of = next(one for one in members if (get_origin(one) or one).__name__ == str(part).partition("[")[0])
            continue
        path.append(str(part))
        of = _inner(of, part)
        if isinstance(of, type) and issubclass(of, BaseModel) and path[1:] and not isinstance(part, int):
            models.append(of)  # an entry of a table of tables, such as [steps.a]
            table, path = [*table, *path], []
    return _Spot(models, table, path, is_member)


def _inner(of: Any, part: str | int) -> Any:
    """Return the type of a key's value, or of an item's; `None` is left out where that leaves one type."""
    if isinstance(of, type) and issubclass(of, BaseModel):
        inner = next((field.annotation for name, field in of.model_fields.items() if part in (field.alias, name)), None)
    else:
        inner = (*get_args(of), None)[1 if get_origin(of) is dict else 0] if get_args(of) else None
    members = [one for one in get_args(inner) if one is not NoneType]
    is_optional = get_origin(inner) in (Union, UnionType) and len(members) == 1
    return members[0] if is_optional else inner


def _expected(first: Any, kinds: Iterable[str], path: Sequence[str]) -> str:
    """Return what a value must be."""
    limits = first.get("ctx", {})
    match first["type"]:
        case "greater_than":
            return f"must be greater than {limits['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:.0f}{', a year' if limits['le'] >= YEAR_MINUTES else ''}"
        case kind if kind not in _EXPECTED:
            return str(first["msg"]).lower()
    expected = [*dict.fromkeys(_EXPECTED[kind] for kind in kinds)]
    if path == ["attempts"]:
        expected.insert(0, "a number")
    return f"must be {' or '.join(expected)}"


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
        case "int_type", str() if re.fullmatch(r"[0-9]+", given.strip()):
            return f"{key} = {given.strip()}"
        case "dict_type" | "model_type", str() if path == ["attempts"] and re.fullmatch(r"[0-9]+", given.strip()):
            return f"{key} = {given.strip()}"
        case "dict_type" | "model_type", _:
            return _TABLES.get(key, "[parameters], and below it NAME = value")
        case _:
            return f"{key} = {_EXAMPLES[kind]}" if kind in _EXAMPLES else ""


def _step_form(name: str, given: Any) -> str:
    """Return a step's table; `given` is what stands in its place."""
    command = _text_of(given) if isinstance(given, str) and given else '"…"'
    return f"[steps.{name}] with run = {command}"


def _known_key(key: str, given: Any, spot: _Spot, known: Mapping[str, str]) -> str:
    """Return a hint for a key that its table does not have: where it belongs, what it is called here, or all keys."""
    listed = "the keys of this table are: " + ", ".join(known)
    model = spot.models[-1]
    owners = [name for name in known if key in _keys_of(_inner(model, name))] if model is not PipelineConfig else []
    if len(owners) == 1:
        return f"write {owners[0]} = {{ {key} = {_form_of(owners[0], key, given)} }}"
    if model is PipelineConfig and key in _keys_of(StepConfig):
        return f"`{key}` is a key of a step: write it in its table, such as [steps.train]"
    is_axis = isinstance(given, list) and get_origin(_inner(StepConfig, key)) is not list
    if model is StrategyConfig and (key in ("include", "exclude") or is_axis):
        return f"`{key}` belongs inside `matrix`: write matrix = {{ …, {key} = […] }}"
    for at in range(len(spot.models) - 2, -1, -1):
        around = spot.models[at]
        if key in _keys_of(around) and around is PipelineConfig:
            return f"`{key}` is a key of the whole pipeline: write it at the top, above the first table"
        if key in _keys_of(around):
            owner = "the step" if around is StepConfig else f"`{spot.table[at - len(spot.models)]}`"
            return f"`{key}` is a key of {owner}: write it outside `{spot.table[-1]}`"
    words = _OTHER_WORDS.get("step" if model is StepConfig else "pipeline" if model is PipelineConfig else "", {})
    if key in words:
        return f"write {words[key]}"
    longer = [name for name in known if name.startswith(f"{key}-")]
    return f"did you mean `{longer[0]}`?" if longer else did_you_mean(key, known, listed)


def _form_of(table: str, key: str, given: Any) -> str:
    """Return a value as it is written in another table."""
    if _is_list_of_texts(given) or (isinstance(given, bool | int | float) and table != "catalog"):
        return json.dumps(given, ensure_ascii=False)
    if table == "catalog":
        return "true" if key == "persist" else '["…"]'
    forms: dict[type, str] = {str: '"…"', list: "[…]", dict: "{ … }"}
    return forms.get(type(given), "…")


def _keys_of(model: Any) -> set[str]:
    """Return the keys of a table, or of the table that a value may be instead of a text; none of any other type."""
    model = next((one for one in get_args(model) if isinstance(one, type) and issubclass(one, BaseModel)), model)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
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
