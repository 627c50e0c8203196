"""What of a run is lost where its store was removed while it ran."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runnable_ci.errors import StepError
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import AttemptSaved
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import PROCESSING, RunLog
from runnable_ci.store.local import Layout
from runnable_ci.util.text import listed


def restored_note(layout: Layout) -> str:
    """Return what is said where a store was removed and made again."""
    return (
        f"note: {layout.folder} was removed while a step ran, and is made again: earlier runs and output in it are lost"
    )


def require_no_loss(lost: Sequence[str], layout: Layout) -> None:
    """Raise `StepError` where what steps of a run made is lost with its store."""
    if lost:
        raise StepError(
            f"the store {layout.folder} was removed while it ran, and with it what steps made: {listed(lost)}",
            hint="`git clean -dx` leaves it with `-e .runnable`",
        )


def lost_content(catalog: Catalog, log: RunLog) -> list[str]:
    """Return the names of the files and objects that steps of a run made and that the store does not have."""
    index = PackIndex(log.packs)
    lost = []
    for step in log.steps.values():
        made = [(entry.name, entry.data_hash, entry.size) for entry in step.put_entries()]
        returned = step.attempts[-1].output_parameters if step.attempts else {}
        objects = [(name, p.data_hash, p.size or 0) for name, p in returned.items() if p.kind == "object"]
        lost += [name for name, sha256, size in (*made, *objects) if not _exists(catalog, index, sha256, size)]
    return lost


def without_lost_output(catalog: Catalog, log: RunLog, outputs: Path) -> list[AttemptSaved]:
    """Return the last attempts whose output is neither in the store nor in the folder `outputs`, without it."""
    index = PackIndex(log.packs)
    events = []
    for step in log.steps.values():
        last = step.attempts[-1] if step.attempts else None
        if last is None or last.status == PROCESSING or last.log is None:
            continue
        is_here = (outputs / f"{step.name}.{last.attempt_number}.log").exists()
        if not is_here and not _exists(catalog, index, last.log.data_hash, last.log.size):
            without = last.model_copy(update={"log": None})
            events.append(AttemptSaved(step=step.name, attempt=without, data_catalog=step.data_catalog))
    return events


def _exists(catalog: Catalog, index: PackIndex, sha256: str, size: int) -> bool:
    return catalog.layout.exists(index.blob_of(sha256, size))
