"""Remove old runs: `runnable-ci gc` from the local store, with content that no run holds; `prune` from a registry."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.analysis.scratch import sweep_scratch
from runnable_ci.config import Settings
from runnable_ci.errors import RunInUseError, StoreError, UsageError
from runnable_ci.pipeline.project import registry_of, store_folder
from runnable_ci.runs.artifact import made_contents, referenced_digests
from runnable_ci.runs.elsewhere.left_there import LeftOfRuns
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import STORE_LOCK, run_folder, run_folders
from runnable_ci.runs.products.thinning import removable
from runnable_ci.runs.products.thinning import remove as remove_files
from runnable_ci.runs.reader import load, products_of, run_ids, summaries
from runnable_ci.runs.retention import GcPlan, KeepRule, Retention, plan_gc
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.console import console
from runnable_ci.util.files import locked_alone, remove_folder
from runnable_ci.util.text import format_size, pluralize

if TYPE_CHECKING:
    from runnable_ci.runs.listing.summary import Summary
    from runnable_ci.runs.remote.evict import Evictable
    from runnable_ci.runs.remote.listing import PublishedRun
    from runnable_ci.store.registry import Registry

_PARCEL_AGE: Final = timedelta(days=30)
"""As long a machine may have an attempt that came by a registry, and its run may take the answer."""


def gc(
    layout: Layout,
    *,
    keep: int | None,
    older_than: str | None,
    dry_run: bool,
    evict_by: tuple[Settings, Mapping[str, str]] | None = None,
    unwanted: Collection[str] = (),
) -> None:
    """Remove runs that are neither among the `keep` newest nor younger than `older_than` (`30m`, `12h`, `8w`).

    Without either no run is removed but those that are `unwanted`; pinned ones stay. Content is removed once no run
    that stays holds it, and what was moved out of the workspace once it is not the only copy. With `evict_by`, settings
    and environment, content of runs that stay is removed too that a registry holds. The store is named first.

    Raises `RunInUseError` while a run is being written. One of which something is elsewhere, though its own process is
    gone, stays.
    """
    if not (layout.folder / "index.json").exists():
        raise UsageError(f"there is no store in {layout.folder}")
    console.err(f"store: {layout.folder}")
    if not dry_run:
        sweep_scratch()
    evictable = _evictable(layout, *evict_by) if evict_by else {}
    with _alone(layout) as elsewhere:
        elsewhere.require_over(unwanted)
        sealed = layout.manifests()
        contents: defaultdict[int, set[str]] = defaultdict(set)
        for made in products_of(layout).contents():
            contents[made.size].add(made.sha256)

        def referenced_by(run_id: str) -> set[str]:
            log = load(layout, run_id, sealed)
            for digest, size in made_contents(log):
                contents[size].add(digest)
            published = evictable.get((run_id, sealed[run_id].digest)) if run_id in sealed else None
            own = _referenced(layout, log, sealed) - (published.digests if published else frozenset())
            return own | {f"sha256:{digest}" for digest in elsewhere.needed(run_id)}

        found = list(summaries(layout))
        rule = _rule(Retention(keep, older_than), found, unwanted, elsewhere)
        ended = [(run.run_id, run.end_time or run.start_time) for run in found]
        now = datetime.now(UTC)
        plan = plan_gc(ended, layout.blobs(), referenced_by=referenced_by, rule=rule, moment=now)
        aside = removable(layout, plan.removed, plan.kept, known=contents)
        leaving = {digest for digest, _ in plan.blobs}
        evicted = {run_id: it for (run_id, _), it in evictable.items() if run_id in plan.kept and it.digests & leaving}
        if not dry_run:
            _note_evicted(layout, evicted)
            layout.untag(set(plan.removed))
            of_runs = (run_folder(layout, run_id) for run_id in plan.removed)
            for folder in (*of_runs, *_never_begun(layout), *elsewhere.needless(plan.removed)):
                remove_folder(folder, through=layout.temporaries)
            for digest, _ in plan.blobs:
                layout.remove(digest)
            remove_files(aside)
        console.out(*plan.removed)
        for run_id, it in evicted.items():
            console.err(f"{'would evict' if dry_run else 'evicted'} {run_id}: its files are in {it.origin.registry}")
        _print_freed(plan, aside, dry_run=dry_run)


@contextmanager
def _alone(layout: Layout) -> Iterator[LeftOfRuns]:
    """Have the store for oneself in the block; yield what of its runs is elsewhere.

    Raises `RunInUseError` while a run is being written, by its own process or by a worker of it.
    """
    with locked_alone(layout.folder / STORE_LOCK) as alone:
        elsewhere = LeftOfRuns(layout)
        if not alone:
            hint = "wait until it has finished, then try again"
            raise elsewhere.at_work() or RunInUseError(f"a run is in progress in {layout.label}", hint=hint)
        # The lock of one on another machine need not be seen here; of this one there is none.
        if error := elsewhere.at_work(beside=socket.gethostname()):
            raise error
        yield elsewhere


def _rule(
    retention: Retention, found: Collection[Summary], unwanted: Collection[str], elsewhere: LeftOfRuns
) -> KeepRule:
    for run_id in elsewhere.of.keys() - set(unwanted):
        console.err(elsewhere.kept(run_id))
    pinned = {run.run_id for run in found if run.pinned} | elsewhere.of.keys()
    return KeepRule(retention, pinned, unwanted, {run.run_id for run in found if run.made_for})


def _print_freed(plan: GcPlan, aside: Collection[tuple[Path, int]], *, dry_run: bool) -> None:
    verb = "would free" if dry_run else "freed"
    what = f"{pluralize(len(plan.removed), 'run')}, {pluralize(len(plan.blobs), 'blob')}"
    what += f", {pluralize(len(aside), 'file')} set aside" if aside else ""
    size_bytes = plan.size_bytes + sum(size for _, size in aside)
    left = pluralize(len(plan.kept), "run")
    console.err(f"{verb} {format_size(size_bytes)}: {what}; {left} left")


def _evictable(layout: Layout, settings: Settings, environ: Mapping[str, str]) -> dict[tuple[str, str], Evictable]:
    """Return (run id, digest of its manifest here) → what its registry holds of it."""
    from runnable_ci.runs.remote.evict import find_evictable
    from runnable_ci.runs.remote.registry_config import Registries

    opened = cache(Registries(settings, environ).recorded)
    found: dict[tuple[str, str], Evictable] = {}
    for run_id, manifest in layout.manifests().items():
        try:
            if it := find_evictable(layout, load(layout, run_id), opened):
                found[run_id, manifest.digest] = it
        except StoreError as e:
            console.err(f"kept {run_id}: {e.message}")
    return found


def _note_evicted(layout: Layout, evicted: Mapping[str, Evictable]) -> None:
    if not evicted:
        return
    from runnable_ci.runs.remote.evict import note_evicted
    from runnable_ci.store.content_cache import ContentCache

    for run_id, it in evicted.items():
        note_evicted(layout, run_id, it)
    ContentCache(layout).trim(at_most=0)


def _never_begun(layout: Layout) -> list[Path]:
    """Return the folders of runs that were killed before their first line was written: nothing but a lock is in
    them.
    """
    known = set(run_ids(layout))
    others = [folder for run_id, folder in run_folders(layout).items() if run_id not in known]
    return [folder for folder in others if {path.name for path in folder.iterdir()} <= {"lock"}]


def _referenced(layout: Layout, log: RunLog, sealed: Mapping[str, Descriptor]) -> set[str]:
    """Return all blobs that a run needs: what its log names, and its manifest."""
    run_id, referenced = log.run_id, {f"sha256:{digest}" for digest in referenced_digests(log)}
    if run_id in sealed:
        manifest = layout.manifest(sealed[run_id])
        layers = [manifest.get("config", {}), *manifest.get("layers", [])]
        referenced |= {sealed[run_id].digest, *(str(layer.get("digest")) for layer in layers)}
    return referenced


def prune(
    *,
    source: str | None,
    keep: int | None,
    older_than: str | None,
    dry_run: bool,
    settings: Settings,
    environ: Mapping[str, str],
) -> None:
    """Remove runs that are neither among the `keep` newest nor younger than `older_than`; their ids are printed.

    A run to which another tag points is kept. The registry keeps content that it shares with such runs: it
    frees what no manifest names. Raises `StoreError`, with what was removed until then printed.
    """
    from runnable_ci.runs.elsewhere.parcels import old_parcels
    from runnable_ci.runs.remote.listing import list_published
    from runnable_ci.runs.remote.registry_config import Registries  # `gc` needs no registry

    if keep is None and older_than is None:
        raise UsageError("specify which runs to delete", hint="--keep N, --older-than AGE, or both")
    registry = Registries(settings, environ).named(source, in_pipeline=lambda: registry_of(store_folder()))
    console.err(f"registry: {registry.label}")
    found = list_published(registry, exact=True)
    ended = [run.summary.end_time or run.summary.start_time for run in found]
    experiments = {place for place, run in enumerate(found) if run.summary.made_for}
    outdated = Retention(keep, older_than).outdated(ended, moment=datetime.now(UTC), experiments=experiments)
    going = [run for place, run in enumerate(found) if place in outdated and _may_go(registry, run)]
    parcels = old_parcels(registry, before=(datetime.now(UTC) - _PARCEL_AGE).isoformat())
    delete = _deleter(registry, settings, environ) if (going or parcels) and not dry_run else None
    removed, gone = 0, set[str]()
    try:
        for run in going:
            if delete is None or _removed(registry, run, delete):
                removed += 1
                gone |= {manifest.digest for manifest in run.manifests.values()}
                console.out(run.summary.run_id)
    finally:
        if delete is not None and gone:
            _forget(registry, gone)
    if delete is not None:
        for parcel in parcels:
            delete(parcel)
    verb = "would remove" if dry_run else "removed"
    if parcels:
        console.err(f"{verb} {pluralize(len(parcels), 'part')} of attempts on other machines that nobody asked for")
    console.err(f"{verb} {pluralize(removed, 'run')} from {registry.label}; {len(found) - removed} left")


def _forget(registry: Registry, manifests: Collection[str]) -> None:
    """Take what only these held out of the indexes of results; where that fails nobody takes a result that is gone."""
    from runnable_ci.runs.reuse.index_tag import forget_manifests

    with suppress(StoreError):
        console.err(*forget_manifests(registry, manifests))


def _may_go(registry: Registry, run: PublishedRun) -> bool:
    from runnable_ci.runs.remote.merged_listing import is_pinned

    if run.pinned_by:
        _stays(run, f"referenced by tag {run.pinned_by[0]}")
    elif run.sign:
        _stays(run, f"in progress, {run.sign}")
    elif is_pinned(registry, run):
        _stays(run, "pinned")
    else:
        return True
    return False


def _deleter(registry: Registry, settings: Settings, environ: Mapping[str, str]) -> Callable[[Descriptor], None]:
    """Return what deletes a manifest; GitHub's registry does not, its API does."""
    from runnable_ci.store.reference import GITHUB_REGISTRY

    host, _, path = registry.label.partition("/")
    if host != GITHUB_REGISTRY:
        return registry.delete
    from runnable_ci.github.api.connection import connect_package

    package = connect_package(path, settings=settings, environ=environ)
    return lambda manifest: package.delete(manifest.digest)


def _removed(registry: Registry, run: PublishedRun, delete: Callable[[Descriptor], None]) -> bool:
    from runnable_ci.github.api.packages import LastVersionError
    from runnable_ci.runs.remote.listing import remove

    try:
        gone = remove(registry, run, delete)
    except LastVersionError as e:  # it will not go tomorrow either: no reason for a scheduled job to fail
        _stays(run, f"{e.message}; {e.hint}")
        return False
    if not gone:
        _stays(run, "it has just been modified")
    return gone


def _stays(run: PublishedRun, reason: str) -> None:
    console.err(f"kept {run.summary.run_id}: {reason}")
