"""Results of other runs that a run may take, from the indexes of the branches that it trusts; and what a run leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from runnable_ci.errors import RunLogError, StoreError
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import StepAttempt
from runnable_ci.runs.reader import catalog_of, load, run_ids
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters, Maker, Writer, ref_label
from runnable_ci.runs.reuse.entries import (
    DETACHED,
    PULL,
    ResultHolder,
    ReuseEntry,
    branch_of,
    entries_of,
    publishing_branch,
    taken_by,
)
from runnable_ci.runs.reuse.index import Index, held_also, merge, of_pipeline
from runnable_ci.runs.reuse.index_tag import StoredIndex, change_index, read_index
from runnable_ci.runs.reuse.lost_entries import FoundAgain, find_again
from runnable_ci.store.content_cache import ContentCache
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import is_actions
from runnable_ci.util.threads import map_all

_JOBS = 4


class IndexPlace(NamedTuple):
    """The index of a branch."""

    registry: Registry
    branch: str
    """As `ref_label` names it."""


class Candidate(NamedTuple):
    """A result that might be taken."""

    entry: ReuseEntry
    branch: str
    """In whose index it is."""
    registry: Registry
    """Which holds its contents."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What indexes have of a pipeline."""

    of_step: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)
    """Step → results, the newest first."""
    notes: Sequence[str] = ()
    """Which indexes could not be used, and why."""


def find_candidates(
    places: Sequence[IndexPlace],
    pipeline: str,
    *,
    accepted: AcceptedWriters = EVERYBODY,
    layout: Layout | None = None,
    tries: int = 1,
) -> Candidates:
    """Return what the indexes of some branches have of a pipeline, by one request for most of them, all at once.

    `pipeline` is its `PipelineIdentity.key`. Results whose makers are not `accepted` are left out, as are those that
    stand in the index of another branch than their maker's: nothing of an index is believed but what can be proven.
    An index that cannot be read is no error.
    """
    cache = ContentCache.of(layout)

    def read(place: IndexPlace) -> Index | str:
        try:
            return read_index(place.registry, place.branch, cache, tries=tries)
        except (StoreError, RunLogError) as e:
            return f"nothing of {place.branch} can be reused from {place.registry.label}: {e.message}"

    unique = {(place.registry.label, place.branch): place for place in places}
    found = map_all(read, unique.values(), jobs=_JOBS, name="reuse") if pipeline else []
    of_step: dict[str, list[Candidate]] = {}
    for place, index in zip(unique.values(), found, strict=False):
        for step, entries in ({} if isinstance(index, str) else of_pipeline(index, pipeline)).items():
            usable = (entry for entry in entries if _is_of(entry, place.branch, accepted))
            of_step.setdefault(step, []).extend(Candidate(entry, place.branch, place.registry) for entry in usable)
    newest_first = {
        step: sorted(them, key=lambda it: it.entry.ended, reverse=True) for step, them in of_step.items() if them
    }
    return Candidates(newest_first, tuple(index for index in found if isinstance(index, str)))


def publish_entries(
    layout: Layout, run_id: str, registry: Registry, manifest: str, *, environ: Mapping[str, str]
) -> list[str]:
    """Add what others may take of a published run, whose manifest there is named, to the index of its branch.

    Returns why it could not be; nothing where it is there. The run stands there already, whatever becomes of this.
    """
    try:
        note = _publish_entries(layout, run_id, registry, manifest, environ)
    except (StoreError, RunLogError) as e:
        note = f"results of `{run_id}` are in no index: {e.message}"
    return [note] if note else []


def _publish_entries(layout: Layout, run_id: str, registry: Registry, manifest: str, environ: Mapping[str, str]) -> str:
    log = load(layout, run_id)
    branch = publishing_branch(log, ref_label(environ) if is_actions(environ) else "")
    pipeline = PipelineIdentity.recorded(log.name, log.run_config).key()
    if not branch or not pipeline:
        return ""
    made = entries_of(log, manifest=manifest, reads_of=partial(_stored_reads, catalog_of(layout, log)))
    mine = [entry for entry in made if branch_of(entry.refs) == branch]
    taken, holder = taken_by(log), ResultHolder(manifest=manifest, run_id=run_id, ended=log.end_time)
    mine += [entry for entry in _taken_here(layout, taken, holder) if branch_of(entry.refs) == branch]
    lost: FoundAgain | None = None

    def change(there: StoredIndex) -> StoredIndex:
        nonlocal lost
        lost = find_again(registry, branch, there, layout, except_for=manifest) if lost is None else lost
        if not (mine or taken or there.runs or lost.manifests):
            return there
        entries = merge(held_also(there.entries, pipeline, taken, holder), mine, lost.entries)
        return replace(there, entries=entries).with_runs([*lost.manifests, manifest])

    return change_index(registry, branch, change, ContentCache.of(layout))


def _taken_here(layout: Layout, taken: Mapping[str, str], holder: ResultHolder) -> Iterator[ReuseEntry]:
    """Yield the entries of what a run took from others of this store, which may have been published by nobody."""
    titles, known = set(taken.values()), set(run_ids(layout))
    for run_id in sorted({title.partition("/")[0] for title in titles} & known):
        with suppress(StoreError, RunLogError):
            log = load(layout, run_id)
            made = entries_of(log, manifest=holder.manifest, reads_of=partial(_stored_reads, catalog_of(layout, log)))
            yield from (it.model_copy(update={"held_by": [holder]}) for it in made if it.title in titles)


def _is_of(entry: ReuseEntry, branch: str, accepted: AcceptedWriters) -> bool:
    """Return whether a result may be used that was found in a branch's index: its maker could write there.

    What a pull request's job checks out is no branch, and its code is the pull request's.
    """
    maker = entry.maker
    if branch.startswith(PULL):
        maker = replace(maker, refs=tuple(ref for ref in maker.refs if ref != DETACHED))
    return branch_of(entry.refs) == branch and bool(entry.held_by) and accepted.accepts(_writer(entry, maker))


def _writer(entry: ReuseEntry, maker: Maker) -> Writer:
    return Writer(entry.held_by[0].manifest, (), (maker,), entry.run_id)


def _stored_reads(catalog: Catalog, attempt: StepAttempt) -> bytes | None:
    try:
        return b"".join(catalog.read(attempt.reads, attempt.reads_size))
    except StoreError:
        return None
