"""Which checkpoint of a step counts: the newest one, as long as the step has not succeeded since. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from runnable_ci.runs.files.checkpoint_model import Checkpoint
from runnable_ci.runs.model import SUCCESS, RunLog, StepAttempt, StepLog
from runnable_ci.store.target import Descriptor


class Kept(NamedTuple):
    """A checkpoint, and the attempt that kept it."""

    attempt: StepAttempt
    checkpoint: Checkpoint


def newest_checkpoint(step: StepLog) -> Kept | None:
    """Return the checkpoint from which the next attempt resumes; None where there is none, or the step is done."""
    for attempt in reversed(step.attempts):
        if attempt.status == SUCCESS:
            return None
        if attempt.checkpoint is not None and attempt.checkpoint.files:
            return Kept(attempt, attempt.checkpoint)
        if attempt.checkpoint_dropped:
            return None
    return None


def newest_checkpoints(log: RunLog) -> dict[str, Kept]:
    """Return those of all steps that have one."""
    return {name: found for name, step in log.steps.items() if (found := newest_checkpoint(step))}


def checkpoint_contents(log: RunLog) -> Iterator[tuple[str, Descriptor]]:
    """Yield the title and the content of each file of a checkpoint that counts."""
    for name, found in newest_checkpoints(log).items():
        for path, file in found.checkpoint.files.items():
            if not file.kind:
                title = f"checkpoints/{log.steps[name].internal_name}.{found.attempt.attempt_number}/{path}"
                yield title, Descriptor.of_hash(file.data_hash, file.size)
