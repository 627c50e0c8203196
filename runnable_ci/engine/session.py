"""One invocation of a run, from the command line to the sealed artifact: what `run` and `retry` have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runnable_ci.config import SECRETS_SETTING, Settings
from runnable_ci.engine import untracked
from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.planner import PlanInputs, PlanState, Scope
from runnable_ci.engine.reporter import CommandFiles, NoCommandFiles, Reporter
from runnable_ci.engine.runner import Run
from runnable_ci.engine.step_output import Masks
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import matches
from runnable_ci.pipeline.project import Project
from runnable_ci.redaction.environment import require_variables, secrets_of
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import EnvironmentRecorded
from runnable_ci.runs.model import SUCCESS, Environment
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import describe, key_of
from runnable_ci.util.process import Supervisor
from runnable_ci.util.signals import cancelling
from runnable_ci.util.threads import start
from runnable_ci.vcs.identity import Code
from runnable_ci.version import VERSION


@dataclass(frozen=True, slots=True)
class Options:
    """What `run` and `retry` are told alike."""

    jobs: int | None
    environ: Mapping[str, str]
    printer: Reporter
    command_files: CommandFiles = field(default_factory=NoCommandFiles)
    is_public: bool = False
    """Whether all can read what the run keeps: it is a job of a public repository."""
    settings: Settings = field(default_factory=Settings)
    redactor: Redactor = field(default_factory=Redactor)
    """Knows the secrets of the environment."""


def redactor_of(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> Redactor:
    """What knows all secrets of an invocation: also those that the pipeline names, or sets itself."""
    named = _named(pipeline, options)
    given = {name: value for name, value in parameters.items() if isinstance(value, str)}
    places = [options.environ, given, *(step.env for step in pipeline.steps.values())]
    capitals = {name.upper() for name in named}
    structured = [value for name, value in parameters.items() if name not in given and name.upper() in capitals]
    found = (secret for place in places for secret in secrets_of(place, named))
    return options.redactor.knowing([*found, *texts(structured)])


def require_secret_names(pipeline: Pipeline, parameters: Mapping[str, Any], options: Options) -> None:
    """Raise `UsageError` for a name among the secrets that no variable has, no parameter and no return of a step."""
    given = {name: value if isinstance(value, str) else "" for name, value in parameters.items()}
    variables = {**options.environ, **given}
    for step in pipeline.steps.values():
        variables |= {**step.env, **dict.fromkeys(step.returns, "")}
    require_variables(pipeline.secrets, variables, where=f"{pipeline.file}: secrets")
    require_variables(options.settings.secret_names, variables, where=SECRETS_SETTING)


def _named(pipeline: Pipeline, options: Options) -> list[str]:
    return [*options.settings.secret_names, *pipeline.secrets]


@contextmanager
def redacting_errors(redactor: Redactor) -> Iterator[None]:
    """Within the block no error says a secret."""
    try:
        yield
    except RunnableError as e:
        e.message, e.hint = redactor.text(e.message), redactor.text(e.hint)
        raise


def code_of(project: Project, environ: Mapping[str, str]) -> Code:
    """The code of a project: its pipeline's own products never count as a change."""
    patterns = [pattern for step in project.pipeline.steps.values() for pattern in step.put]
    return Code(
        project.workspace,
        products=lambda name: any(matches(pattern, name) for pattern in patterns),
        environ=environ,
    )


def run_session(
    project: Project,
    recorder: Recorder,
    catalog: Catalog,
    code: Code,
    *,
    parameters: Mapping[str, Any],
    inputs: PlanInputs,
    interpreter: str,
    options: Options,
) -> int:
    """Run the pipeline on an open run and seal it; the exit code. `interpreter` runs the python steps.

    `parameters` are those of the run as they really are: the log may have masks in their place.
    """
    described = EnvironmentProbe(interpreter, project.workspace, options.environ)
    supervisor = Supervisor()
    workplace = ExecutionContext(
        catalog=catalog,
        supervisor=supervisor,
        printer=options.printer,
        environ={**options.environ, "RUNNABLE_RUN_ID": recorder.log.run_id},
        interpreter=interpreter,
        outputs=recorder.outputs,
        scratch=recorder.scratch,
        processes=recorder.processes,
        command_files=options.command_files,
        masks=Masks(recorder.redactor, options.printer),
        secret_names={name.upper() for name in _named(project.pipeline, options)},
    )
    run = Run(
        pipeline=project.pipeline,
        recorder=recorder,
        workplace=workplace,
        code=code,
        environ=options.environ,
        environment=lambda: described.record(recorder),
        image=options.settings.container_image_digest,
        printer=options.printer,
        jobs=options.jobs or os.cpu_count() or 1,
        state=PlanState(project.pipeline, inputs, Scope.initial(parameters)),
        untracked=untracked.rule(project, options.settings, is_public=options.is_public),
    )
    with redacting_errors(recorder.redactor), closing(supervisor), cancelling(supervisor.cancel):
        try:
            status = run.execute()
        finally:
            options.printer.end()
        recorder.seal(catalog)
    for note in untracked.notes(recorder.log, invocation=recorder.log.invocation):
        options.printer.say(note)
    options.printer.annotate(recorder.log, project.workspace, project.file)
    if supervisor.cancelled_by:
        return 128 + supervisor.cancelled_by
    return 0 if status == SUCCESS else 1


class EnvironmentProbe:
    """Asks for the environment in a thread, where there is one: the first step need not wait for the answer."""

    def __init__(self, interpreter: str, workspace: Path, environ: Mapping[str, str]) -> None:
        self._found = Environment()
        self._key = ""

        def ask() -> None:
            self._found = describe(interpreter, workspace, environ, tool_version=VERSION)

        self._thread = start(ask, name="environment")
        if self._thread is None:
            ask()

    def record(self, recorder: Recorder) -> str:
        """The key of the environment, which the run log has from now on."""
        if self._thread is not None:
            self._thread.join()
        self._key = self._key or key_of(self._found)
        if self._key not in recorder.log.environments:
            recorder.record(EnvironmentRecorded(key=self._key, environment=self._found))
        return self._key
