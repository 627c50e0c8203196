"""From which checkpoint an attempt resumes, and whether the same code and values had made it."""

from __future__ import annotations

from collections.abc import Iterator

from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.engine.provenance.changes import changed_definition, changed_parameters
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.checkpoints.newest import newest_checkpoint
from runnable_ci.runs.files.checkpoint_model import CheckpointUse
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog


def resume_from_checkpoint(begun: StepAttempt, step: Step, past: StepLog, state: PlanState, log: RunLog) -> None:
    """Note in an attempt that begins from which checkpoint it resumes, if there is one and it was not dropped."""
    is_first = all(attempt.invocation != begun.invocation for attempt in past.attempts)
    begun.checkpoint_dropped = state.inputs.drops_checkpoints and is_first and newest_checkpoint(past) is not None
    kept = None if begun.checkpoint_dropped else newest_checkpoint(past)
    if kept is None:
        return
    then, earlier = kept.attempt, kept.attempt.checkpoint_used
    differs = list(_differs(begun, step, then, past, state, log))
    begun.checkpoint_used = CheckpointUse(
        attempt=then.attempt_number,
        generation=kept.checkpoint.generation,
        is_foreign=bool(differs or (earlier and earlier.is_foreign)),
        differs=differs,
        not_seen=bool(not then.reads or then.not_seen or (earlier and earlier.not_seen)),
    )


def _differs(
    begun: StepAttempt, step: Step, then: StepAttempt, past: StepLog, state: PlanState, log: RunLog
) -> Iterator[str]:
    if changed_definition(then.definition, step.definition()):
        yield "definition"
    scope, inputs = state.prepared[step.name].scope, state.inputs
    initial = state.initial.values()
    if any(changed_parameters(step, then, scope.values(), initial, log, inputs.mask)):
        yield "values"
    if then.invocation == begun.invocation or not then.reads:  # what it read is known by what git knows, if at all
        if then.code_state != begun.code_state:
            yield "code"
        return
    place = next(i for i, attempt in enumerate(past.attempts) if attempt is then)
    files = past.data_catalog if place == len(past.attempts) - 1 else then.data_catalog
    as_it_was = past.model_copy(update={"attempts": past.attempts[: place + 1], "data_catalog": files})
    yield from sorted({change.kind for change in inputs.compare(step, as_it_was, scope).changes})
