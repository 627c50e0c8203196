"""The options that `run` and `retry` share, from the command line and the environment, and their secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnable_ci.config import LOG_LEVEL, SECRETS_SETTING, LogLevel, Settings
from runnable_ci.engine.reporter import CommandFiles, NoCommandFiles, Reporter
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.redaction.environment import require_variables, secrets_of
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.model import RunLog

if TYPE_CHECKING:
    from runnable_ci.store.copy import Progress

SELECTED_STEPS, UNTIL_STEPS = "selected_steps", "until_steps"
"""What `run_config` has of a run of some steps."""
TransferProgress = Callable[[str], AbstractContextManager["Callable[[Progress], None] | None"]]


def _unseen(verb: str) -> AbstractContextManager[None]:  # noqa: ARG001 - nothing is shown
    return nullcontext()


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


def redactor_of(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> Redactor:
    """Return what knows all secrets of an invocation: also those that the pipeline names, or sets itself."""
    names = secret_names(pipeline, options)
    plain = {name: value for name, value in parameters.items() if isinstance(value, str)}
    places = [options.environ, plain, *(step.env for step in pipeline.steps.values())]
    places += [step.container.env for step in pipeline.steps.values() if step.container]
    capitals = {name.upper() for name in names}
    structured = [value for name, value in parameters.items() if name not in plain and name.upper() in capitals]
    secrets = (secret for place in places for secret in secrets_of(place, names))
    return options.redactor.knowing([*secrets, *texts(structured)])


def require_secret_names(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> None:
    """Raise `UsageError` for a name among the secrets that no variable has, no parameter and no return of a step."""
    plain = {name: value if isinstance(value, str) else "" for name, value in parameters.items()}
    variables = {**options.environ, **plain}
    for step in pipeline.steps.values():
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


def log_variables(log: RunLog) -> dict[str, str]:
    """Return the variable that tells steps what to log, in capital letters as Python's `logging` takes it."""
    level = log.invocations[-1].log_level
    return {LOG_LEVEL: level.upper()} if level else {}
