"""The pipeline file: what may stand in it, and the resolved steps that the rest of the house works with.

Pure: text is parsed elsewhere (`project.py`), this module gets the parsed TOML table.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from runnable_ci.errors import PipelineError, did_you_mean

Kind = Literal["json", "metric", "object"]
KINDS: tuple[Kind, ...] = ("json", "metric", "object")
STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
REPOSITORY = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+"
)
# As they are written: `input_size` and `language` are good names, and no program takes them for its own.
RESERVED = frozenset(
    {"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "IFS", "TMPDIR", "TMP", "TEMP", "LANG", "LANGUAGE"}
    | {"TERM", "CI", "ENV", "HOSTNAME", "UID", "EUID", "PPID", "SHLVL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    | {"SYSTEMROOT", "COMSPEC", "PATHEXT", "USERPROFILE"}
    # A shell gives these a value of its own.
    | {"_", "RANDOM", "SRANDOM", "SECONDS", "LINENO", "GROUPS", "SHELLOPTS", "OPTIND", "OPTERR", "OPTARG", "HISTCMD"}
    | {"DIRSTACK", "FUNCNAME", "PIPESTATUS", "EPOCHSECONDS", "EPOCHREALTIME", "COMP_WORDBREAKS", "PS1", "PS2", "PS4"}
)
RESERVED_PREFIXES = ("RUNNABLE_", "GITHUB_", "RUNNER_", "INPUT_", "ACTIONS_", "LD_", "DYLD_", "LC_", "BASH")
YEAR_MINUTES = 366 * 24 * 60
RELATIVE = "paths are relative to the pipeline file's folder, and stay in it"
NESTED_MAX = 64
INTEGER_MAX_BITS = 4096


def _or_list_of_names(schema: dict[str, Any]) -> None:
    table = {key: schema.pop(key) for key in ("type", "additionalProperties")}
    schema["anyOf"] = [table, {"type": "array", "items": {"type": "string"}, "uniqueItems": True}]


class Table(BaseModel):
    """A table of the pipeline file: unknown keys are errors, and nothing is cast."""

    model_config = ConfigDict(
        extra="forbid", strict=True, defer_build=True, alias_generator=lambda name: name.replace("_", "-")
    )


class CatalogTable(Table):
    """`catalog = { get = […], put = […] }`: paths and globs (`*`, `**`) relative to the pipeline file's folder."""

    get: list[str] | None = Field(None, description="Files restored into the workspace before the step.")
    put: list[str] = Field(default_factory=list, description="Files stored after the step.")


class StepTable(Table):
    """`[steps.NAME]`: exactly one of `run` and `python`, and what surrounds it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["run"]}, {"required": ["python"]}]})

    run: str | None = Field(None, description="A shell command or script.")
    python: str | None = Field(None, description="`module:function`, called in the pipeline's interpreter.")
    needs: list[str] | None = Field(None, description="Steps that come before. Default: the step above in the file.")
    returns: dict[str, Kind] = Field(
        default_factory=dict,
        description="What the step returns, by name: `json`, `metric` or `object`. A list of names is short for json.",
        json_schema_extra=_or_list_of_names,
    )
    catalog: CatalogTable = Field(default_factory=CatalogTable, description="Files that the step reads and makes.")
    parameters: list[str] | None = Field(
        None, description="Parameters that a `run` step gets, and thereby depends on. Default: all in scope."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of this step.")
    shell: str | None = Field(
        None, description="`bash` (default), `sh`, `python`, `pwsh`, or a command with `{0}` for the script's path."
    )
    working_directory: str = Field(".", description="Relative to the pipeline file's folder.")
    timeout_minutes: float | None = Field(
        None, gt=0, le=YEAR_MINUTES, allow_inf_nan=False, description="Then the step is ended."
    )
    continue_on_error: bool = Field(False, description="Let the run go on, and succeed, when this step fails.")

    @field_validator("returns", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            if len(set(value)) < len(value):
                raise ValueError("names a return twice")
            return dict.fromkeys(value, "json")
        return value


class PipelineTable(Table):
    """A pipeline file: `runnable.toml`, or `[tool.runnable-ci]` in `pyproject.toml`."""

    name: str | None = Field(None, description="Default: the name of the file's folder.")
    python: str | None = Field(
        None, description="Interpreter of python steps, relative to the file. Default: `python` on PATH."
    )
    registry: str | None = Field(
        None, description="Where runs are published and pulled from: an OCI repository, `ghcr.io/owner/repo/runs`."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of every step.")
    secrets: list[str] = Field(
        default_factory=list, description="Names of environment variables whose values are kept out of all records."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values that steps take by name.")
    steps: dict[str, StepTable] = Field(
        min_length=1,
        description="The steps, in order.",
        json_schema_extra={"propertyNames": {"pattern": f"^{STEP_NAME.pattern}$"}},
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A step, resolved: defaults filled in, checked against the others."""

    name: str
    kind: Literal["run", "python"]
    command: str
    """The shell script, or `module:function`."""
    needs: tuple[str, ...]
    returns: Mapping[str, Kind]
    get: tuple[str, ...] | None
    """None: not declared, the step may read any file that came before it."""
    put: tuple[str, ...]
    parameters: tuple[str, ...] | None
    env: Mapping[str, str]
    shell: str
    working_directory: str
    timeout_s: float | None
    continue_on_error: bool

    def definition(self) -> dict[str, Any]:
        """What makes this step's result, as plain JSON in the words of the file; time-outs and the like do not."""
        definition: dict[str, Any] = {self.kind: self.command, "needs": sorted(self.needs)}
        optional = {
            "returns": dict(self.returns),
            "get": None if self.get is None else list(self.get),
            "put": list(self.put),
            "parameters": None if self.parameters is None else list(self.parameters),
            "env": dict(sorted(self.env.items())),
            "shell": self.shell if self.kind == "run" and self.shell != "bash" else "",
            "working-directory": "" if self.working_directory == "." else self.working_directory,
        }
        return definition | {key: v for key, v in optional.items() if v or (key in ("get", "parameters") and v == [])}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline; `steps` are in an order in which each comes after what it needs."""

    name: str
    file: str
    """How messages name the pipeline file."""
    python: str | None
    parameters: Mapping[str, Any]
    steps: Mapping[str, Step]
    registry: str | None = None
    secrets: tuple[str, ...] = ()
    """Names of environment variables."""

    def dag_hash(self) -> str:
        """sha1 of all definitions, as the reference system's run log has it; the order of returns is part of them."""
        definitions = {name: self.steps[name].definition() for name in sorted(self.steps)}
        return hashlib.sha1(json.dumps(definitions).encode(), usedforsecurity=False).hexdigest()

    def ancestors(self, name: str) -> frozenset[str]:
        """All steps that must be over before this one starts."""
        found: set[str] = set()
        waiting = list(self.steps[name].needs)
        while waiting:
            step = waiting.pop()
            if step not in found:
                found.add(step)
                waiting.extend(self.steps[step].needs)
        return frozenset(found)

    def below(self, name: str) -> frozenset[str]:
        """The step and all that need it, directly or not."""
        found = {name}
        for step in self.steps.values():
            if found.intersection(step.needs):
                found.add(step.name)
        return frozenset(found)


def resolve(table: Mapping[str, Any], *, file: str, default_name: str, prefix: str = "") -> Pipeline:
    """The pipeline that a parsed TOML table describes.

    `file` names the file in messages, `prefix` is the table's own place in it (`tool.runnable-ci`).
    Raises `PipelineError` for the first mistake found.
    """
    place = _Place(file, prefix)
    try:
        parsed = PipelineTable.model_validate(table)
    except ValidationError as e:
        raise place.error_of(e) from e
    check_parameters(parsed.parameters, place.error)
    _check_env(place, "env", parsed.env, parsed.parameters)
    if parsed.registry is not None and not REPOSITORY.fullmatch(parsed.registry):
        hint = 'write it as "ghcr.io/owner/repo/runs": a host and a lower-case name, without a tag'
        raise place.error("", f"registry: {_toml(parsed.registry)} is not a repository", hint)
    if any(not _VARIABLE.fullmatch(name) for name in parsed.secrets):  # it may be the secret itself: not shown
        hint = 'put the names of environment variables there: secrets = ["API_KEY"]'
        raise place.error("", "secrets: an entry is not the name of an environment variable", hint)
    steps: dict[str, Step] = {}
    above: tuple[str, ...] = ()
    for name, step in parsed.steps.items():
        steps[name] = _resolve_step(place, parsed, name, step, above)
        above = (name,)
    _check_needs(place, steps)
    pipeline = Pipeline(
        name=parsed.name or default_name,
        file=file,
        python=parsed.python,
        parameters=parsed.parameters,
        steps={name: steps[name] for name in _topological(place, steps)},
        registry=parsed.registry,
        secrets=tuple(parsed.secrets),
    )
    _check_returns(place, pipeline)
    return pipeline


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in which file: turns a table and a key into an error that names them."""

    file: str
    prefix: str

    def error(self, table: str, message: str, hint: str = "") -> PipelineError:
        full = ".".join(part for part in (self.prefix, table) if part)
        text = f"{self.file}: {f'[{full}] ' if full else ''}{message}"
        # A quoted key may hold anything, also what would move a terminal's cursor.
        return PipelineError(_CONTROL.sub(lambda found: repr(found[0])[1:-1], text), hint=hint)

    def error_of(self, validation: ValidationError) -> PipelineError:
        """Our words for pydantic's first finding."""
        first = validation.errors()[0]
        path = [str(part) for part in first["loc"]]
        model: type[BaseModel] = PipelineTable
        table: list[str] = []
        if path[:1] == ["steps"] and len(path) > 1:
            model, table, path = StepTable, path[:2], path[2:]
        if path[:1] == ["catalog"] and len(path) > 1:
            model, table, path = CatalogTable, [*table, "catalog"], path[1:]
        key = ".".join(path)
        where = ".".join(table)
        given = first["input"]
        known = {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
        hint = next((known[part] for part in path[:1] if part in known), "")
        match first["type"]:
            case "extra_forbidden":
                listed = "the keys of this table are: " + ", ".join(known)
                return self.error(where, f"unknown key `{key}`", did_you_mean(key, known, listed))
            case "missing" | "too_short":
                return self.error(where, "there is no step", 'add a table such as [steps.train] with run = "…"')
            case "literal_error" if isinstance(given, str):
                allowed = f"one of {', '.join(KINDS)}"
                return self.error(where, f"{key}: unknown kind {_toml(given)}", did_you_mean(given, KINDS, allowed))
            case "value_error":
                return self.error(where, f"{key}: {first['ctx']['error']}", hint)
            case "dict_type" | "model_type" if not key:
                return self.error(where, f"must be a table, not {_toml(given)}", 'such as [steps.train] with run = "…"')
            case kind:
                expected = _EXPECTED.get(kind, first["msg"].lower())
                return self.error(where, f"{key}: {expected}, not {_toml(given)}", hint)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EXPECTED = {
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "literal_error": f"must be one of {', '.join(KINDS)}",
    "greater_than": "must be greater than 0",
    "less_than_equal": f"must be at most {YEAR_MINUTES}, a year",
    "finite_number": "must be a finite number",
}


def _toml(value: Any) -> str:
    """A value as a message shows it: in one line, and short."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...", ensure_ascii=False)
        case int() if value.bit_length() > INTEGER_MAX_BITS:
            return "a number of that size"
        case int() | float():
            return str(value)
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"


def _resolve_step(place: _Place, pipeline: PipelineTable, name: str, step: StepTable, above: tuple[str, ...]) -> Step:
    table = f"steps.{name}"
    if not STEP_NAME.fullmatch(name):
        raise place.error(
            "steps", f"{_toml(name)} cannot name a step", "letters, digits, `_` and `-`; not a digit first"
        )
    kinds = [(kind, text) for kind in ("run", "python") if (text := getattr(step, kind)) is not None]
    if len(kinds) != 1:
        has = "has both `run` and `python`" if kinds else "has neither `run` nor `python`"
        raise place.error(table, has, "a step has exactly one of them; make two steps of it" if kinds else "add one")
    kind, command = cast("tuple[Literal['run', 'python'], str]", kinds[0])
    if not command.strip():
        raise place.error(table, f"`{kind}` is empty", 'write a command, such as run = "make"')
    if "\0" in command:
        raise place.error(table, f"`{kind}` has a NUL character", "no program takes one: remove it")
    if kind == "python":
        if not FUNCTION.fullmatch(command):
            raise place.error(table, f"python = {_toml(command)} is not a function", 'write it as "module:function"')
        for key in ("shell", "parameters"):
            if getattr(step, key) is not None:
                raise place.error(table, f"`{key}` belongs to `run` steps", "a function takes parameters by name")
    if kind == "run" and "object" in step.returns.values():
        raise place.error(table, "a `run` step cannot return an object", "put a file with catalog.put instead")
    if step.shell is not None and "{0}" not in step.shell and step.shell not in ("bash", "sh", "python", "pwsh"):
        raise place.error(table, f"unknown shell {_toml(step.shell)}", "bash, sh, python, pwsh, or a command with {0}")
    for key, paths in (("get", step.catalog.get or []), ("put", step.catalog.put)):
        for path in paths:
            check_relative(path, lambda m, key=key: place.error(f"{table}.catalog", f"{key}: {m}", RELATIVE))
    check_relative(step.working_directory, lambda m: place.error(table, f"working-directory: {m}", RELATIVE))
    for key in step.returns:
        check_parameter_name(key, lambda m, hint: place.error(f"{table}.returns", m, hint))
    env = pipeline.env | step.env
    _check_env(place, f"{table}.env", step.env, pipeline.parameters)
    return Step(
        name=name,
        kind=kind,
        command=command,
        needs=above if step.needs is None else tuple(dict.fromkeys(step.needs)),
        returns=step.returns,
        get=None if step.catalog.get is None else tuple(step.catalog.get),
        put=tuple(step.catalog.put),
        parameters=None if step.parameters is None else tuple(step.parameters),
        env=env,
        shell=step.shell or "bash",
        working_directory=str(PurePosixPath(step.working_directory)),
        timeout_s=None if step.timeout_minutes is None else step.timeout_minutes * 60,
        continue_on_error=step.continue_on_error,
    )


def check_relative(path: str, error: Any) -> None:
    """Raise `error(message)` for a path or glob that could leave the workspace."""
    parts = path.replace("\\", "/").split("/")
    if not path or "\0" in path:
        raise error("a path with a NUL character" if path else "an empty path")
    if path.startswith(("/", "~")) or PureWindowsPath(path).drive or ".." in parts:
        raise error(f"a path that leaves the workspace: {_toml(path)}")


def check_parameter_name(name: str, error: Any) -> None:
    """Raise `error(message, hint)` for a name that no parameter may have."""
    if not PARAMETER_NAME.fullmatch(name):
        raise error(f"{_toml(name)} cannot name a parameter", "letters, digits and `_`; not a digit first")
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        raise error(
            f"the parameter name `{name}` is reserved", "it would replace an environment variable that programs rely on"
        )


def check_parameters(parameters: Mapping[str, Any], error: Any) -> None:
    """Raise `error("parameters", message, hint)` for a name or value that a parameter cannot have."""
    for name, value in parameters.items():
        check_parameter_name(name, lambda m, hint: error("parameters", m, hint))
        if problem := not_json(value):
            raise error("parameters", f"{name}: {problem}", "parameters are JSON values; write it as a string")


def not_json(value: Any, depth: int = 0) -> str:
    """Why a value is not JSON that every reader takes, empty if it is."""
    if depth > NESTED_MAX:
        return f"it is nested more than {NESTED_MAX} deep"
    match value:
        case None | bool():
            return ""
        case int():
            return "" if value.bit_length() <= INTEGER_MAX_BITS else "the number has too many digits"
        case float():
            return "" if math.isfinite(value) else f"{value} is not a JSON number"
        case str():
            return "" if _is_unicode(value) else "the text has characters that are not Unicode"
        case list():
            return next(filter(None, (not_json(item, depth + 1) for item in value)), "")
        case dict():
            return next(filter(None, (not_json(item, depth + 1) for pair in value.items() for item in pair)), "")
        case _:
            return f"a {type(value).__name__} is not a JSON value"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte of the environment or of a file name that was not UTF-8
        return False
    return True


def _check_env(place: _Place, table: str, env: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise place.error(table, f"{_toml(name)} cannot be set", "no `=` in the name, no NUL in name or value")
        if name in parameters:
            raise place.error(table, f"`{name}` is also a parameter", "rename one: both would set the same variable")
        if name.startswith("RUNNABLE_"):
            raise place.error(table, f"`{name}` is reserved", "names that begin with RUNNABLE_ are ours")


def _check_needs(place: _Place, steps: Mapping[str, Step]) -> None:
    for step in steps.values():
        for need in step.needs:
            if need == step.name:
                raise place.error(f"steps.{step.name}", "needs: the step needs itself", "remove it from `needs`")
            if need not in steps:
                others = [name for name in steps if name != step.name]
                raise place.error(
                    f"steps.{step.name}",
                    f"step `{step.name}` needs {_toml(need)}, which is not in the file",
                    did_you_mean(need, others, f"the steps are: {', '.join(steps)}"),
                )


def _topological(place: _Place, steps: Mapping[str, Step]) -> Iterable[str]:
    """Step names, each after what it needs, otherwise in the order of the file."""
    sorter = TopologicalSorter({step.name: step.needs for step in steps.values()})
    try:
        sorter.prepare()
    except CycleError as e:
        cycle = " → ".join(reversed(e.args[1]))
        raise place.error("steps", f"steps need each other in a circle: {cycle}", "remove one of these needs") from e
    position = {name: i for i, name in enumerate(steps)}
    order: list[str] = []
    ready = sorted(sorter.get_ready(), key=position.__getitem__)
    while ready:
        name = ready.pop(0)
        order.append(name)
        sorter.done(name)
        ready = sorted([*ready, *sorter.get_ready()], key=position.__getitem__)
    return order


def _check_returns(place: _Place, pipeline: Pipeline) -> None:
    """Two steps may return the same name only if one comes after the other: the later then wins."""
    givers: dict[str, list[str]] = {}
    for step in pipeline.steps.values():
        # Looked for only where it is asked: the steps above each step of a long chain add up.
        shared = any(name in givers for name in (*step.returns, *step.env))
        before = pipeline.ancestors(step.name) if shared else frozenset[str]()
        table = f"steps.{step.name}"
        for name in step.returns:
            for other in givers.get(name, []):
                if other not in before:
                    raise place.error(
                        f"{table}.returns",
                        f"`{name}` is also returned by step `{other}`, which may run at the same time",
                        "rename one, or let one step need the other",
                    )
            givers.setdefault(name, []).append(step.name)
        for name in step.env:
            if givers_here := before.union([step.name]).intersection(givers.get(name, [])):
                raise place.error(
                    f"{table}.env",
                    f"`{name}` is also returned by step `{min(givers_here)}`",
                    "rename one: both would set the same variable",
                )
