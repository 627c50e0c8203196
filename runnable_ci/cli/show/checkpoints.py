"""The block of `show` with checkpoints: from which one steps resumed, and which one the next attempt resumes from."""

from __future__ import annotations

from collections.abc import Iterator

from runnable_ci.runs.branches.labels import label_of
from runnable_ci.runs.checkpoints.newest import newest_checkpoints
from runnable_ci.runs.files.checkpoint_model import CheckpointUse
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import format_size, format_time, pluralize, table


def checkpoints(log: RunLog) -> list[str]:
    """Return the block; empty where no step keeps any."""
    rows = [*_used(log), *_waiting(log)]
    return table(("CHECKPOINT OF", "ATTEMPT", "GENERATION", "STATE"), rows) if rows else []


def _used(log: RunLog) -> Iterator[tuple[str, ...]]:
    for name, step in log.steps.items():
        for attempt in step.attempts:
            if used := attempt.checkpoint_used:
                state = f"attempt {attempt.attempt_number} resumed from it{_foreign(used)}"
                yield label_of(log.steps, name), str(used.attempt), str(used.generation), state
            elif attempt.checkpoint_dropped:
                yield label_of(log.steps, name), "", "", f"attempt {attempt.attempt_number} started over"


def _waiting(log: RunLog) -> Iterator[tuple[str, ...]]:
    for name, (attempt, kept) in newest_checkpoints(log).items():
        size = format_size(sum(file.size for file in kept.files.values()))
        state = f"kept {format_time(kept.time)} UTC: {pluralize(len(kept.files), 'file')}, {size}"
        yield label_of(log.steps, name), str(attempt.attempt_number), str(kept.generation), state


def _foreign(used: CheckpointUse) -> str:
    if not used.is_foreign:
        return ""
    return f"; its {' and '.join(used.differs) or 'code or values'} differed"
