"""The part of a pipeline that a run is of, when it is resumed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runnable_ci.engine.parts.step_selection import StepSelection, require_taken
from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.command_line import with_options
from runnable_ci.runs.model import RunLog


def with_its_steps(session: RunSession, log: RunLog) -> RunSession:
    """Return the session with the part of the pipeline that the run is of."""
    pipeline = session.project.pipeline
    return session.with_pipeline(StepSelection.recorded(log.run_config, pipeline).part_of(pipeline))


def require_its_steps(
    session: RunSession, log: RunLog, plan: Plan, forced: Collection[str], typed: Sequence[str]
) -> None:
    """Raise `UsageError` where a step would run that a run of other steps took from an earlier one, as it was."""
    pipeline = session.project.pipeline
    require_taken(
        plan,
        log,
        StepSelection.recorded(log.run_config, pipeline).running(pipeline),
        forced,
        lambda step: f"to run it too: {with_options(typed or ['retry', log.run_id], '--from', step)}",
    )
