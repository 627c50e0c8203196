"""What a new run is: its parameters, its id, and the loop on an empty log."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnable_ci.engine.execution import execute
from runnable_ci.engine.options import RunOptions, redacting_errors, require_secret_names
from runnable_ci.engine.planner import PlanInputs, Scope
from runnable_ci.engine.planning.plan import Plan, plan
from runnable_ci.engine.preflight import (
    expression_warnings,
    parameter_warnings,
    require,
    require_inputs,
    required_by,
)
from runnable_ci.engine.provenance.workspace_view import files_found
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunExistsError, RunnableError
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.parameters import assemble_parameters, parameter_overrides, typed_names
from runnable_ci.pipeline.project import Project
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.files.workspace import Workspace
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import check_run_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.recorder import create, require_unused
from runnable_ci.runs.run_identity import run_id as new_run_id
from runnable_ci.util.text import pluralize

if TYPE_CHECKING:
    from runnable_ci.engine.parts.mocks import MockedResult
    from runnable_ci.engine.parts.partial_run import PartialRun
    from runnable_ci.steps.containers.step_containers import StepContainers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NewRun:
    """A run that can begin: nothing is known that speaks against it."""

    session: RunSession
    """With the part of the pipeline that is to run, and what that needs."""
    options: RunOptions
    parameters: Mapping[str, Any]

    def plan(self) -> Plan:
        """Return what would be done with each step."""
        project, redactor = self.session.project, self.session.redactor(self.parameters)
        self._mocked(self.session, is_dry=True)
        if taken := self._taken(self.session, redactor, is_dry=True):
            self.session.options.printer.say(f"note: {taken}")
            return taken.plan_with_others(self.session, redactor, self.options.reuse, unused_id(project))
        workspace = project.workspace
        inputs = PlanInputs(files=files_here(workspace), required=required_by(workspace), mask=redactor.value)
        if project.pipeline.reuses_others(self.options.reuse.said):
            from runnable_ci.engine.reuse.opening import looking_ahead  # most runs look at no other

            inputs = looking_ahead(inputs, self.session, unused_id(project), redactor, self.options.reuse)
        return plan(project.pipeline, RunLog(run_id=""), initial=Scope.initial(self.parameters), inputs=inputs)

    def execute(self) -> tuple[str, int]:
        """Run the pipeline; the run's id and the exit code. Raises `RunExistsError`, and `UsageError` where another
        run works in the workspace.
        """
        run_id = self.options.run_id or unused_id(self.session.project)
        with self.session.in_workspace(run_id, "run") as session:
            return run_id, self._execute(session, run_id)

    def _execute(self, session: RunSession, run_id: str) -> int:
        project, part = session.project, self.options.part
        redactor = session.redactor(self.parameters)
        if session.recover():
            require_inputs(project, self._running(), session.options.printer.say)
        started = session.started(
            RunLog(run_id=run_id, run_config={"executor": "local", **(part.selection.config() if part else {})}),
            "run",
            self.parameters,
            pipeline_identity=project.identity(),
            tag=self.options.tag,
        )
        with redacting_errors(redactor):
            taken = self._taken(session, redactor, is_dry=False)
            containers = self._containers(session, taken)
            if any(executor.project for executor in project.pipeline.executors.values()):
                from runnable_ci.engine.elsewhere.apart.requirements import require_apart  # few have such machines

                require_apart(session, taken.planned.plan.running if taken else project.pipeline.steps)
            mocked, again = self._mocked(session)
            with _hint_at_retry(project, run_id), create(project.layout, started, redactor) as recorder:
                if taken:
                    recorder.record(*taken.events(run_id))
                steps, printer = project.pipeline.steps, session.options.printer
                running = taken.planned.plan.running if taken else steps
                printer.begin(list(steps), len(running))
                more = f"; {taken}" if taken else ""
                printer.say(f"run {run_id}: {project.pipeline.name}, {pluralize(len(running), 'step')}{more}")
                catalog = session.catalog(recorder.log)
                inputs = PlanInputs(
                    mask=redactor.value, files=files_here(project.workspace), required=required_by(project.workspace)
                )
                products = None
                if taken:
                    taken.restore(session, catalog)
                    inputs, products = taken.planned.inputs, taken.planned.products
                return execute(
                    session,
                    recorder,
                    catalog,
                    parameters=self.parameters,
                    inputs=inputs,
                    products=products,
                    retry_options=again if self.options.is_kept else None,
                    mocked=mocked,
                    containers=containers,
                    reuse=self.options.reuse,
                )

    def _containers(self, session: RunSession, taken: PartialRun | None) -> StepContainers | None:
        """Return what runs the steps that have a container, their images being there; None where none has one."""
        containers = session.containers(self.options.images or RunLog(run_id=""))
        if containers:
            from runnable_ci.engine.code.container_images import require_images  # few pipelines need it

            running = taken.planned.plan.running if taken else session.project.pipeline.steps
            require_images(containers, session.project, running)
        return containers

    def _running(self) -> Collection[str]:
        steps = self.session.project.pipeline.steps
        return self.options.part.selection.running(self.session.project.pipeline) if self.options.part else steps

    def _mocked(self, session: RunSession, *, is_dry: bool = False) -> tuple[Mapping[str, MockedResult], Sequence[str]]:
        """Return what mocks give, and the options of a retry that mocks the same."""
        if self.options.mocks is None:
            return {}, []
        from runnable_ci.engine.parts.mocks import results_of_mocks  # most runs mock nothing

        return results_of_mocks(session, self.options.mocks, is_dry=is_dry), self.options.mocks.words()

    def _taken(self, session: RunSession, redactor: Redactor, *, is_dry: bool) -> PartialRun | None:
        """Return what is taken from an earlier run; None where all steps run."""
        if self.options.part is None or len(self._running()) == len(session.project.pipeline.steps):
            return None
        from runnable_ci.engine.parts.partial_run import plan_partial  # most runs have all steps

        return plan_partial(session, self.parameters, redactor, self.options.part, is_dry=is_dry)


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
    part: Pipeline = pipeline
    if options.part is not None:
        options.part.selection.require_known(pipeline)
        part = options.part.selection.part_of(pipeline)
    if options.mocks is not None:
        part = options.mocks.applied(part, project.workspace)
    if options.reuse.said not in (None, "never"):
        from runnable_ci.engine.reuse.opening import require_known  # most runs look at no other

        require_known(session, options.reuse)
    running = options.part.selection.running(part) if options.part else part.steps.keys()
    require(part, project.workspace, parameters, running)
    typed = [] if options.allow_unused else typed_names(options.params)
    warnings = parameter_warnings(pipeline, project.workspace, overrides, known=pipeline.declared(), typed=typed)
    say = session.options.printer.say
    require_inputs(session.with_pipeline(part).project, running, say)
    for line in (*expression_warnings(pipeline), *(f"note: {warning}" for warning in warnings.values())):
        say(line)
    if options.run_id is not None:
        check_run_id(options.run_id)
        with _hint_at_retry(project, options.run_id):
            require_unused(project.layout, options.run_id)
    return NewRun(session.with_pipeline(part), options, parameters)


def unused_id(project: Project) -> str:
    """Return a run id that no run in the project's store has."""
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


def files_here(folder: Path) -> Callable[[str, Scope], list[str]]:
    """Return what finds the files of a pattern for a step of a new run."""
    workspace = Workspace(folder)
    return lambda pattern, scope: files_found(workspace, pattern, hidden=(), visible=scope.files)
