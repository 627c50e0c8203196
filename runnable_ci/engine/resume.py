"""What a retry is: the same loop on a log that has attempts already, planned before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from runnable_ci.engine.log_grants import others_results, require_declared_results, require_kept, require_result_names
from runnable_ci.engine.options import RetryOptions, options_of_next_retry
from runnable_ci.engine.planner import PlanInputs, Scope
from runnable_ci.engine.planning.consent import RepeatedWork, acceptances, repeated_work, without_effect
from runnable_ci.engine.planning.environment_here import environment_here
from runnable_ci.engine.planning.plan import Plan, plan
from runnable_ci.engine.preflight import require, require_inputs, required_by
from runnable_ci.engine.provenance.environment_changes import EnvironmentChanges
from runnable_ci.engine.provenance.staleness import Comparison
from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.restore import find_lost, lost_here, restore, store_again
from runnable_ci.engine.resumed_parameters import ResumedParameters, resume_parameters
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.command_line import with_options
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.parameters import typed_names
from runnable_ci.pipeline.pipeline_identity import SELECTED_STEPS, UNTIL_STEPS, PipelineIdentity
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.runs.paths import is_foreign
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.recorder import reopen
from runnable_ci.util.text import listed, pluralize
from runnable_ci.vcs.actor import find_actor

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from runnable_ci.engine.parts.mocks import MockedResult
    from runnable_ci.runs.recorder import Recorder
    from runnable_ci.steps.containers.step_containers import StepContainers


_REASONS_MAX = 3


class RetryPlan(NamedTuple):
    """What a retry would do."""

    plan: Plan
    inputs: PlanInputs
    repeated: RepeatedWork
    environment: EnvironmentChanges
    """In what it differs for the steps that are reused."""
    products: RunProducts
    """What the steps made: it grows while the plan is carried out."""
    parameters: Mapping[str, Any]
    """As they really are."""
    containers: StepContainers | None = None

    def environment_note(self) -> str:
        """Return in what the environment differs from that of the reused steps, in one line; empty if in nothing."""
        differs = str(self.environment)
        return f"note: other than for reused steps: {differs}; --rerun packages re-runs them" if differs else ""


def look_ahead(session: RunSession, run_id: str, retry: RetryOptions) -> RetryPlan:
    """Return what a retry would do, which changes nothing; notes on it are said. Raises as `resume` does."""
    log = load_log(session.project.layout, run_id)
    parameters = _parameters(session, log, retry)
    session = _of_its_steps(session, log, retry)
    catalog = session.catalog(log)
    find = partial(lost_here, session, log=log, catalog=catalog, everything=retry.restore_all)
    planned = plan_on(session, log, catalog, parameters, retry, find)
    _mocked(session, retry, is_dry=True)
    _require_selected(session, log, planned, retry)
    _say_notes(session, log, parameters, planned, retry)
    _require_inputs(session, planned.plan)
    from runnable_ci.engine.reuse.opening import planned_with_others  # most runs look at no other

    return planned._replace(plan=planned_with_others(planned, session, log, parameters.redactor, retry.reuse))


def resume(session: RunSession, run_id: str, retry: RetryOptions) -> int:
    """Run what is left of a run, or what is to run again; the exit code.

    Raises `UsageError`, `RunLogError` and `RunInUseError`, before any step runs.
    """
    with session.in_workspace(run_id, "retry") as holding:
        return resume_here(holding, run_id, retry)


def resume_here(session: RunSession, run_id: str, retry: RetryOptions) -> int:
    """Do the same in a session that keeps others out of the workspace."""
    session.recover()
    log = load_log(session.project.layout, run_id)
    parameters = _parameters(session, log, retry)
    return carry_on(session, log, parameters, retry, reopen(session.project.layout, log, parameters.redactor))


def carry_on(
    session: RunSession,
    log: RunLog,
    parameters: ResumedParameters,
    retry: RetryOptions,
    opening: AbstractContextManager[Recorder],
) -> int:
    """Plan on a run's log, which `opening` opens for writing, and do what is left; the exit code.

    A run that has only just begun has the beginning of its invocation already.
    """
    before, run_id, printer, whole = len(log.invocations), log.run_id, session.options.printer, session.project.pipeline
    session = _of_its_steps(session, log, retry)
    project = session.project
    with opening as recorder:
        log = recorder.log
        catalog = session.catalog(log)
        find = partial(find_lost, session, log=log, catalog=catalog, everything=retry.restore_all)
        find, check = partial(find, registry=retry.registry), partial(require_consent, session, retry=retry)
        planned = plan_on(session, log, catalog, parameters, retry, find, check=check)
        _require_selected(session, log, planned, retry)
        _say_notes(session, log, parameters, planned, retry)
        _require_inputs(session, planned.plan)
        if note := planned.environment_note():
            printer.say(note)
        restore(session, planned.plan, catalog, everything=retry.restore_all)
        if retry.job is None and _is_done(planned.plan, log, retry):
            _say_nothing_to_do(session, planned.plan, log, catalog)
            return 0
        running = planned.plan.running
        if planned.containers:
            from runnable_ci.engine.code.container_images import require_images  # few pipelines need it

            require_images(planned.containers, project, running)
        if any(executor.project for executor in project.pipeline.executors.values()):
            from runnable_ci.engine.elsewhere.apart.requirements import require_apart  # few have such machines

            require_apart(session, running)
        mocked = _mocked(session, retry)
        if len(log.invocations) == before:
            identity = _pipeline_identity(project, log, retry)
            started = session.started(log, "retry", planned.parameters, pipeline_identity=identity)
            recorder.record(retry.job.begun(started, whole.dag_hash()) if retry.job else started)
        printer.begin(list(project.pipeline.steps), len(running))
        printer.say(f"run {run_id}: {pluralize(len(running), 'step')} to run, {len(planned.plan.reused)} reused")
        from runnable_ci.engine.execution import execute  # most retries with nothing to do end above

        return execute(
            session,
            recorder,
            catalog,
            parameters=planned.parameters,
            inputs=planned.inputs,
            products=planned.products,
            retry_options=options_of_next_retry(project, session.options.settings, run_id, retry),
            containers=planned.containers,
            mocked=mocked,
            reuse=retry.reuse,
        )


def _is_done(planned: Plan, log: RunLog, retry: RetryOptions) -> bool:
    is_accepting = bool(retry.accept) and any(decision.acceptance for decision in planned.decisions.values())
    return not planned.running and log.status == SUCCESS and not is_accepting and not planned.differs


def _say_nothing_to_do(session: RunSession, planned: Plan, log: RunLog, catalog: Catalog) -> None:
    printer, decisions = session.options.printer, planned.decisions
    if again := store_again(planned, log, catalog):
        printer.say(f"stored {listed(again)} again, which the store had lost")
    printer.say(f"run {log.run_id}: nothing to do, {pluralize(len(decisions), 'step')} done")
    printer.begin(list(decisions), 0)
    for name, decision in decisions.items():
        printer.say(f"{decision.action}: {decision.reason}", step=planned.pipeline.steps[name].shown)
    catalog.remember_hashes()


def plan_on(
    session: RunSession,
    log: RunLog,
    catalog: Catalog,
    parameters: ResumedParameters,
    retry: RetryOptions,
    find: Callable[[Plan], Mapping[str, str]],
    *,
    check: Callable[[RetryPlan], None] = lambda _plan: None,
) -> RetryPlan:
    """Return the plan of an invocation on a log by which no step takes what is lost.

    Those that gave it run again, and may take more: `find` returns which of a plan these are. `check` sees each plan
    before what it takes is looked for.
    """
    containers = session.containers(log, look_again="packages" in retry.rerun)
    environment = environment_here(session, log, catalog, containers)
    lost: dict[str, str] = {}
    while True:
        planned = _plan_retry(session, log, catalog, parameters, retry, environment, lost)
        check(planned)
        more = {step: reason for step, reason in find(planned.plan).items() if step not in lost}
        if not more:
            return planned._replace(containers=containers)
        lost |= more


def _is_partial(log: RunLog) -> bool:
    return SELECTED_STEPS in log.run_config or UNTIL_STEPS in log.run_config


def _of_its_steps(session: RunSession, log: RunLog, retry: RetryOptions) -> RunSession:
    """Return the session with the part of the pipeline that the run is of, and steps mocked as requested."""
    if _is_partial(log):
        from runnable_ci.engine.parts.resumed_part import with_its_steps  # most runs have all steps

        session = with_its_steps(session, log)
    if retry.job is not None:
        session = session.with_pipeline(retry.job.part_of(session.project.pipeline))
    if retry.mocks is None:
        return session
    return session.with_pipeline(retry.mocks.applied(session.project.pipeline, session.project.workspace))


def _mocked(session: RunSession, retry: RetryOptions, *, is_dry: bool = False) -> Mapping[str, MockedResult]:
    if retry.mocks is None:
        return {}
    from runnable_ci.engine.parts.mocks import results_of_mocks  # most retries mock nothing

    return results_of_mocks(session, retry.mocks, is_dry=is_dry)


def _require_selected(session: RunSession, log: RunLog, planned: RetryPlan, retry: RetryOptions) -> None:
    if _is_partial(log):
        from runnable_ci.engine.parts.resumed_part import require_its_steps

        require_its_steps(session, log, planned.plan, planned.inputs.forced, retry.typed)


def _is_foreign(session: RunSession, log: RunLog) -> bool:
    """Return whether something of the run came from a registry."""
    taken = {step.attempts[-1].taken_from.partition("/")[0] for step in log.steps.values() if step.attempts}
    return any(is_foreign(session.project.layout, run_id) for run_id in {log.run_id, *filter(None, taken)})


def _parameters(session: RunSession, log: RunLog, retry: RetryOptions) -> ResumedParameters:
    typed = [] if retry.allow_unused else typed_names(retry.params)
    return resume_parameters(session, log, retry.params, files=retry.params_files, typed=typed)


def _require_inputs(session: RunSession, planned: Plan) -> None:
    require_inputs(session.project, planned.running, session.options.printer.say)


def _say_notes(
    session: RunSession, log: RunLog, parameters: ResumedParameters, planned: RetryPlan, retry: RetryOptions
) -> None:
    others = others_results(session.project.layout, log, planned.plan, retry.accepted)
    # The jobs of a run are of those who named it: only whether all of these are accepted is looked at.
    notes = [*parameters.notes, *([] if retry.job else others)]
    of_accepted = without_effect(retry.accept, planned.plan, session.project.pipeline, log)
    for line in (*(f"note: {note}" for note in notes), *of_accepted):
        session.options.printer.say(line)


def _products(pipeline: Pipeline, log: RunLog, catalog: Catalog) -> RunProducts:
    """Return what the steps of a run made, and what others of its steps left in earlier runs: it is set aside first."""
    found = RunProducts.of(log, catalog.is_tracked)
    others = [step for name, step in pipeline.steps.items() if step.put and name not in found.by_step]
    if others:
        from runnable_ci.engine.reuse.left_products import left_products  # where all has run, it is not needed

        left = left_products(others, catalog, found.by_step)
        found.by_step, found.before = left.by_step | found.by_step, left.before | found.before
    return found


def _plan_retry(
    session: RunSession,
    log: RunLog,
    catalog: Catalog,
    parameters: ResumedParameters,
    retry: RetryOptions,
    environment: EnvironmentChanges,
    lost: Mapping[str, str],
) -> RetryPlan:
    pipeline, workspace = session.project.pipeline, session.project.workspace
    require_result_names(log)
    products = _products(pipeline, log, catalog)
    comparison = Comparison(
        pipeline,
        log,
        catalog,
        session.code,
        products,
        partial(reads_of, catalog),
        is_elsewhere=session.is_elsewhere or _is_foreign(session, log),
    )
    differing = environment.reasons() if "packages" in retry.rerun else {}
    forced = {name: f"--rerun packages: {reason}" for name, reason in differing.items()}
    forced |= {name: '`reuse` is "never"' for name, step in pipeline.steps.items() if step.reuse == "never"}
    if retry.from_steps:
        from runnable_ci.engine.planning.named_steps import from_steps  # most retries run what failed

        where = "this run" if _is_partial(log) else pipeline.file
        forced |= from_steps(retry.from_steps, pipeline, log, where)
    accepted = acceptances(
        retry.accept,
        retry.reason,
        by=find_actor(session.options.environ, session.code.user_name) if retry.accept else "",
        pipeline=pipeline,
        log=log,
        forced=forced,
    )
    inputs = PlanInputs(
        forced=forced,
        lost=lost,
        accept=accepted.find,
        compare=comparison.evidence,
        files=comparison.files,
        required=required_by(workspace),
        mask=parameters.redactor.value,
        drops_checkpoints=retry.drops_checkpoints,
        job=retry.job,
    )
    planned = plan(pipeline, log, initial=Scope.initial(parameters.values), inputs=inputs)
    require_declared_results(planned.pipeline, log, planned.reused, retry.again)
    require_kept(session.project, planned, retry.again)
    require(pipeline, workspace, parameters.values, planned.running)
    repeated = repeated_work(planned, log, agreed=retry.rerun)
    reused = [
        name for name, decision in planned.decisions.items() if decision.action == "reuse" or decision.is_tentative
    ]
    return RetryPlan(planned, inputs, repeated, environment.of(reused), products, parameters.values)


def require_consent(session: RunSession, planned: RetryPlan, retry: RetryOptions) -> None:
    """Ask a person before hours of finished work are repeated; raise `UsageError` where nobody agrees."""
    repeated, options = planned.repeated, session.options
    if retry.job is not None and repeated.seconds:
        decided = ((planned.plan.pipeline.steps[name].shown, it.reason) for name, it in planned.plan.decisions.items())
        reasons = dict.fromkeys(reason for shown, reason in decided if shown in repeated.seconds)
        options.printer.say(f"note: this repeats {repeated}; {listed(list(reasons), at_most=_REASONS_MAX)}")
    if retry.rerun_changed or repeated.total_s <= options.settings.ask_minutes * 60:
        return
    if options.confirm is not None:
        options.printer.say(*planned.plan.lines())
        if options.confirm(f"Repeat {repeated}? [y/N] "):
            return
    accept = [word for step in repeated.to_accept for word in ("--accept", step)]
    hint = f"to repeat it: {with_options(retry.typed, '--rerun-changed')}"
    if accept:
        hint += f"\nto reuse it: {with_options(retry.typed, *accept, '--reason', '…')}"
    raise UsageError(f"this would repeat {repeated}, which was not asked for", hint=hint)


def _pipeline_identity(project: Project, log: RunLog, retry: RetryOptions) -> PipelineIdentity:
    identity = project.identity()
    return identity if retry.other_pipeline else identity.resuming(PipelineIdentity.recorded(log.name, log.run_config))
