"""The options of `run` and `retry`, from the command line and the environment, and their secrets."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runnable_ci.config import LOG_LEVEL, SECRETS_SETTING, LogLevel, Settings
from runnable_ci.engine.reporter import CommandFiles, NoCommandFiles, Reporter
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.command_line import http_option
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.project import Project
from runnable_ci.redaction.environment import require_variables, secrets_of
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import is_pulled
from runnable_ci.util.console import is_actions

if TYPE_CHECKING:
    from runnable_ci.engine.parts.mock_options import MockOptions
    from runnable_ci.engine.parts.step_selection import PartialOptions
    from runnable_ci.engine.provenance.step_variables import VariableRecorder
    from runnable_ci.engine.spread.job import JobSteps
    from runnable_ci.pipeline.keys.durations import TimeLimit
    from runnable_ci.runs.recorder import Recorder
    from runnable_ci.runs.remote.writers import AcceptedWriters
    from runnable_ci.runs.reuse.candidates import IndexPlace
    from runnable_ci.steps.containers.step_containers import StepContainers
    from runnable_ci.store.copy import Progress
    from runnable_ci.util.process import Supervisor

Beside = Callable[["Recorder", "Supervisor"], AbstractContextManager[Callable[[], float]]]
"""Yields what returns how long it takes to publish the run."""
TransferProgress = Callable[[str], AbstractContextManager["Callable[[Progress], None] | None"]]


def _unseen(verb: str) -> AbstractContextManager[None]:  # noqa: ARG001 - nothing is shown
    return nullcontext()


def _nothing(recorder: Recorder, supervisor: Supervisor) -> AbstractContextManager[Callable[[], float]]:  # noqa: ARG001
    return nullcontext(lambda: 0.0)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Options:
    """The options of an invocation, beside its pipeline and the command's own."""

    jobs: int | None
    environ: Mapping[str, str]
    printer: Reporter
    command_files: CommandFiles = field(default_factory=NoCommandFiles)
    is_public: bool = False
    """Whether all can read what the run keeps: it is a job of a public repository."""
    wait_s: float = 0.0
    """How long to wait for another run in the workspace."""
    log_level: LogLevel | None = None
    """What steps are asked to log; None: what the run or its pipeline file says."""
    env_files: Sequence[Path] = ()
    """The dotenv files whose variables are in `environ`."""
    settings: Settings = field(default_factory=Settings)
    redactor: Redactor = field(default_factory=Redactor)
    """Knows the secrets of the environment."""
    confirm: Callable[[str], bool] | None = None
    """Asks a person at a terminal; None where there is none."""
    transfer_progress: TransferProgress = _unseen
    """Returns for a verb, such as `fetched`, the observer of a transfer's progress; None where nothing is shown."""
    time_budget: TimeLimit | None = None
    """When the run is to be over, from the command line."""
    executor: str | None = None
    """The executor of all steps; None: what each step says."""
    beside: Beside = _nothing
    """What is done while the steps run: to publish the run as it is by then."""


def _nowhere(_project: Project, _branch: str) -> tuple[Sequence[IndexPlace], AcceptedWriters | None]:
    return (), None


class ReuseOptions(NamedTuple):
    """Whose results may take the place of steps; by default what the pipeline file says."""

    said: str | None = None
    """`never`, or the run or the branch whose results are reused."""
    places: Callable[[Project, str], tuple[Sequence[IndexPlace], AcceptedWriters | None]] = _nowhere
    """Of a project, and of a branch that is named, else empty: the indexes in registries, and whose results are used.

    Raises `UsageError` for what is no branch.
    """
    why_not: str = ""
    """Why nothing is reused unless it is specified; empty where it is."""
    also: Sequence[str] = ()
    """Further runs of the store, whose results are reused where the one that is said has none that fits."""


class RunOptions(NamedTuple):
    """What a new run is asked for."""

    run_id: str | None = None
    """A new name where there is none."""
    tag: str = ""
    params_files: Sequence[Path] = ()
    """TOML, JSON or YAML; where two give the same parameter, the later counts."""
    params: Sequence[str] = ()
    """`NAME=VALUE`."""
    allow_unused: bool = False
    """Accept a parameter of `params` that no step takes though it is close to a known one."""
    part: PartialOptions | None = None
    """Which steps to run, where that is not all of them."""
    mocks: MockOptions | None = None
    """Which of them are mocked."""
    reuse: ReuseOptions = ReuseOptions()
    """Whose results may take the place of steps."""
    images: RunLog | None = None
    """The run in whose images steps run, by their digests; None: in what the images' names are now."""
    is_kept: bool = True
    """Whether the run stays where it is made, so that a command can resume it."""


class RetryOptions(NamedTuple):
    """What a retry is asked for, beyond resuming."""

    from_steps: Sequence[str] = ()
    params: Sequence[str] = ()
    """`NAME=VALUE`."""
    rerun_changed: bool = False
    """Run again what is out of date, however long that takes."""
    rerun: Collection[str] = ()
    """Which kinds of changes (`code`, `data`) may repeat finished work, however long that takes; `packages` makes those
    of the environment do so at all: interpreter, packages, image."""
    registry: str | None = None
    """Where to pull the run from first."""
    other_pipeline: bool = False
    """Resume the run with the specified pipeline file though it is not its own."""
    take_over: bool = False
    """Resume it though another machine is at it, by its signs of life."""
    restore_all: bool = False
    """Restore all files of reused steps, not only those that the steps which run may read."""
    params_files: Sequence[Path] = ()
    """TOML, JSON or YAML; `params` count before them."""
    allow_unused: bool = False
    """Accept a parameter of `params` that no step takes though it is close to a known one."""
    accept: Sequence[str] = ()
    """`STEP`, `STEP:code` or `STEP:data`: reuse it though that differs."""
    reason: str = ""
    """Why."""
    typed: Sequence[str] = ()
    """The command as it was typed, for messages."""
    again: Callable[[str], str] = lambda step: f"{shlex.join(('--from', step))} re-runs that step"
    """How a step that would be reused is run, for messages."""
    accepted: AcceptedWriters | None = None
    """Whose results are used; None: everybody's."""
    mocks: MockOptions | None = None
    """Which steps are mocked."""
    reuse: ReuseOptions = ReuseOptions()
    """Which other runs' results may take the place of steps that would run."""
    drops_checkpoints: bool = False
    """Start steps over of which an earlier attempt kept a checkpoint."""
    job: JobSteps | None = None
    """Which steps are this job's own, where several jobs share the run."""


def redactor_of(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> Redactor:
    """Return what knows all secrets of an invocation: also those that the pipeline names, or sets itself."""
    names = secret_names(pipeline, options)
    plain = {name: value for name, value in parameters.items() if isinstance(value, str)}
    steps = pipeline.outlined().steps.values()
    places = [options.environ, plain, *(step.env for step in steps)]
    places += [step.container.env for step in steps if step.container]
    capitals = {name.upper() for name in names}
    structured = [value for name, value in parameters.items() if name not in plain and name.upper() in capitals]
    secrets = (secret for place in places for secret in secrets_of(place, names))
    return options.redactor.knowing([*secrets, *texts(structured)])


def require_secret_names(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> None:
    """Raise `UsageError` for a name among the secrets that no variable has, no parameter and no return of a step."""
    plain = {name: value if isinstance(value, str) else "" for name, value in parameters.items()}
    variables = {**options.environ, **plain}
    for step in pipeline.outlined().steps.values():
        variables |= {**step.env, **dict.fromkeys(step.returns, "")}
    require_variables(pipeline.secrets, variables, where=f"{pipeline.file}: secrets")
    require_variables(options.settings.secret_names, variables, where=SECRETS_SETTING)


def secret_names(pipeline: Pipeline, options: Options) -> list[str]:
    """Return the names that were declared secret."""
    logins = [step.container.password for step in pipeline.steps.values() if step.container]
    return [*options.settings.secret_names, *pipeline.secrets, *filter(None, logins)]


@contextmanager
def redacting_errors(redactor: Redactor) -> Iterator[None]:
    """Remove secrets from errors that are raised in the block."""
    try:
        yield
    except RunnableError as e:
        e.message, e.hint = redactor.text(e.message), redactor.text(e.hint)
        raise


def options_of_next_retry(project: Project, settings: Settings, run_id: str, retry: RetryOptions) -> list[str] | None:
    """Return what a retry needs beside the run: its files may still be where it was pulled from; None for a job.

    The password of the settings goes to no registry that only the store names.
    """
    if retry.job is not None:
        return None
    mocks = retry.mocks.words() if retry.mocks else []
    if not is_pulled(project.layout, run_id):
        return mocks
    needs_registry = retry.registry is not None and settings.registry_password is not None
    named = ["--from-registry", retry.registry] if needs_registry and retry.registry else []
    return [*named, *http_option(settings.plain_http), *mocks]


def log_variables(log: RunLog) -> dict[str, str]:
    """Return the variable that tells steps what to log, in capital letters as Python's `logging` takes it."""
    level = log.invocations[-1].log_level if log.invocations else ""
    return {LOG_LEVEL: level.upper()} if level else {}


def variable_recorder(
    project: Project, options: Options, log: RunLog, redactor: Redactor, containers: StepContainers | None
) -> VariableRecorder:
    """Return what tells which variables count for the steps of an invocation, with the environment that these get."""
    from runnable_ci.engine.provenance.step_variables import ValueDigests, VariableRecorder  # where steps run

    key = options.settings.reuse_key
    names = {name.upper() for name in secret_names(project.pipeline, options)}
    return VariableRecorder(
        environ={**options.environ, "RUNNABLE_RUN_ID": log.run_id, **log_variables(log)},
        workspace=project.workspace,
        digests=ValueDigests(redactor, names, key.get_secret_value() if key else ""),
        passed=containers.passed if containers else None,
    )


def job_container(options: Options) -> CodeIdentity | None:
    """Return the image that all of this runs in: the named one, in a job what is found; None where there is none."""
    if named := options.settings.container_image_digest:
        name, _, digest = named.rpartition("@")
        return CodeIdentity(
            code_identifier=digest,
            code_identifier_type="docker",
            code_identifier_dependable=True,
            code_identifier_url=name,
        )
    if not is_actions(options.environ):
        return None
    from runnable_ci.engine.code.job_container import find_job_container  # most runs are in no job

    return find_job_container(options.environ)
