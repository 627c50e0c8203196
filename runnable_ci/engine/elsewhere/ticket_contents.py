"""What goes into the ticket of an attempt: what its step sees, and what else may run at the same time."""

from __future__ import annotations

from collections.abc import Iterable

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.elsewhere.tickets import Ticket
from runnable_ci.engine.planner import Scope
from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import StepAttempt
from runnable_ci.runs.products.step_products import StepProducts


def ticket_of(
    step: Step,
    attempt: StepAttempt,
    scope: Scope,
    products: StepProducts,
    state: PlanState,
    context: ExecutionContext,
    *,
    known: frozenset[str],
) -> Ticket:
    """Return the ticket of an attempt; `known` are the secrets that its worker knows already."""
    return Ticket(
        step=step,
        attempt=attempt,
        scope=scope,
        past=products.past,
        packs=context.catalog.packs_with(_contents(scope, products)),
        secrets=context.redactor.known - known,
        beside=makers_beside(step, state),
        hidden=frozenset(context.reads.products.hidden_from(scope.files)),
        images=context.containers.images if context.containers and step.container else {},
        edited=frozenset(products.of.edited),
    )


def makers_beside(step: Step, state: PlanState) -> tuple[str, ...] | None:
    """Return the globs of what steps make that may run at the same time as this one; None where none can."""
    below = state.pipeline._replace(steps=state.steps).below(step.name)
    others = [it for name, it in state.steps.items() if name not in below and name not in state.settled]
    if not others:
        return None
    return tuple(dict.fromkeys(glob for it in others for glob in (*it.put, *it.checkpoint)))


def _contents(scope: Scope, products: StepProducts) -> Iterable[str]:
    """Yield the contents that an attempt may read from the store."""
    for entry in scope.entries().values():
        yield entry.data_hash
    past = products.past
    if past is not None:
        for entry in past.data_catalog:
            yield entry.data_hash
        for attempt in past.attempts:
            for entry in attempt.data_catalog:
                yield entry.data_hash
            for file in attempt.checkpoint.files.values() if attempt.checkpoint else ():
                yield file.data_hash
