"""The tables of the pipeline file as they are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from runnable_ci.config import LogLevel, Untracked
from runnable_ci.errors import PipelineError

Kind = Literal["auto", "text", "json", "metric", "object"]
"""What a step returns: `auto` is text, or a value where writing that gives the same text."""
RecordedKind = Literal["json", "metric", "object"]
STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
YEAR_MINUTES = 366 * 24 * 60


def recorded_kind(kind: Kind) -> RecordedKind:
    """Return the kind of a return as the run log has it: text and what was read from text are JSON there."""
    return "json" if kind == "auto" or kind == "text" else kind


def _or_list_of_names(schema: dict[str, Any]) -> None:
    table = {key: schema.pop(key) for key in ("type", "additionalProperties")}
    schema["anyOf"] = [table, {"type": "array", "items": {"type": "string"}, "uniqueItems": True}]


class Table(BaseModel):
    """A table of the pipeline file: unknown keys are errors, and nothing is cast."""

    model_config = ConfigDict(
        extra="forbid", strict=True, defer_build=True, alias_generator=lambda name: name.replace("_", "-")
    )


class CatalogConfig(Table):
    """`catalog = { get = […], put = […] }`: paths and globs (`*`, `**`) relative to the pipeline file's folder."""

    get: list[str] | None = Field(None, description="Files restored into the workspace before the step.")
    put: list[str] = Field(default_factory=list, description="Files that the step makes: stored after it.")
    persist: bool = Field(
        False,
        description="Let the step find the files that it made before, and keep those that it does not write again. "
        "Default: they are set aside before it runs.",
    )


class InputConfig(Table):
    """`[inputs.NAME]`: a parameter with its type, in the words that GitHub has for the inputs of a workflow."""

    type: Literal["string", "number", "boolean", "choice", "environment"] = Field(
        "string", description="What a value must be: a `choice` is one of the `options`, an `environment` is a string."
    )
    default: Any = Field(None, description="The value where none is given. Default: the parameter is not set.")
    options: list[Any] = Field(
        default_factory=list, description="The values that it may have; any where there is none."
    )
    description: str = Field("", description="What it is for; `run --help-inputs` shows it.")
    required: bool = Field(False, description="Whether a run needs a value.")


class StepConfig(Table):
    """`[steps.NAME]`: exactly one of `run` and `python`, and what surrounds it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["run"]}, {"required": ["python"]}]})

    run: str | None = Field(None, description="A shell command or script.")
    python: str | None = Field(None, description="`module:function`, called in the pipeline's interpreter.")
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
    shell: str | None = Field(
        None, description="`bash` (default), `sh`, `python`, `pwsh`, or a command with `{0}` for the script's path."
    )
    working_directory: str = Field(".", description="Relative to the pipeline file's folder.")
    timeout_minutes: float | None = Field(
        None, gt=0, le=YEAR_MINUTES, allow_inf_nan=False, description="Time limit of the step; then it is stopped."
    )
    background: bool = Field(
        False, description="Let processes that the step leaves running stay. Default: they are ended with it."
    )
    continue_on_error: bool = Field(False, description="Let the run continue and succeed when this step fails.")

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
        None, description="Interpreter of python steps, relative to the file. Default: `python` on PATH."
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
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values that steps take by name.")
    inputs: dict[str, InputConfig] = Field(
        default_factory=dict, description="Parameters with a type, options or a description; each name in one table."
    )
    steps: dict[str, StepConfig] = Field(
        min_length=1,
        description="The steps, in order.",
        json_schema_extra={"propertyNames": {"pattern": f"^{STEP_NAME.pattern}$"}},
    )


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
