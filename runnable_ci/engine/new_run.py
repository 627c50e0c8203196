"""What a new run is: its parameters, its id, and the loop on an empty log."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from runnable_ci.engine.execution import execute
from runnable_ci.engine.options import redacting_errors, require_secret_names
from runnable_ci.engine.planner import Plan, PlanInputs, Scope, plan
from runnable_ci.engine.preflight import expression_warnings, parameter_warnings, require, require_inputs
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunExistsError, RunnableError
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.parameters import assemble_parameters, parameter_overrides, typed_names
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import check_run_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.recorder import create, require_unused
from runnable_ci.runs.run_identity import run_id as new_run_id
from runnable_ci.util.text import pluralize


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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NewRun:
    """A run that can begin: nothing is known that speaks against it."""

    session: RunSession
    options: RunOptions
    parameters: Mapping[str, Any]

    def plan(self) -> Plan:
        """Return what would be done with each step."""
        initial = Scope.initial(self.parameters)
        return plan(self.session.project.pipeline, RunLog(run_id=""), initial=initial, inputs=PlanInputs())

    def execute(self) -> tuple[str, int]:
        """Run the pipeline; the run's id and the exit code. Raises `RunExistsError`, and `UsageError` where another
        run works in the workspace.
        """
        run_id = self.options.run_id or _unused_id(self.session.project)
        with self.session.in_workspace(run_id, "run") as session:
            return run_id, self._execute(session, run_id)

    def _execute(self, session: RunSession, run_id: str) -> int:
        project = session.project
        redactor = session.redactor(self.parameters)
        if session.recover():
            require_inputs(project, project.pipeline.steps, session.options.printer.say)
        started = session.started(
            RunLog(run_id=run_id, run_config={"executor": "local"}),
            "run",
            self.parameters,
            pipeline_identity=project.identity(),
            tag=self.options.tag,
        )
        with (
            redacting_errors(redactor),
            _hint_at_retry(project, run_id),
            create(project.layout, started, redactor) as recorder,
        ):
            steps, printer = project.pipeline.steps, session.options.printer
            printer.begin(list(steps), len(steps))
            printer.say(f"run {run_id}: {project.pipeline.name}, {pluralize(len(steps), 'step')}")
            catalog = session.catalog(recorder.log)
            inputs = PlanInputs(mask=redactor.value)
            return execute(session, recorder, catalog, parameters=self.parameters, inputs=inputs)


def prepare_run(session: RunSession, options: RunOptions) -> NewRun:
    """Return the run that is asked for, checked; what is odd about its parameters is said.

    Raises `UsageError`, `PipelineError`, and `RunExistsError` where there is a run of that id.
    """
    project, environ = session.project, session.options.environ
    pipeline = project.pipeline
    with redacting_errors(session.redactor(pipeline.parameters)):
        overrides = parameter_overrides(
            pipeline, params_files=options.params_files, environ=environ, options=options.params
        )
    parameters = assemble_parameters(pipeline, pipeline.parameters, overrides)
    require_secret_names(pipeline, parameters, session.options)
    require(pipeline, project.workspace, parameters, pipeline.steps)
    typed = [] if options.allow_unused else typed_names(options.params)
    warnings = parameter_warnings(pipeline, project.workspace, overrides, known=pipeline.declared(), typed=typed)
    say = session.options.printer.say
    require_inputs(project, pipeline.steps, say)
    for line in (*expression_warnings(pipeline), *(f"note: {warning}" for warning in warnings.values())):
        say(line)
    if options.run_id is not None:
        check_run_id(options.run_id)
        with _hint_at_retry(project, options.run_id):
            require_unused(project.layout, options.run_id)
    return NewRun(session, options, parameters)


def _unused_id(project: Project) -> str:
    while True:
        run_id = new_run_id(datetime.now(UTC), random.SystemRandom().choice)
        if not run_folder(project.layout, run_id).exists():
            return run_id


@contextmanager
def _hint_at_retry(project: Project, run_id: str) -> Iterator[None]:
    """Add to an error in the block how to resume the run that already has the id."""
    try:
        yield
    except RunExistsError as e:
        from runnable_ci.engine.run_project import own_file

        file = None
        with suppress(RunnableError):  # its log cannot be read, or is only just being written
            file = own_file(load_log(project.layout, run_id), project.workspace)
        e.hint = f"`{command_line.retry(run_id, file or project.file, project.layout)}` resumes it"
        raise
