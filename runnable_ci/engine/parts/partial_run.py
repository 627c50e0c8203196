"""A run of some steps of a pipeline: what it takes from an earlier run, planned as a retry of that one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from runnable_ci.engine.log_grants import others_results
from runnable_ci.engine.options import RetryOptions, ReuseOptions
from runnable_ci.engine.parts.source import find_source_run, require_content
from runnable_ci.engine.parts.step_selection import PartialOptions, require_taken
from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.restore import find_lost, lost_here, restore
from runnable_ci.engine.resume import RetryPlan, plan_on
from runnable_ci.engine.resumed_parameters import ResumedParameters
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.command_line import file_option, with_options
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import Event
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import load
from runnable_ci.runs.recorder import ensure_sealed
from runnable_ci.runs.reuse.results import of_steps, results_of, taking
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import listed


class PartialRun(NamedTuple):
    """What a run of some steps takes, and what it would do."""

    results: RunLog
    """The earlier run, as far as it is taken."""
    planned: RetryPlan

    def events(self, run_id: str) -> Iterator[Event]:
        """Return the events by which the new run has the results."""
        return taking(self.results, run_id)

    def restore(self, session: RunSession, catalog: Catalog) -> None:
        """Lay the files that the steps to run may read into the workspace; the catalog is the new run's."""
        restore(session, self.planned.plan, catalog, everything=False)

    def plan_with_others(self, session: RunSession, redactor: Redactor, options: ReuseOptions, run_id: str) -> Plan:
        """Return the plan, which changes nothing, with what the new run would take of still others."""
        from runnable_ci.engine.reuse.opening import planned_with_others  # most runs look at no other

        log = self.results.model_copy(update={"run_id": run_id})
        return planned_with_others(self.planned, session, log, redactor, options)

    def __str__(self) -> str:
        names = dict.fromkeys(name.partition(".")[0] for name in self.planned.plan.reused)
        return f"{listed(f'`{name}`' for name in names)} taken from run {self.results.run_id}"


def plan_partial(
    session: RunSession, parameters: Mapping[str, Any], redactor: Redactor, options: PartialOptions, *, is_dry: bool
) -> PartialRun:
    """Return what a run of some steps would do; the session has their part of the pipeline.

    Unless it `is_dry`, all that is taken is in the store then. Raises `UsageError` where a step that was not selected
    has no result, or none that is as it would be made now.
    """
    project, layout = session.project, session.project.layout
    running = options.selection.running(project.pipeline)
    names = [name for name in project.pipeline.steps if name not in running]
    environ = session.options.environ
    typed = options.typed or ["run", *file_option(project.file), *options.selection.steps]
    until = [word for step in options.selection.steps for word in ("--until", step)]
    whole = f"to run what they need too: {with_options(typed, *until)}"
    source = find_source_run(project, names, environ=environ, from_run=options.from_run, otherwise=whole)
    if not is_dry:
        ensure_sealed(layout, source.run_id)
        source = load(layout, source.run_id)
    results = results_of(source, of_steps(source, names))
    if not is_dry:
        require_content(session, results)
    catalog = session.catalog(results)
    find = partial(lost_here if is_dry else partial(find_lost, registry=None), session)

    def also(step: str) -> str:
        return f"to run it too: {command(*typed, step)}"

    planned = plan_on(
        session,
        results,
        catalog,
        ResumedParameters(parameters, redactor, ()),
        RetryOptions(accept=options.accept, reason=options.reason, accepted=options.accepted, again=also),
        partial(find, log=results, catalog=catalog, everything=False),
    )
    for line in others_results(layout, results, planned.plan, options.accepted):
        session.options.printer.say(f"note: {line}")
    if differs := str(planned.environment):
        session.options.printer.say(f"note: other than for the steps that are taken: {differs}")
    require_taken(planned.plan, results, running, {}, also)
    return PartialRun(results, planned)
