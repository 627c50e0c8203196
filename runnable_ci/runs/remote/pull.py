"""How a run comes from a registry, and what of it is fetched later."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    RunInUseError,
    RunLogError,
    UsageError,
)
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.runs.artifact import layers, manifest_annotations, reads_blobs
from runnable_ci.runs.document import encode
from runnable_ci.runs.events import LogImported
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import ORIGIN, is_running, run_folder, shared
from runnable_ci.runs.reader import catalog_of, check_run_id, load, run_ids
from runnable_ci.runs.recorder import ensure_sealed, reopen
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.remote.remote_index import (
    LOG_SLACK_BYTES,
    WriterManifest,
    find_manifests,
    list_published,
)
from runnable_ci.runs.run_identity import describe_beginning, run_identity
from runnable_ci.store.copy import Progress, TransferSize, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import TAG, Descriptor
from runnable_ci.util.files import write_whole

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run in a registry, of which nothing is here yet."""

    registry: Registry
    parts: Sequence[WriterManifest]
    log: RunLog
    """What all parts say together."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of a run."""

    run_id: str
    writers: int
    """How many versions were merged."""
    fetched: TransferSize
    left: TransferSize
    """What the run holds and the store does not."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run was pulled from."""

    registry: str
    manifests: tuple[str, ...]
    """Digests of the manifests that together hold its content."""


def keep_as(layout: Layout, run_id: str, other_id: str) -> None:
    """Copy a run within the store to another id; an existing copy is updated.

    Raises `UsageError` for what cannot be an id or is that of another run, `RunInUseError`, `StoreError`.
    """
    check_run_id(other_id)
    log = load(layout, run_id)
    _require_same_run(layout, _renamed(log, other_id), layout.label)
    with shared(layout):
        ensure_sealed(layout, run_id)
        _import_log(layout, _renamed(load(layout, run_id), other_id))
        origin = run_folder(layout, run_id) / ORIGIN
        if origin.exists():
            write_whole(run_folder(layout, other_id) / ORIGIN, origin.read_bytes(), through=layout.temporaries)


def pull(
    layout: Layout, registry: Registry, reference: str, *, only_log: bool = False, watch: OnProgress | None = None
) -> Pulled:
    """Pull a published run into the store: `find` and `take` in one.

    Raises `RunNotFoundError`, `RunInUseError`, `RunLogError`, `UsageError` where another run here has the id,
    `StoreError`.
    """
    return take(layout, find(registry, reference), only_log=only_log, watch=watch)


def find(registry: Registry, reference: str) -> FoundRun:
    """Return a published run; `reference` is a run id, `latest`, a tag or a digest.

    Raises `RunNotFoundError`, `RunLogError`, `StoreError`.
    """
    parts = find_manifests(registry, reference)
    return FoundRun(registry, parts, merge([part.log for part in parts]))


def find_newest(registry: Registry, accepts: Callable[[RunLog], bool]) -> FoundRun | None:
    """Return the newest published run whose log is accepted."""
    for run in reversed(list_published(registry)):
        found = find(registry, run.summary.run_id)
        if accepts(found.log):
            return found
    return None


def take(layout: Layout, found: FoundRun, *, only_log: bool = False, watch: OnProgress | None = None) -> Pulled:
    """Copy a run that was found into the store, merged with what it already has; all content is verified.

    With `only_log` the content stays where it is, but for what the steps read, which a retry compares. Raises
    `RunInUseError`, `UsageError` where another run here has the id, `RunLogError`, `StoreError`.
    """
    registry, parts, log = found.registry, found.parts, found.log
    _require_same_run(layout, log, registry.label)
    came_bytes = sum(part.size_bytes for part in parts)
    if len(encode(log)) > 2 * came_bytes + LOG_SLACK_BYTES:  # an older version's has some fields less, not most of them
        raise RunLogError(f"the run log of `{log.run_id}` would need more than twice the space of the download")
    if is_running(layout, log.run_id):
        raise RunInUseError(
            f"run `{log.run_id}` is in use by another process", hint="wait until it has finished, or stop it"
        )
    layout.create()
    origin = Origin(registry.label, tuple(part.manifest.digest for part in parts))
    with shared(layout):
        blobs = {descriptor.digest: descriptor for descriptor in layers(log).values()}
        if only_log:
            fetched = _fetch_reads(layout, registry, origin, log, watch)
        else:
            fetched = _fetch(layout, registry, origin, blobs.values(), watch)
            if missing := missing_blobs(layout, blobs.values()):
                words = ("pull", f"{registry.label}:{log.run_id}", "--only", "log", *http_option(registry.plain_http))
                raise BlobMissingError(
                    f"{registry.label} holds run `{log.run_id}` without its {missing[0].digest}",
                    hint=f"publish the run again from its original store, or without files: {of_store(layout, *words)}",
                )
        _import_log(layout, log)
        write_whole(
            run_folder(layout, log.run_id) / ORIGIN,
            json.dumps({"registry": origin.registry, "manifests": origin.manifests}).encode(),
            through=layout.temporaries,
        )
    return Pulled(log.run_id, len(parts), fetched, TransferSize.of(missing_blobs(layout, blobs.values())))


def read_origin(layout: Layout, run_id: str) -> Origin | None:
    """Return where a run was pulled from, None where it was not.

    Raises `RunLogError` for a note that cannot be read.
    """
    if not TAG.fullmatch(run_id) or not (path := run_folder(layout, run_id) / ORIGIN).exists():
        return None
    try:
        noted = json.loads(path.read_bytes())
        registry, manifests = noted["registry"], tuple(noted["manifests"])
        for manifest in manifests:
            Descriptor("", manifest, 0)
        return Origin(parse_reference(registry).repository, manifests)
    except (ValueError, KeyError, TypeError, UsageError, BlobCorruptError) as e:
        raise RunLogError(
            f"{path} is damaged", hint=f"remove it, then: {of_store(layout, 'pull', run_id, '--from', 'REGISTRY')}"
        ) from e


def fetch(
    layout: Layout, registry: Registry, origin: Origin, wanted: Collection[Descriptor], watch: OnProgress | None = None
) -> TransferSize:
    """Download some of a run's content from its registry; return how much."""
    with shared(layout):
        return _fetch(layout, registry, origin, wanted, watch)


def missing_blobs(layout: Layout, descriptors: Collection[Descriptor]) -> list[Descriptor]:
    """Return the contents that the store does not have."""
    return [descriptor for descriptor in descriptors if not layout.exists(descriptor)]


def _fetch_reads(
    layout: Layout, registry: Registry, origin: Origin, log: RunLog, watch: OnProgress | None
) -> TransferSize:
    """Download what the steps read; where the registry has lost it, a retry compares the whole repository."""
    try:
        return _fetch(layout, registry, origin, reads_blobs(log), watch)
    except (BlobMissingError, BlobCorruptError):
        return TransferSize()


def _fetch(
    layout: Layout, registry: Registry, origin: Origin, wanted: Collection[Descriptor], watch: OnProgress | None
) -> TransferSize:
    fetched = TransferSize()
    for manifest in origin.manifests:
        missing = {descriptor.digest: descriptor.size for descriptor in missing_blobs(layout, wanted)}
        if not missing:
            break
        sent = copy(registry, manifest, layout, layer_filter=partial(_is_among, missing), progress=watch).sent
        fetched = TransferSize(fetched.blobs + sent.blobs, fetched.size_bytes + sent.size_bytes)
    return fetched


def _is_among(sizes: Mapping[str, int], descriptor: Descriptor) -> bool:
    """Return whether a layer is one that the log names: a log that understates a size gets nothing."""
    return sizes.get(descriptor.digest) == descriptor.size


def _require_same_run(layout: Layout, log: RunLog, where: str) -> None:
    """Raise where the store has another run of the same id."""
    if log.run_id not in run_ids(layout):
        return
    here = load(layout, log.run_id)
    if run_identity(here) != run_identity(log):
        raise UsageError(
            f"`{log.run_id}` in {layout.label} is another run, {describe_beginning(manifest_annotations(here))}; "
            f"that in {where} was {describe_beginning(manifest_annotations(log))}; nothing was changed",
            hint="pull it into another folder: --store DIR",
        )


def _renamed(log: RunLog, run_id: str) -> RunLog:
    renamed = log.model_copy(update={"run_id": run_id}, deep=True)
    for step in renamed.steps.values():
        for entries in (step.data_catalog, *(attempt.data_catalog for attempt in step.attempts)):
            for entry in entries:
                entry.catalog_relative_path = f"{run_id}/{entry.name}"
    return renamed


def _import_log(layout: Layout, log: RunLog) -> None:
    """Record a pulled run log, merged with what there is of the run here."""
    here = load(layout, log.run_id) if log.run_id in run_ids(layout) else None
    with reopen(layout, here or log) as recorder:
        if here is not None:
            # Before numbers may change: until then a file of output has its name by its attempt's number.
            recorder.seal(catalog_of(layout, recorder.log))
            merged = merge([recorder.log, log])
            if merged != recorder.log:
                recorder.record(LogImported(run_log=merged))
        recorder.seal(catalog_of(layout, recorder.log))
