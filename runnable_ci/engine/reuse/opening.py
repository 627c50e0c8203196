"""How an invocation begins to look for results of other runs, and whether it does at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.options import ReuseOptions, variable_recorder
from runnable_ci.engine.planner import PlanInputs, Scope
from runnable_ci.engine.planning.plan import Plan, PlanState, plan
from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.engine.provenance.step_variables import VariableRecorder
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.reuse.left_products import left_products
from runnable_ci.engine.reuse.proof import Proof
from runnable_ci.engine.reuse.search import Elsewhere, ResultSource, RunsHere
from runnable_ci.engine.reuse.surroundings import Environments, Surroundings
from runnable_ci.engine.reuse.taken_results import TakenResults
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import resolve_id
from runnable_ci.runs.recorder import Recorder
from runnable_ci.vcs.git_files import repository_root

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


def _silent(_line: str, **_of: str) -> None:
    """Say nothing."""


def open_elsewhere(
    state: PlanState,
    context: ExecutionContext,
    session: RunSession,
    recorder: Recorder,
    options: ReuseOptions,
    environments: Environments,
) -> ExecutionContext:
    """Have the steps of an invocation that would run looked for in other runs; the context that takes what is found."""
    reads = context.reads
    here = (context.catalog, reads.products, context.containers, reads.variables)
    state.inputs = looking_elsewhere(state.inputs, session, *here, options, environments)
    return replace(context, taken=TakenResults(recorder, context.catalog, reads.products, context.printer.say))


def looking_elsewhere(
    inputs: PlanInputs,
    session: RunSession,
    catalog: Catalog,
    products: RunProducts,
    containers: StepContainers | None,
    variables: VariableRecorder,
    options: ReuseOptions,
    environments: Environments,
    *,
    is_plan: bool = False,
) -> PlanInputs:
    """Return inputs by which steps that would run are looked for in other runs.

    Why a step runs though there are results of it is said; of a plan that is shown it is in there.
    """
    say = session.options.printer.say
    if options.why_not and options.said is None:
        say(f"note: nothing of other runs is reused: {options.why_not}; --reuse BRANCH reuses them nevertheless")
        return inputs
    workspace = session.project.workspace
    around = repository_root(workspace, session.options.environ) or workspace
    surroundings = Surroundings(session.options, environments, str(around), variables, containers)
    proof = Proof(session.project.pipeline, catalog, session.code, products, surroundings, inputs.mask)
    sources = sources_of(session, catalog.run_folder.name, options, say)
    search = Elsewhere(proof, sources, is_for_all=options.said is not None, say=_silent if is_plan else say)
    return inputs._replace(elsewhere=search.decide)


def sources_of(session: RunSession, run_id: str, options: ReuseOptions, say: Callable[..., None]) -> list[ResultSource]:
    """Return where results are looked for; `say` says which index cannot be used."""
    said, here = options.said, RunsHere(session, run_id)
    if said is not None and is_run(session, said):
        return [RunsHere(session, run_id, one) for one in (said, *options.also)]
    indexes, accepted = options.places(session.project, said or "")
    if not indexes:
        return [here] if said is None else []
    from runnable_ci.engine.reuse.indexed_results import IndexedResults  # it loads what talks to a registry

    indexed = IndexedResults(session, run_id, indexes, accepted, say, is_asked_for=said is not None)
    return [indexed] if said is not None else [here, indexed]


def require_known(session: RunSession, options: ReuseOptions) -> None:
    """Raise `UsageError` for a word that names no run of the store, while there is no registry with branches."""
    said = options.said or ""
    if not is_run(session, said) and not options.places(session.project, said)[0]:
        raise UsageError(
            f"--reuse {said}: there is no such run here, and no registry is set that has runs of a branch",
            hint=f"`{of_store(session.project.layout, 'runs')}` lists the runs",
        )


def is_run(session: RunSession, said: str) -> bool:
    """Return whether a word names a run of the store."""
    layout = session.project.layout
    try:
        return run_folder(layout, resolve_id(layout, said)).exists()
    except RunnableError:
        return False


def looking_ahead(
    inputs: PlanInputs, session: RunSession, run_id: str, redactor: Redactor, options: ReuseOptions
) -> PlanInputs:
    """Return the same for a plan of a new run of that id, which changes nothing."""
    log = RunLog(run_id=run_id)
    catalog = session.catalog(log)
    products = left_products(session.project.pipeline.steps.values(), catalog)
    return _looking_ahead(inputs, session, catalog, products, session.containers(log), log, redactor, options)


class Planned(Protocol):
    """What an invocation on a log would do."""

    @property
    def plan(self) -> Plan:
        """Without other runs."""

    @property
    def inputs(self) -> PlanInputs:
        """What it was decided by."""

    @property
    def products(self) -> RunProducts:
        """What the steps made."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """As they really are."""

    @property
    def containers(self) -> StepContainers | None:
        """What runs the steps that have one."""


def planned_with_others(
    planned: Planned, session: RunSession, log: RunLog, redactor: Redactor, options: ReuseOptions
) -> Plan:
    """Return the plan of an invocation on a log, which changes nothing, with what it would take of other runs."""
    if not session.project.pipeline.reuses_others(options.said):
        return planned.plan
    here = (session.catalog(log), planned.products, planned.containers, log)
    inputs = _looking_ahead(planned.inputs, session, *here, redactor, options)
    return plan(session.project.pipeline, log, initial=Scope.initial(planned.parameters), inputs=inputs)


def _looking_ahead(
    inputs: PlanInputs,
    session: RunSession,
    catalog: Catalog,
    products: RunProducts,
    containers: StepContainers | None,
    log: RunLog,
    redactor: Redactor,
    options: ReuseOptions,
) -> PlanInputs:
    variables = variable_recorder(session.project, session.options, log, redactor, containers)
    environments = StepEnvironments(session.interpreter, session.project.workspace, session.options.environ)
    here = (catalog, products, containers, variables)
    return looking_elsewhere(inputs, session, *here, options, environments, is_plan=True)
