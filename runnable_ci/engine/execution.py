"""An invocation of a run, from its first step to the sealed artifact. Loaded only where there is something to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.closing import say_end
from runnable_ci.engine.code import untracked
from runnable_ci.engine.code.code_recorder import CodeRecorder
from runnable_ci.engine.options import ReuseOptions, job_container, redacting_errors, secret_names, variable_recorder
from runnable_ci.engine.planner import PlanInputs, Scope
from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.engine.provenance.environment_probe import EnvironmentProbe
from runnable_ci.engine.provenance.reads import ReadRecorder
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.runner import Run
from runnable_ci.engine.session import RunSession
from runnable_ci.engine.step_output import Masks
from runnable_ci.errors import STOPPED_IN_TIME, RunnableError, system_errors
from runnable_ci.observe.observer import Observer
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import SUCCESS, TIME_BUDGET, CatalogEntry, Pack, StepAttempt
from runnable_ci.runs.paths import in_flight
from runnable_ci.runs.products.step_products import Products, StepProducts
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import chosen_interpreter_note
from runnable_ci.steps.machine import capacity
from runnable_ci.util.process import Supervisor
from runnable_ci.util.signals import cancelling
from runnable_ci.util.threads import start
from runnable_ci.vcs.git_files import repository_root

if TYPE_CHECKING:
    from runnable_ci.engine.outliving.time_budget import TimeBudget
    from runnable_ci.engine.parts.mocks import MockedResult
    from runnable_ci.steps.containers.step_containers import StepContainers


def execute(
    session: RunSession,
    recorder: Recorder,
    catalog: Catalog,
    *,
    parameters: Mapping[str, Any],
    inputs: PlanInputs,
    reuse: ReuseOptions,
    products: RunProducts | None = None,
    retry_options: Sequence[str] | None = (),
    containers: StepContainers | None = None,
    mocked: Mapping[str, MockedResult] = MappingProxyType({}),
) -> int:
    """Run the pipeline on an open run, seal it and say how it ended; the exit code.

    `parameters` are those of the run as they really are: the log may have masks in their place. The command that
    resumes the run needs `retry_options`; None: nothing can. `mocked` is what mocks give, `reuse` what was said of
    other runs.
    """
    project, workspace, printer = session.project, session.project.workspace, session.options.printer
    probe = EnvironmentProbe(session.interpreter, project, session.options.environ)
    supervisor = Supervisor()
    around = repository_root(workspace, session.options.environ)
    observer = _observer(session, recorder, around)
    state = PlanState(project.pipeline, inputs, Scope.initial(parameters))
    reads = ReadRecorder(
        project.pipeline._replace(steps=state.steps),  # those of branches come as they are known
        observer,
        catalog,
        recorder.outputs,
        variable_recorder(project, session.options, recorder.log, recorder.redactor, containers),
        products or RunProducts(is_tracked=catalog.is_tracked),
    )
    context = _context(session, recorder, catalog, supervisor, reads, containers, mocked)
    if project.pipeline.reuses_others(reuse.said):
        from runnable_ci.engine.reuse.opening import open_elsewhere  # most runs look at no other

        context = open_elsewhere(state, context, session, recorder, reuse, probe)
    beside, cancel = session.options.beside, supervisor.cancel
    if budget := _time_budget(session, recorder, context):
        beside, cancel, context = budget.beside(beside), budget.cancel, replace(context, budget=budget)
    run = _loop(session, recorder, context, state, probe)
    if note := chosen_interpreter_note(project.pipeline, workspace, session.interpreter):
        printer.say(note)
    with redacting_errors(recorder.redactor), closing(observer), closing(supervisor), cancelling(cancel):
        try:
            with beside(recorder, supervisor):
                status = run.execute()
        finally:
            printer.end()
        start(observer.close, name="unwatch")  # beside the sealing, which takes as long
        unsealed = _seal(recorder, catalog)
    say_end(session, recorder.log, state.steps, is_in_repository=bool(around), retry_options=retry_options, reuse=reuse)
    if unsealed:
        raise unsealed
    if supervisor.cancelled_by and not (budget and budget.is_ending):
        return 128 + supervisor.cancelled_by
    return STOPPED_IN_TIME if recorder.log.ended_by == TIME_BUDGET else int(status != SUCCESS)


def _time_budget(session: RunSession, recorder: Recorder, context: ExecutionContext) -> TimeBudget | None:
    if not (session.options.time_budget or session.project.pipeline.time_budget):
        return None
    from runnable_ci.engine.outliving.time_budget import budget_of  # most runs have none

    return budget_of(session, recorder.log, lambda: context.products.keeping_s)


def _seal(recorder: Recorder, catalog: Catalog) -> RunnableError | None:
    """Make an artifact of the run; return why that is impossible: the journal has how it ended nevertheless."""
    try:
        with system_errors():
            recorder.seal(catalog)
    except RunnableError as e:
        return e
    with suppress(RunnableError, OSError):  # it only saves time
        catalog.remember_hashes()
    return None


def _stand_in(
    mocked: Mapping[str, MockedResult], catalog: Catalog, products: StepProducts, attempt: StepAttempt
) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    from runnable_ci.engine.parts.mocks import stand_in  # most runs mock nothing

    return stand_in(products, attempt, mocked.get(products.step.name), catalog)


def _context(
    session: RunSession,
    recorder: Recorder,
    catalog: Catalog,
    supervisor: Supervisor,
    reads: ReadRecorder,
    containers: StepContainers | None,
    mocked: Mapping[str, MockedResult],
) -> ExecutionContext:
    return ExecutionContext(
        catalog=catalog,
        supervisor=supervisor,
        printer=session.options.printer,
        environ=reads.variables.environ,
        interpreter=session.interpreter,
        outputs=recorder.outputs,
        scratch=recorder.scratch,
        processes=recorder.processes,
        command_files=session.options.command_files,
        masks=Masks(recorder.redactor, session.options.printer),
        products=Products(catalog, recorder.log.invocation, session.options.printer.say),
        reads=reads,
        secret_names={name.upper() for name in secret_names(session.project.pipeline, session.options)},
        restore=recorder.restore,
        containers=containers,
        stand_in=partial(_stand_in, mocked, catalog),
    )


def _loop(
    session: RunSession, recorder: Recorder, context: ExecutionContext, state: PlanState, probe: EnvironmentProbe
) -> Run:
    options = session.options
    there, room = capacity(options.environ), None
    jobs = options.jobs or there.cpus
    if any(step.resources for step in session.project.pipeline.outlined().steps.values()):
        from runnable_ci.engine.planning.room import Room  # most pipelines say nothing

        room = Room(there, jobs)
    run = Run(
        pipeline=session.project.pipeline,
        recorder=recorder,
        context=context,
        code=CodeRecorder(
            code=session.code,
            recorder=recorder,
            environ=options.environ,
            container=job_container(options),
            containers=context.containers,
            untracked=untracked.rule(session.project, options.settings, is_public=options.is_public),
            changed=context.reads.observer.changed,
        ),
        environment=lambda step: probe.record(recorder, step, context.containers),
        printer=options.printer,
        jobs=jobs,
        state=state,
        room=room,
    )
    if _is_elsewhere(session, recorder):
        from runnable_ci.engine.elsewhere.opening import open_executors  # most runs are on one machine

        run.elsewhere = open_executors(session, recorder, context, run.tell)
    return run


def _observer(session: RunSession, recorder: Recorder, around: Path | None) -> Observer:
    return Observer(session.project.workspace, recorder.scratch / "watched", around)


def _is_elsewhere(session: RunSession, recorder: Recorder) -> bool:
    """Return whether other machines run, or may run yet, some of the steps."""
    project = session.project
    return bool(project.pipeline.executors or in_flight(project.layout, recorder.log.run_id))
