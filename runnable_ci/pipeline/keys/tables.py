"""The tables within a step, as they are written in the pipeline file. Pure."""

from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from runnable_ci.pipeline.validation import shown
from runnable_ci.util.text import duration_s

YEAR_MINUTES: Final = 366 * 24 * 60
ATTEMPTS_MAX: Final = 1000
Reuse = Literal["never", "this-run", "any-run"]
"""Which results may take the place of running a step: none, those of the run itself, those of any run."""


def age_s(text: str) -> float:
    """Return a `max-age` in seconds: infinity for `forever`. Raises `ValueError`."""
    found = float("inf") if text == "forever" else duration_s(text)
    if not found:
        raise ValueError("must be such as `30m`, `24h` or `7d`, or `forever`")
    return found


class Table(BaseModel):
    """A table of the pipeline file: unknown keys are errors, and nothing is cast."""

    model_config = ConfigDict(
        extra="forbid", strict=True, defer_build=True, alias_generator=lambda name: name.replace("_", "-")
    )


class PutConfig(Table):
    """`{ path = "big.bin", store = false }`: an entry of `put` with more to it than its path."""

    path: str = Field(description="A path or glob, as in `put`.")
    store: bool = Field(
        True,
        description="Copy the files into the store. With `false` their hashes are recorded alone: where a later step "
        "needs one that is not in the workspace any more, the step runs again.",
    )


def _or_a_path(schema: dict[str, Any]) -> None:
    schema["items"] = {"anyOf": [{"type": "string"}, schema["items"]]}


class CatalogConfig(Table):
    """`catalog = { get = […], put = […] }`: paths and globs (`*`, `**`) relative to the pipeline file's folder."""

    get: list[str] | None = Field(
        None,
        description="Files restored into the workspace before the step. Files that no step puts are recorded by their "
        "hash, also above the folder: `../data/x.csv`.",
    )
    put: list[PutConfig] = Field(
        default_factory=list,
        description='Files that the step makes: stored after it. A path, or `{ path = "big.bin", store = false }`.',
        json_schema_extra=_or_a_path,
    )
    persist: bool = Field(
        False,
        description="Let the step find the files that it made before, and keep those that it does not write again. "
        "Default: they are set aside before it runs.",
    )

    @field_validator("put", mode="before")
    @classmethod
    def _paths_alone(cls, value: Any) -> Any:
        if isinstance(value, list):
            if wrong := [shown(it) for it in value if not isinstance(it, str | dict)]:
                raise ValueError(f"an entry must be a path or a table, not {wrong[0]}")
            return [{"path": it} if isinstance(it, str) else it for it in value]
        return value


def or_a_list_of_paths(schema: dict[str, Any]) -> None:
    table = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
    schema["anyOf"] = [{"type": "array", "items": {"type": "string"}, "minItems": 1}, table]


class CheckpointConfig(Table):
    """`checkpoint = { path = ["ckpt/**"], every-minutes = 10 }`: how a step's own work is kept while it runs."""

    path: list[str] = Field(
        description="Paths and globs, as in `put`; neither `put` nor `get` may have one of these files."
    )
    every_minutes: float = Field(
        5, gt=0, le=YEAR_MINUTES, allow_inf_nan=False, description="How much work may be lost at most."
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


class CredentialsConfig(Table):
    """`credentials = { username = "USER", password = "TOKEN" }`: names of environment variables, never values."""

    username: str = Field(description="The environment variable with the user of the image's registry.")
    password: str = Field(description="The environment variable with the password or token.")


class ContainerConfig(Table):
    """`container = { image = … }`: what a step runs in, in the words of GitHub's workflows."""

    image: str = Field(description="The image, by tag or digest; a tag is resolved once in a run.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables in the container.")
    volumes: list[str] = Field(
        default_factory=list,
        description="What is mounted beside the workspace: `HOST:/PATH`, or `HOST:/PATH:ro`; HOST is a path, also "
        "relative to the pipeline file's folder (`./data`), or the name of a volume.",
    )
    options: str = Field("", description="More options of the engine's `run`, such as `--memory 4g`.")
    credentials: CredentialsConfig | None = Field(
        None, description="What the image is pulled with. Default: what the engine knows."
    )
    gpus: str = Field("", description="Which GPUs the step sees: `all`, or a number.")
    network: str = Field("", description="`none`, `host`, or a network of the engine. Default: the engine's own.")


class StrategyConfig(Table):
    """`strategy = { matrix = { sample = ["a", "b"] } }`: one instance of the step for each value."""

    matrix: dict[str, Any] | str = Field(
        description='Axis → list of values, or an expression that gives it: `"${{ parameters.chunks }}"`, which an '
        "earlier step returned, `\"${{ files('data/*.fq') }}\"`. Instances find the values as parameters. `include` "
        "adds values or instances, `exclude` removes instances, as GitHub's do.",
    )
    max_parallel: int | None = Field(None, gt=0, description="Instances at a time. Default: as many as steps may run.")
    fail_fast: bool = Field(
        True, description="Begin no further instance once one has failed; those that run come to their end."
    )


class LoopConfig(Table):
    """`loop = { until = "parameters.error < 0.1", max = 10 }`: the step again and again."""

    until: str = Field(description="An expression, looked at after each round: the loop ends when it is true.")
    max: int = Field(gt=0, le=10_000, description="Rounds at most: if the condition is not true then, the step fails.")


class AttemptsConfig(Table):
    """`attempts = { max = 3, wait-seconds = 30, on = ["timeout", 137] }`: how often a step is tried."""

    max: int = Field(3, ge=1, le=ATTEMPTS_MAX, description="How many tries there are in all.")
    wait_seconds: float = Field(
        0, ge=0, le=YEAR_MINUTES * 60, allow_inf_nan=False, description="How long to wait between two tries."
    )
    on: list[str | int] | None = Field(
        None,
        description="After which ends there is another try: `timeout`, an exit code, or `lost`: a signal ended it that "
        "nobody here sent. Default: after any failure.",
    )

    @field_validator("on")
    @classmethod
    def _possible(cls, value: list[str | int] | None) -> list[str | int] | None:
        for end in value or ():
            if isinstance(end, int) and not 0 < end < 256:
                raise ValueError(f"no step fails by the exit code {end}: they are 1 to 255")
        return value


class Attempts(NamedTuple):
    """How often a step is tried until it succeeds."""

    most: int = 1
    wait_s: float = 0.0
    """Between two tries."""
    on: tuple[str | int, ...] | None = None
    """After which ends it is tried again: `timeout`, `lost`, or an exit code. None: after any failure."""


class ResourcesConfig(Table):
    """`resources = { cpus = 8, memory = "32G", gpus = 1 }`: what a step takes while it runs."""

    cpus: int | list[int] | None = Field(None, description="Cores. Default: 1.")
    memory: str | list[str] | None = Field(
        None, description="A number with its unit, of which 1024 are the next: `500M`, `32G`. Default: any."
    )
    gpus: int | list[int] | None = Field(None, description="GPUs. Default: none.")


_LABELS: Final = [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]


def or_labels(schema: dict[str, Any]) -> None:
    """Let a JSON schema take a label, or several, in place of the table."""
    table = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
    schema["anyOf"] = [*_LABELS, table]


def _or_one(schema: dict[str, Any]) -> None:
    del schema["type"], schema["items"]
    schema["anyOf"] = [*_LABELS]


class RunnerConfig(Table):
    """`runs-on = { group = "gpu-runners", labels = ["linux"] }`; or a label, or several, in its place."""

    labels: list[str] = Field([], description="The labels that the runner must all have.", json_schema_extra=_or_one)
    group: str = Field("", description="The group of runners that it must be in.")

    @field_validator("labels", mode="before")
    @classmethod
    def _label_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("labels", "group")
    @classmethod
    def _names(cls, value: list[str] | str) -> list[str] | str:
        for name in value if isinstance(value, list) else [value]:
            if not name.strip() or not name.isprintable() or "${{" in name:  # which GitHub takes for something else
                what = "label" if isinstance(value, list) else "group"
                raise ValueError(f"{shown(name)} is not the {what} of a runner")
        return value

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if not (self.labels or self.group):
            raise ValueError("names no label")
        return self


def runner_of(value: Any) -> Any:
    """Return the table with what may stand in its place."""
    return {"labels": value} if isinstance(value, str | list) else value


class WorkflowConfig(Table):
    """`[workflow]`: what the workflow that `workflow` writes has beside the jobs of the steps."""

    on: dict[str, Any] | None = Field(
        None,
        description="What starts it, in GitHub's words, beside `workflow_dispatch`, which always does. Default: "
        '`{ push = { branches = ["main"] }, pull_request = {} }`.',
    )
    setup: str = Field("", description="A bash script that each job runs before its steps, such as `pip install …`.")
    setup_action: str = Field(
        "", description="A local action that each job uses before its steps: `./.github/actions/setup`."
    )
    python_version: str = Field("", description="As the action's input: the Python of the program itself.")
    action_ref: str = Field("v1", description="Version, branch or commit of the action.")

    @field_validator("setup_action")
    @classmethod
    def _local(cls, value: str) -> str:
        if value and (not value.startswith("./") or not value.isprintable() or "${{" in value):
            raise ValueError("must be the path of a local action: `./.github/actions/setup`")
        return value


class ExecutorConfig(Table):
    """`[executors.NAME]`: where steps run that name it: `slurm`, or a `command` that starts one elsewhere."""

    slurm: dict[str, Any] | None = Field(
        None,
        description="Options of Slurm's `sbatch` and `srun` by their long names, such as `partition` and `time`; "
        "`arrays = false` submits instances of a matrix one by one, not as job arrays.",
    )
    command: str | list[str] | None = Field(
        None,
        description="What starts a command elsewhere and ends with it, with `{}` in the place of that command: "
        '`"ssh node {}"`. No shell reads it; a list has its words.',
    )
    program: str | None = Field(
        None,
        description="How runnable-ci is called there: a path, or a command. Default: as it runs here, by the path of "
        "its interpreter.",
    )
    max_parallel: int | None = Field(None, gt=0, description="Steps at a time. Default: as many as may run.")
    project: str | None = Field(
        None,
        description="A clone of the project there, as an absolute path or `~/…`: the machines share no folder, and "
        "attempts go through the registry. Default: the project is at the same path there.",
    )
