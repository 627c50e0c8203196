"""What the log of a run says that the attempts at a step made, and what they changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runnable_ci.runs.model import SUCCESS, CatalogEntry, StepLog


def products_of(step: StepLog) -> list[CatalogEntry]:
    """Return what the last attempt put, as the steps after it get it."""
    return [entry.model_copy(update={"source": step.name}) for entry in step.put_entries()]


def last_products(step: StepLog, run_id: str = "") -> list[CatalogEntry]:
    """Return what the last attempt put that succeeded, each with who made it, `RUN_ID/STEP.ATTEMPT`."""
    for attempt in reversed(step.attempts):
        if attempt.status == SUCCESS:
            files = step.data_catalog if attempt is step.attempts[-1] else attempt.data_catalog
            title = f"{run_id}/{step.name}.{attempt.attempt_number}"
            made = [entry for entry in files if entry.stage == "put"]
            return [entry.model_copy(update={"made_by": entry.made_by or title}) for entry in made]
    return []


def kept_inputs(step: StepLog) -> list[CatalogEntry]:
    """Return the inputs that attempts changed, as they were before the newest of these."""
    found: dict[str, CatalogEntry] = {}
    for entry in _entries(step):
        if entry.kept:
            found[entry.name] = entry
    return list(found.values())


def files_found_again(step: StepLog, *, persist: bool) -> list[CatalogEntry]:
    """Return which files of its earlier attempts a step finds: what it made if that persists, else kept inputs."""
    return last_products(step) if persist else kept_inputs(step)


def own_contents(step: StepLog) -> Mapping[str, set[str]]:
    """Return for each name the sha256 of all that attempts at a step made of it, and of what they kept of it.

    None of these is a change of the step's input.
    """
    found: dict[str, set[str]] = {}
    for entry in _entries(step):
        if entry.stage != "get" or entry.kept:
            found.setdefault(entry.name, set()).update(filter(None, (entry.data_hash, entry.left)))
    return found


def _entries(step: StepLog) -> Iterable[CatalogEntry]:
    """Yield the files of all attempts, the newest last."""
    for attempt in step.attempts[:-1]:
        yield from attempt.data_catalog
    yield from step.data_catalog
