"""Which attempts of a run's steps are printed, and what is said of output that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runnable_ci.errors import BlobMissingError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.paths import is_pulled
from runnable_ci.store.local import Layout
from runnable_ci.util.text import pluralize


def nothing_written(log: RunLog, step: str | None, attempt: int | None) -> UsageError:
    """Return the error that there is no such attempt, which says how many there are."""
    of = f"of {step or 'any step'} in run {log.run_id}"
    made = max((len(one.attempts) for name, one in log.steps.items() if step in (None, name)), default=0)
    hint = f"there {'is' if made == 1 else 'are'} {pluralize(made, 'attempt')}" if made else "it has not run yet"
    return UsageError(f"there is no attempt {attempt or 'yet'} {of}", hint=hint)


@contextmanager
def naming_lost(layout: Layout, log: RunLog, step: str, attempt: StepAttempt) -> Iterator[None]:
    """Name in an error what is lost, and say how to have it again."""
    try:
        yield
    except BlobMissingError as e:
        again = f"`{of_store(layout, 'retry', log.run_id, '--from', step)}` runs the step again"
        hint = e.hint if is_pulled(layout, log.run_id) else f"{e.hint}; {again}"
        output = f"the output of `{step}`, attempt {attempt.attempt_number}, is lost"
        raise BlobMissingError(f"{output}: {e.message}", hint=hint) from e


def chosen_attempts(
    log: RunLog, step: str | None, attempt: int | None, *, every: bool = False
) -> list[tuple[str, StepAttempt]]:
    """Return the selected attempts, in the order in which they began: by default the last of each step, or `every`."""
    chosen = [step, *(name for name in log.steps if name.startswith(f"{step}."))] if step else [*log.steps]
    found = [
        (name, one)
        for name in chosen
        for one in log.steps[name].attempts
        if one.attempt_number == (attempt or log.steps[name].attempts[-1].attempt_number) or (every and not attempt)
    ]
    return sorted(found, key=lambda item: item[1].start_time)
