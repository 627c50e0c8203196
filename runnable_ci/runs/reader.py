"""The runs of a store, for reading: which there are, and each one's run log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RunLogError,
    RunNotFoundError,
    StoreError,
    UsageError,
    did_you_mean,
)
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.artifact import ORIGINAL_TYPE, RUN_LOG_MEDIA_TYPE, manifest_annotations
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.document import decode
from runnable_ci.runs.events import apply, mark_interrupted
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.journal import Seal, is_current, own_invocations, proven_lines, read_journal
from runnable_ci.runs.model import PROCESSING, RunLog, StepAttempt
from runnable_ci.runs.output import split
from runnable_ci.runs.paths import (
    JOURNAL,
    OUTPUTS,
    in_flight,
    is_pulled,
    is_running,
    last_write_time,
    run_folder,
    run_folders,
)
from runnable_ci.runs.products.index import Product, ProductsIndex
from runnable_ci.store.local import Layout
from runnable_ci.store.store_identity import store_identity
from runnable_ci.store.target import TAG, Descriptor, verified
from runnable_ci.util.clock import format_timestamp
from runnable_ci.util.process_output import Stream
from runnable_ci.util.shell_command import in_folder

if TYPE_CHECKING:
    from runnable_ci.runs.listing.summary import Summary

LATEST = "latest"


def run_ids(layout: Layout, sealed: Mapping[str, Descriptor] | None = None) -> list[str]:
    """Return all run ids, the one that was written to last at the end; `sealed` are the layout's `manifests`."""
    sealed = layout.manifests() if sealed is None else sealed
    times = {run_id: descriptor.annotations.get("vnd.runnable.ended", "") for run_id, descriptor in sealed.items()}
    for run_id, folder in run_folders(layout).items():
        journal = folder / JOURNAL
        if journal.exists() and not (run_id in sealed and _is_current(sealed[run_id].annotations, journal)):
            times[run_id] = format_timestamp(journal.stat().st_mtime)  # a copy of the store may have changed it
    return sorted(times, key=lambda run_id: times[run_id])


def experiments(sealed: Mapping[str, Descriptor]) -> frozenset[str]:
    """Return the runs that `reproduce`, `why` or `bisect` made: no `latest`, and nothing to build a new run on."""
    names = ("vnd.runnable.made-for", "vnd.runnable.reproduces")
    return frozenset(run_id for run_id, it in sealed.items() if any(map(it.annotations.get, names)))


def newest_first(layout: Layout, sealed: Mapping[str, Descriptor]) -> Iterator[str]:
    """Yield the run ids, experiments left out, the one that was written to last at the beginning."""
    hidden = experiments(sealed)
    return (run_id for run_id in reversed(run_ids(layout, sealed)) if run_id not in hidden)


def check_run_id(run_id: str) -> None:
    """Raise `UsageError` for what cannot be a run's id."""
    if not TAG.fullmatch(run_id) or run_id == LATEST:
        hint = "letters, digits, `_`, `.` and `-`, at most 128; and not `latest`"
        raise UsageError(f"`{run_id}` cannot be a run id", hint=hint)


def resolve_id(layout: Layout, given: str) -> str:
    """Return the run id of an id or `latest`. Raises `RunNotFoundError`."""
    sealed = layout.manifests()
    known = run_ids(layout, sealed)
    if given == LATEST and known:
        return next(newest_first(layout, sealed), known[-1])
    if given in known and TAG.fullmatch(given):
        return given
    if not known:
        first = in_folder(layout.folder.parent, "run")
        raise RunNotFoundError(f"no runs in {layout.label}", hint=f"`{first}` makes the first one")
    listed = f"`{of_store(layout, 'runs')}` lists them"
    hint = did_you_mean(given, [*known, LATEST], listed)
    raise RunNotFoundError(f"no run `{given}` in {layout.label}", hint=hint)


def load(layout: Layout, run_id: str, sealed: Mapping[str, Descriptor] | None = None) -> RunLog:
    """Return a run's log as it stands; a run whose process was killed reads as the failure that it is.

    A sealed one is read from the document that its manifest proves. Who reads many gives the layout's `manifests`, so
    that they are not read for each. Raises `RunNotFoundError`, `RunLogError`, `StoreError`.
    """
    known = (layout.manifests() if sealed is None else sealed).get(run_id)
    if known and is_current(known.annotations, run_folder(layout, run_id) / JOURNAL):
        log = _read_sealed(layout, run_id, known)
    else:
        log = read_journal(layout, run_id, known) or _read_artifact(layout, run_id, known)
    if log.status == PROCESSING and not is_running(layout, run_id) and not _is_elsewhere(layout, run_id):
        time_s, elsewhere = last_write_time(run_folder(layout, run_id)), in_flight(layout, run_id)
        for event in mark_interrupted(log, time=time_s or log.start_time, elsewhere=elsewhere):
            log = apply(log, event)
    return log


def _is_elsewhere(layout: Layout, run_id: str) -> bool:
    """Return whether another machine is at a run that was pulled."""
    from runnable_ci.runs.live.life_sign import writer_elsewhere  # few runs are in progress

    return writer_elsewhere(layout, run_id, now_s=time.time()) is not None


def given_here(layout: Layout, run_id: str) -> list[Mapping[str, Any]]:
    """Return the parameters of each invocation of a run that this store recorded itself: not a copy, not a pull."""
    store = store_identity(layout)
    if not store:
        return []
    with proven_lines(layout, run_id, layout.manifests().get(run_id)) as lines:
        own = own_invocations(lines, store=store, where=str(run_folder(layout, run_id) / JOURNAL))
        return [invocation.parameters for invocation in own]


def summaries(layout: Layout, sealed: Mapping[str, Descriptor] | None = None) -> Iterator[Summary]:
    """Yield a line for each run, newest last; `sealed` are the layout's `manifests`.

    Reads a run log only where the index does not know its latest state.
    """
    from runnable_ci.runs.listing.summary import Summary  # to run and to retry need none

    sealed, folders = layout.manifests() if sealed is None else sealed, run_folders(layout)
    for run_id in run_ids(layout, sealed):
        annotations = dict(sealed[run_id].annotations) if run_id in sealed else {}
        is_current_here = _is_current(annotations, folders[run_id] / JOURNAL if run_id in folders else None)
        if not is_current_here or annotations["vnd.runnable.status"] == PROCESSING:
            try:
                annotations = manifest_annotations(load(layout, run_id, sealed))
            except RunLogError:
                annotations = {"vnd.runnable.status": "DAMAGED"}
        yield Summary.of(run_id, annotations)


def catalog_of(
    layout: Layout,
    log: RunLog,
    workspace: Path | None = None,
    *,
    is_tracked: Callable[[str], bool | None] = lambda _name: False,
    is_committed: Callable[[str], bool | None] = lambda _name: True,
    products: ProductsIndex | None = None,
) -> Catalog:
    """Return the files of a run."""
    folder = run_folder(layout, log.run_id)
    workspace = workspace or layout.folder.parent
    index = products or products_of(layout)
    return Catalog(layout, workspace, folder, dict(log.packs), is_tracked, is_committed, index)


def products_of(layout: Layout) -> ProductsIndex:
    """Return which files of the workspace the steps of a store's runs made."""
    return ProductsIndex(layout, lambda: logged_products(layout))


def logged_products(layout: Layout) -> Iterator[Product]:
    """Yield what the steps of all runs put, the newest run's last; a log that cannot be read tells nothing."""
    sealed = layout.manifests()
    for run_id in run_ids(layout, sealed):
        with suppress(RunLogError, BlobMissingError):
            log = load(layout, run_id, sealed)
            index = PackIndex(log.packs)
            for step in log.steps.values():
                for attempt in step.attempts:
                    title = f"{run_id}/{step.name}.{attempt.attempt_number}"
                    files = step.data_catalog if attempt is step.attempts[-1] else attempt.data_catalog
                    for entry in files:
                        if entry.stage == "put":
                            content = index.content(entry)
                            yield Product(entry.name, content, step.name, run_id, entry.made_by or title)


@contextmanager
def suggest_pull(layout: Layout, run_id: str) -> Iterator[None]:
    """Add to an error in the block where missing content of a partly pulled run is."""
    try:
        yield
    except BlobMissingError as e:
        if not is_pulled(layout, run_id):
            raise
        raise BlobMissingError(e.message, hint=f"`{of_store(layout, 'pull', run_id)}` downloads the whole run") from e


def output_of(layout: Layout, log: RunLog, title: str, attempt: StepAttempt) -> Iterator[tuple[Stream, bytes]]:
    """Yield what an attempt wrote, as (stream, bytes) in order; `title` is `STEP.ATTEMPT`.

    Also of a run that is not over. Raises `BlobMissingError`, `BlobCorruptError`.
    """
    folder = run_folder(layout, log.run_id) / OUTPUTS
    if (file := folder / f"{title}.log").exists():
        known = index = None
        if kept := attempt.log:
            known = Descriptor.of_hash(kept.data_hash, kept.size)
            index = Descriptor.of_hash(kept.index_hash, kept.index_size) if kept.index_hash else None
        runs = b"".join(_kept(folder / f"{title}.idx", index))
        yield from split(_kept(file, known), runs, only_stream=_only(attempt))
    elif attempt.log is not None:
        catalog = catalog_of(layout, log)
        index_content = b""
        with suggest_pull(layout, log.run_id):
            if attempt.log.index_hash:
                index_content = b"".join(catalog.read(attempt.log.index_hash, attempt.log.index_size))
            content = catalog.read(attempt.log.data_hash, attempt.log.size)
            yield from split(content, index_content, only_stream=_only(attempt))


def last_output(layout: Layout, log: RunLog, step: str, *, limit_bytes: int) -> str:
    """Return the end of what the last attempt at a step wrote; empty where that is not to be read here."""
    attempts = log.steps[step].attempts
    kept = bytearray()
    try:
        for attempt in attempts[-1:]:
            for _, chunk in output_of(layout, log, f"{step}.{attempt.attempt_number}", attempt):
                kept += chunk
                del kept[:-limit_bytes]
    except (StoreError, BlobMissingError):
        return ""
    return kept.decode(errors="replace")


def _only(attempt: StepAttempt) -> Stream:
    return "e" if attempt.log and not attempt.log.stdout_bytes else "o"


def _kept(path: Path, known: Descriptor | None) -> Iterator[bytes]:
    """Yield what is in a file of output: as its attempt left it, once that is over; nothing where there is none yet."""
    if known is not None:
        with path.open("rb") as file:
            yield from verified(file, known, label=str(path.parent))
    elif path.exists():
        with path.open("rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")


def _is_current(annotations: Mapping[str, str], journal: Path | None) -> bool:
    """Return whether the annotations that the index has of a run say how it stands."""
    is_newest = journal is None or Seal.of(annotations) is None or is_current(annotations, journal)
    return "vnd.runnable.status" in annotations and is_newest


def _read_sealed(layout: Layout, run_id: str, known: Descriptor) -> RunLog:
    """Return the log of a sealed run; should the store have lost it, from the journal that led to it."""
    try:
        return _read_artifact(layout, run_id, known)
    except (BlobMissingError, BlobCorruptError):
        if (log := read_journal(layout, run_id, known)) is None:
            raise
        return log


def _resolve(layout: Layout, run_id: str) -> Descriptor:
    try:
        return layout.resolve(run_id)
    except ManifestNotFoundError as e:
        raise RunNotFoundError(f"no run `{run_id}` in {layout.label}", hint=e.hint) from e


def _read_artifact(layout: Layout, run_id: str, known: Descriptor | None) -> RunLog:
    manifest = layout.manifest(known or _resolve(layout, run_id))
    for layer in manifest.get("layers", []):
        original = (layer.get("annotations") or {}).get(ORIGINAL_TYPE)
        if RUN_LOG_MEDIA_TYPE in (layer.get("mediaType"), original):
            descriptor = Descriptor(RUN_LOG_MEDIA_TYPE, str(layer["digest"]), int(layer["size"]))
            log = decode(layout.read_bytes(descriptor), where=f"{run_id} in {layout.label}")
            if log.run_id != run_id:
                raise RunLogError(f"the tag {run_id} in {layout.label} points to the run log of {log.run_id}")
            return log
    raise BlobMissingError(f"`{run_id}` in {layout.label} is not a run: it has no run log")
