"""`runnable-ci prune`: remove old runs from a registry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from runnable_ci.config import Settings
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.project import registry_of
from runnable_ci.runs.registry_config import Registries
from runnable_ci.runs.remote_index import PublishedRun, list_published, remove
from runnable_ci.runs.retention import outdated
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console
from runnable_ci.util.text import amount


def prune(
    workspace: Path,
    *,
    source: str | None,
    keep: int | None,
    older_than: str | None,
    dry_run: bool,
    settings: Settings,
    environ: Mapping[str, str],
) -> None:
    """Remove runs that are neither among the `keep` newest nor younger than `older_than`; their ids are printed.

    A run that another tag stands for stays. Content that the runs that stay hold too is the registry's to keep: it
    frees what no manifest names. Raises `StoreError`, with what was removed until then printed.
    """
    if keep is None and older_than is None:
        raise UsageError("prune removes nothing unless told what", hint="--keep N, --older-than AGE, or both")
    registry = Registries(settings, environ).named(source, in_pipeline=lambda: registry_of(workspace))
    console.err(f"registry: {registry.label}")
    found = list_published(registry)
    # Not by their ids: two runs may have one.
    ended = [(str(place), run.summary.end_time or run.summary.start_time) for place, run in enumerate(found)]
    going = set(outdated(ended, keep=keep, older_than=older_than, moment=datetime.now(UTC)))
    removed = 0
    for place, holding in enumerate(found):
        if str(place) in going and _may_go(holding) and (dry_run or _removed(registry, holding)):
            removed += 1
            console.out(holding.summary.run_id)
    verb = "would remove" if dry_run else "removed"
    console.err(f"{verb} {amount(removed, 'run')} from {registry.label}; {len(found) - removed} left")


def _may_go(holding: PublishedRun) -> bool:
    if holding.pinned_by:
        _stays(holding, f"the tag {holding.pinned_by[0]} stands for it")
    return not holding.pinned_by


def _removed(registry: Registry, holding: PublishedRun) -> bool:
    gone = remove(registry, holding)
    if not gone:
        _stays(holding, "it was written just now")
    return gone


def _stays(holding: PublishedRun, reason: str) -> None:
    console.err(f"{holding.summary.run_id} stays: {reason}")
