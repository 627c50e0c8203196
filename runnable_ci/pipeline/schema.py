"""The tables of the pipeline file as they are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, field_validator

from runnable_ci.config import LogLevel, Untracked
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.keys.tables import (
    ATTEMPTS_MAX,
    YEAR_MINUTES,
    AttemptsConfig,
    CatalogConfig,
    CheckpointConfig,
    ContainerConfig,
    ExecutorConfig,
    InputConfig,
    LoopConfig,
    ResourcesConfig,
    Reuse,
    RunnerConfig,
    StrategyConfig,
    Table,
    WorkflowConfig,
    age_s,
    or_a_list_of_paths,
    or_labels,
    runner_of,
)
from runnable_ci.pipeline.validation import shown

Kind = Literal["auto", "text", "json", "metric", "object"]
"""What a step returns: `auto` is text, or a value where writing that gives the same text."""
RecordedKind = Literal["json", "metric", "object"]
StepKind = Literal["run", "python", "notebook", "branches"]
"""What a step is; `branches` has no process of its own."""
_PROCESSES: tuple[StepKind, ...] = ("run", "python", "notebook")
"""The keys of which a step has exactly one, if it does not have `uses`."""
STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
RELATIVE = "paths are relative to the pipeline file's folder, and stay in it"


def recorded_kind(kind: Kind) -> RecordedKind:
    """Return the kind of a return as the run log has it: text and what was read from text are JSON there."""
    return "json" if kind == "auto" or kind == "text" else kind


def _or_list_of_names(schema: dict[str, Any]) -> None:
    table = {key: schema.pop(key) for key in ("type", "additionalProperties")}
    schema["anyOf"] = [table, {"type": "array", "items": {"type": "string"}, "uniqueItems": True}]


def _or_a_number(schema: dict[str, Any]) -> None:
    table = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
    schema["anyOf"] = [{"type": "integer", "minimum": 1}, table]


class StepConfig(Table):
    """`[steps.NAME]`: exactly one of `run`, `python`, `notebook` and `uses`, and what surrounds it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in (*_PROCESSES, "uses")]})

    run: str | None = Field(None, description="A shell command or script.")
    python: str | None = Field(None, description="`module:function`, called in the pipeline's interpreter.")
    notebook: str | None = Field(
        None,
        description="A Jupyter notebook, executed in the pipeline's interpreter, which needs nbclient and ipykernel; a "
        "path, in which expressions may stand.",
    )
    kernel: str | None = Field(
        None,
        description="An installed kernel that executes the notebook, by its name, such as `ir`. Default: one that is "
        "started from the pipeline's interpreter, whatever the notebook's metadata name.",
    )
    executed: str | None = Field(
        None,
        description="Where the executed notebook is stored. Default: `executed/STEP.ipynb`.",
    )
    uses: str | None = Field(
        None,
        description="A pipeline file whose steps take the place of this one: `./branch.toml`. Its paths are relative "
        "to the folder of the file that is run.",
    )
    strategy: StrategyConfig | None = Field(None, description="One instance of the step for each value of a matrix.")
    loop: LoopConfig | None = Field(None, description="Repeat the step until a condition is true.")
    name: str | None = Field(
        None, description='How an instance is shown: `"${{ matrix.sample }}"`. Default: its axis values.'
    )
    reduce: str | None = Field(
        None,
        description="`module:function` that makes the step's `returns` of those of its instances: it takes by name the "
        "lists of them. Default: the lists, in the order of the matrix.",
    )
    needs: list[str] | None = Field(
        None, description="Steps that must finish first. Default: the step above in the file."
    )
    returns: dict[str, Kind] = Field(
        default_factory=dict,
        description="What the step returns, by name: `auto`, `text`, `json`, `metric` or `object`. A list of names is "
        "short for `auto`: text, or a value where writing it gives the same text.",
        json_schema_extra=_or_list_of_names,
    )
    catalog: CatalogConfig = Field(default_factory=CatalogConfig, description="Files that the step reads and creates.")
    checkpoint: CheckpointConfig | None = Field(
        None,
        description="Files in which the step keeps its own work: stored while it runs, and restored before its next "
        'attempt. A list of globs, or a table: `{ path = ["ckpt/**"], every-minutes = 10 }`.',
        json_schema_extra=or_a_list_of_paths,
    )
    metrics: list[str] = Field(
        default_factory=list,
        description="Files of JSON, YAML or TOML that the step makes, whose numbers are metrics: `metrics.json` gives "
        "`metrics.accuracy`. They are stored as with `catalog.put`.",
    )
    reads: list[str] | None = Field(
        None,
        description="Globs of the files that count as read, beside `catalog.get`, whatever the step opens: a change of "
        "another file does not re-run it. Default: what it was seen to read.",
    )
    ignore_reads: list[str] = Field(
        default_factory=list, description="Globs of files that do not count as read, though the step opens them."
    )
    parameters: list[str] | None = Field(
        None, description="Parameters that a `run` step receives, and thereby depends on. Default: all in scope."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of this step.")
    env_read: list[str] | None = Field(
        None,
        description="Names of environment variables that the step reads, beside those that its command names: the "
        "result of another run is reused only where they are the same.",
    )
    container: str | ContainerConfig | None = Field(
        None, description="The image that the step runs in, or a table with more about it. An empty text is none."
    )
    shell: str | None = Field(
        None,
        description=(
            "`bash`, `sh`, `python`, `pwsh`, or a command with `{0}` for the script's path. Default: `bash`, and where "
            "there is none, `sh`, with `pipefail` where it knows that."
        ),
    )
    working_directory: str = Field(".", description="Relative to the pipeline file's folder.")
    timeout_minutes: float | None = Field(
        None, gt=0, le=YEAR_MINUTES, allow_inf_nan=False, description="Time limit of the step; then it is stopped."
    )
    background: bool = Field(
        False, description="Let processes that the step leaves running stay. Default: they are ended with it."
    )
    continue_on_error: bool = Field(False, description="Let the run continue and succeed when this step fails.")
    if_: str | bool | None = Field(
        None,
        alias="if",
        description="When the step runs: an expression, such as `parameters.toss == 'heads'` or `failure()`. Default: "
        "`success()`, when all before it succeeded.",
    )
    with_: dict[str, Any] = Field(
        default_factory=dict,
        alias="with",
        description="Parameters that the step has by these names: values, or `${{ … }}` expressions of others.",
    )
    attempts: AttemptsConfig | None = Field(
        None,
        description="How often the step is tried until it succeeds: a number, or a table. Default: once.",
        json_schema_extra=_or_a_number,
    )
    resources: ResourcesConfig | None = Field(
        None,
        description='What the step takes while it runs: `{ cpus = 8, memory = "32G", gpus = 1 }`. A list has a value '
        "for each try: the last one holds for those after it.",
    )
    runs_on: RunnerConfig | None = Field(
        None,
        description="The label, or all labels, of the runner for this step's job where `workflow` spreads a run over "
        'jobs, or `{ group = "gpu-runners" }`. Default: `ubuntu-latest`.',
        json_schema_extra=or_labels,
    )
    job: str | None = Field(
        None,
        description="The job of this step, and of all others that name it, where `workflow` spreads a run over jobs.",
    )
    executor: str | None = Field(
        None, description="Where the step runs: an executor of the file, or `local`. Default: `local`, this machine."
    )
    reuse: Reuse | None = Field(None, description="As for the pipeline, for this step.")
    max_age: str | None = Field(
        None,
        description="How old a result of another run may be: `30m`, `24h`, `7d` or `forever`. A step that reads no "
        "data of the workspace and takes no value, has neither `put` nor `returns`, or connects to other machines, is "
        "reused across runs only with it.",
    )

    @field_validator("max_age")
    @classmethod
    def _an_age(cls, value: str | None) -> str | None:
        if value is not None:
            age_s(value)
        return value

    @field_validator("job")
    @classmethod
    def _a_job(cls, value: str | None) -> str | None:
        if value is not None and not STEP_NAME.fullmatch(value):
            raise ValueError(f"{shown(value)} is not a valid name: letters, digits, `_` and `-`, not a digit first")
        return value

    @field_validator("runs_on", mode="before")
    @classmethod
    def _labels_alone(cls, value: Any) -> Any:
        return runner_of(value)

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _paths_alone(cls, value: Any) -> Any:
        paths = [value] if isinstance(value, str) else value
        if paths == []:
            raise ValueError("names no path")
        return {"path": paths} if isinstance(paths, list) else value

    @field_validator("attempts", mode="before")
    @classmethod
    def _number_alone(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if not 1 <= value <= ATTEMPTS_MAX:
            raise ValueError(f"must be from 1 to {ATTEMPTS_MAX}, not {shown(value)}")
        return {"max": value}

    @field_validator("returns", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            if len(set(value)) < len(value):
                raise ValueError("lists a return value twice")
            return dict.fromkeys(value, "auto")
        return value


class PipelineConfig(Table):
    """A pipeline file: `runnable.toml`, or `[tool.runnable-ci]` in `pyproject.toml`."""

    name: str | None = Field(None, description="Default: the name of the file's folder.")
    python: str | None = Field(
        None,
        description="Interpreter of python and notebook steps, relative to the file. Default: that of an activated "
        "environment, else `.venv/bin/python` where it is there, else `python` on PATH.",
    )
    registry: str | None = Field(
        None, description="Where runs are published and pulled from: an OCI repository, `ghcr.io/owner/repo/runs`."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of every step.")
    secrets: list[str] = Field(
        default_factory=list, description="Names of environment variables whose values are removed from all records."
    )
    untracked: Untracked | None = Field(
        None,
        description="Which untracked files a run includes, besides changes of tracked ones: `all`, `listed` (those "
        "that the pipeline names) or `none`. Default: `all`, but `none` in a GitHub job of a public repository.",
    )
    log_level: LogLevel | None = Field(
        None, description="What steps are asked to log, by `RUNNABLE_LOG_LEVEL` and the root logger of python steps."
    )
    reuse: Reuse | None = Field(
        None,
        description="Which results may take the place of running a step: `any-run` those of every run that made them "
        "from the same, `this-run` those of the run that is resumed, `never` none. Default: `this-run`.",
    )
    time_budget: str | None = Field(
        None,
        description="How long an invocation may take, such as `5h30m`: it ends before, so that `retry` can resume it. "
        "Default: no limit.",
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of all steps that do not have them: `shell`, `working-directory`, `timeout-minutes`, "
        "`attempts`, `container`, `resources`, `runs-on`, `executor`.",
    )
    workflow: WorkflowConfig = Field(
        default_factory=WorkflowConfig, description="What `workflow` writes beside the jobs of the steps."
    )
    executors: dict[str, ExecutorConfig] = Field(
        default_factory=dict, description="Where steps may run beside this machine, by name."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values that steps take by name.")
    inputs: dict[str, InputConfig] = Field(
        default_factory=dict, description="Parameters with a type, options or a description; each name in one table."
    )
    steps: dict[str, StepConfig] = Field(
        min_length=1,
        description="The steps, in order.",
        json_schema_extra={"propertyNames": {"pattern": f"^{STEP_NAME.pattern}$"}},
    )

    @field_validator("time_budget")
    @classmethod
    def _a_budget(cls, value: str | None) -> str | None:
        if value is not None:
            from runnable_ci.pipeline.keys.durations import parse_budget  # few files have one

            parse_budget(value)
        return value


class Place(NamedTuple):
    """A pipeline file: turns a table and a key into an error that names and shows where they are."""

    file: str
    prefix: str = ""
    """The pipeline's own table (`tool.runnable-ci`)."""
    text: str = ""
    """What is in the file, if it is known."""

    def error(self, table: str, message: str, hint: str = "", *, key: str | Sequence[str] = ()) -> PipelineError:
        """Return the error of a table, or of a key in it."""
        from runnable_ci.pipeline.diagnostics.place import error_at  # what is right needs none of it

        return error_at(self, table, message, hint, key)


def check_command(place: Place, table: str, step: StepConfig) -> tuple[StepKind, str]:
    """Return a step's kind and its command, after what belongs to one kind of step was checked."""
    if step.uses is not None and not (step.run or step.python or step.notebook):
        return "branches", ""
    kinds: list[StepKind] = [kind for kind in _PROCESSES if getattr(step, kind) is not None]
    if len(kinds) != 1:
        has = f"has both `{kinds[0]}` and `{kinds[1]}`" if kinds else "has no `run`, `python`, `notebook` or `uses`"
        hint = "a step has exactly one of them; split it into two steps" if kinds else 'add one, such as run = "make"'
        raise place.error(table, has, hint)
    [kind] = kinds
    command: str = getattr(step, kind)
    if not command.strip():
        raise place.error(table, f"`{kind}` is empty", 'write a command, such as run = "make"', key=kind)
    if "\0" in command:
        raise place.error(table, f"`{kind}` has a NUL character", "programs cannot receive it: remove it", key=kind)
    if kind == "python" and not FUNCTION.fullmatch(command):
        raise place.error(
            table, f"python = {shown(command)} is not a function", f"write {function_form(command)}", key=kind
        )
    _check_others_keys(place, table, step, kind)
    if kind == "run" and "object" in step.returns.values():
        raise place.error(
            table, "a `run` step cannot return an object", "put a file with catalog.put instead", key="returns"
        )
    if step.shell is not None and "{0}" not in step.shell and step.shell not in ("bash", "sh", "python", "pwsh"):
        raise place.error(
            table, f"unknown shell {shown(step.shell)}", "bash, sh, python, pwsh, or a command with {0}", key="shell"
        )
    return kind, command


def _check_others_keys(place: Place, table: str, step: StepConfig, kind: StepKind) -> None:
    """Raise for a key that belongs to another kind of step."""
    takes = {"run": "", "python": "a function takes parameters by name", "notebook": "a notebook takes them by name"}
    owned = (("shell", "run"), ("parameters", "run"), ("kernel", "notebook"), ("executed", "notebook"))
    for key, owner in owned:
        if owner != kind and getattr(step, key) is not None:
            hint = takes[kind] if owner == "run" else 'name the notebook: notebook = "eval.ipynb"'
            raise place.error(table, f"`{key}` belongs to `{owner}` steps", hint, key=key)


def function_form(command: str) -> str:
    """Return how a function is named, as close as possible to what was written in its place."""
    module, colon, function = command.strip().partition(":")
    path = module.removesuffix(".py").replace("/", ".").strip(".")
    if not colon and not module.endswith(".py"):
        path, _, function = path.rpartition(".")
    form = f"{path or 'module'}:{function or 'function'}"
    return f'python = "{form if FUNCTION.fullmatch(form) else "module:function"}"'
