"""How a run comes from a registry, and what of it is fetched later."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    RegistryProtocolError,
    RunInUseError,
    RunLogError,
    UsageError,
)
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.runs.artifact import layers, manifest_annotations, reads_blobs
from runnable_ci.runs.document import encode
from runnable_ci.runs.events import LogImported
from runnable_ci.runs.live.in_progress import writer_now
from runnable_ci.runs.live.life_sign import WriterElsewhere, note_writer
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import HELD, MADE_HERE, ORIGIN, WRITERS, is_running, run_folder, shared
from runnable_ci.runs.reader import LATEST, catalog_of, check_run_id, load, run_ids
from runnable_ci.runs.recorder import ensure_sealed, reopen
from runnable_ci.runs.remote.contributions import read_contributions, write_contributions
from runnable_ci.runs.remote.derived import join_pieces
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.remote.published_content import LOG_SLACK_BYTES, WriterManifest
from runnable_ci.runs.remote.remote_index import find_manifests, find_unlisted, newest_runs, require_one_run
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters, Writer
from runnable_ci.runs.run_identity import describe_beginning, run_identity
from runnable_ci.store.copy import Progress, TransferSize, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.store_identity import store_identity, writer_name
from runnable_ci.store.target import DIGEST, TAG, Descriptor
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import remove_folder, write_whole

OnProgress = Callable[[Progress], None]


class WritersRefusedError(UsageError):
    """All that is published of a run was written by writers who are not accepted."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run in a registry, of which nothing is here yet."""

    registry: Registry
    parts: Sequence[WriterManifest]
    log: RunLog
    """What all accepted parts say together."""
    refused: Sequence[Writer] = ()
    """Whose parts were not used."""
    unlisted: str = ""
    """Why other writers' parts could not be looked for."""

    def writer_now(self) -> WriterElsewhere | None:
        """Return who is writing the run at this moment; None where nobody is."""
        return writer_now(self.parts, self.log, registry=self.registry.label, now_s=self.registry.now_s())


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of a run."""

    run_id: str
    writers: int
    """How many versions were merged."""
    fetched: TransferSize
    left: TransferSize
    """What the run holds and the store does not."""
    others: Sequence[Writer] = ()
    """The other writers among them."""
    refused: Sequence[Writer] = ()
    """Whose parts were not used."""
    unlisted: str = ""
    """Why other writers' parts could not be looked for."""
    writer_now: WriterElsewhere | None = None
    """Who is writing the run at this moment."""

    def refusals(self) -> list[str]:
        """Return what was not used, a line for each."""
        lines = [f"not used, since its writer is not accepted: {writer.with_makers()}" for writer in self.refused]
        if self.unlisted:
            lines.append(f"other writers' parts of `{self.run_id}` were not looked for: {self.unlisted}")
        if now := self.writer_now:
            lines.append(f"run {self.run_id} is in progress, and was taken as it is by now: {now.writer}, {now.sign}")
        return lines


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run was pulled from, or is since its content left the store."""

    registry: str
    manifests: tuple[str, ...]
    """Digests of the manifests that together hold its content."""


def keep_as(layout: Layout, run_id: str, other_id: str) -> bool:
    """Copy a run within the store to another id; an existing copy is updated. Return whether there was none.

    Raises `UsageError` for what cannot be an id or is that of another run, `RunInUseError`, `StoreError`.
    """
    check_run_id(other_id)
    log = load(layout, run_id)
    is_new = other_id not in run_ids(layout)
    hint = f"choose an id that no other run has: {of_store(layout, 'publish', run_id, '--as', 'OTHER_ID')}"
    require_same_run(layout, _renamed(log, other_id), layout.label, hint)
    with shared(layout):
        ensure_sealed(layout, run_id)
        _record(layout, _renamed(load(layout, run_id), other_id))
        for note in (MADE_HERE, ORIGIN, HELD, WRITERS):
            noted = run_folder(layout, run_id) / note
            if noted.exists():
                write_whole(run_folder(layout, other_id) / note, noted.read_bytes(), through=layout.temporaries)
    return is_new


def forget(layout: Layout, run_id: str) -> None:
    """Remove a copy of a run that `keep_as` has just made; its content is that of the other one."""
    with shared(layout):
        layout.untag({run_id})
        remove_folder(run_folder(layout, run_id), through=layout.temporaries)


def pull(
    layout: Layout,
    registry: Registry,
    reference: str,
    *,
    accepted: AcceptedWriters = EVERYBODY,
    only_log: bool = False,
    watch: OnProgress | None = None,
) -> Pulled:
    """Pull a published run into the store: `find` and `take` in one.

    Raises `RunNotFoundError`, `RunInUseError`, `RunLogError`, `UsageError` where another run here has the id,
    `StoreError`.
    """
    found = find(registry, reference, accepted=accepted, layout=layout)
    return take(layout, found, only_log=only_log, watch=watch)


def find(
    registry: Registry, reference: str, *, accepted: AcceptedWriters = EVERYBODY, layout: Layout | None = None
) -> FoundRun:
    """Return what accepted writers published of a run.

    `reference` is a run id, `latest`, a tag, a digest or `RUN_ID@DIGEST`; a digest is accepted by itself, as is what
    the store at `layout` published. Raises `RunNotFoundError`, `WritersRefusedError`, `RunLogError`, `StoreError`.
    """
    run_id, _, digest = reference.rpartition("@")
    unlisted = ""
    try:
        parts = find_manifests(registry, digest, layout)
    except (RegistryAuthError, RegistryProtocolError) as e:
        parts = _unlisted_parts(registry, digest, layout)
        if not parts:
            raise
        unlisted = e.message
    if run_id and parts[0].log.run_id != run_id:
        raise RunLogError(f"{digest} in {registry.label} is run `{parts[0].log.run_id}`, not `{run_id}`")
    if DIGEST.fullmatch(digest):
        accepted = EVERYBODY
    own = read_contributions(layout, parts[0].log.run_id).published if layout else ()
    return replace(_found(registry, parts, accepted, own), unlisted=unlisted)


def _found(
    registry: Registry, parts: Sequence[WriterManifest], accepted: AcceptedWriters, own: Collection[str]
) -> FoundRun:
    refused = [p for p in parts if p.manifest.digest not in own and not accepted.accepts(p.writer)]
    used = [part for part in parts if part not in refused]
    if not used:
        raise _refused(registry, refused, accepted)
    require_one_run(used, registry)
    return FoundRun(registry, used, merge([part.log for part in used]), [part.writer for part in refused])


def _unlisted_parts(registry: Registry, reference: str, layout: Layout | None) -> list[WriterManifest]:
    """Return what is known of a run by names alone, for a registry that does not list its tags: ECR has a permission
    of its own for that.
    """
    if reference == LATEST or not TAG.fullmatch(reference):
        return []
    has_identity = layout is not None and store_identity(layout)
    return find_unlisted(registry, reference, writers=[writer_name(layout)] if layout and has_identity else [])


def _refused(registry: Registry, refused: Sequence[WriterManifest], accepted: AcceptedWriters) -> WritersRefusedError:
    run_id = refused[0].log.run_id
    writers = "; ".join(part.writer.with_makers() for part in refused)
    reference = f"{registry.label}:{run_id}@sha256:DIGEST"
    return WritersRefusedError(
        f"`{run_id}` in {registry.label} was not written by a writer that is accepted here ({accepted}), "
        f"so nothing was used: it is by {writers}",
        hint=f"if you trust one of these, name it by its digest, {reference}, or accept branches: --writers BRANCH",
    )


def find_newest(
    registry: Registry, layout: Layout, accepts: Callable[[RunLog], bool], *, accepted: AcceptedWriters
) -> FoundRun | None:
    """Return the newest published run whose log fits, by accepted writers; what the store knows is not fetched."""
    for parts in newest_runs(registry, layout):
        with suppress(WritersRefusedError):
            found = _found(registry, parts, accepted, ())
            if accepts(found.log):
                return found
    return None


def take(
    layout: Layout,
    found: FoundRun,
    *,
    only_log: bool = False,
    watch: OnProgress | None = None,
    is_taken_over: bool = False,
) -> Pulled:
    """Copy a run that was found into the store, merged with what it already has; all content is verified.

    With `only_log` the content stays where it is, but for what the steps read, which a retry compares. One that is in
    progress stays so here, unless it `is_taken_over`. Raises
    `RunInUseError`, `UsageError` where another run here has the id, `RunLogError`, `StoreError`.
    """
    registry, parts, log = found.registry, found.parts, found.log
    require_same_run(layout, log, registry.label)
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
        elsewhere = None if is_taken_over else found.writer_now()
        note_writer(layout, log.run_id, elsewhere)
        others = import_log(layout, log, parts, conclude=elsewhere is None)
        write_origin(layout, log.run_id, origin)
    left = TransferSize.of(missing_blobs(layout, blobs.values()))
    return Pulled(log.run_id, len(parts), fetched, left, others, found.refused, found.unlisted, elsewhere)


def write_origin(layout: Layout, run_id: str, origin: Origin) -> None:
    """Note where content of a run is that the store need not have."""
    document = {"registry": origin.registry, "manifests": origin.manifests}
    path = run_folder(layout, run_id) / ORIGIN
    write_whole(path, with_check(json.dumps(document).encode()), through=layout.temporaries)


def read_origin(layout: Layout, run_id: str) -> Origin | None:
    """Return where a run was pulled from, None where it was not.

    Raises `RunLogError` for a note that cannot be read.
    """
    if not TAG.fullmatch(run_id) or not (path := run_folder(layout, run_id) / ORIGIN).exists():
        return None
    try:
        noted = parse_own(path.read_bytes())
        registry, manifests = noted["registry"], tuple(noted["manifests"])
        for manifest in manifests:
            Descriptor("", manifest, 0)
        return Origin(parse_reference(registry).repository, manifests)
    except (ValueError, KeyError, TypeError, UsageError, BlobCorruptError) as e:
        raise RunLogError(
            f"{path} is damaged", hint=f"remove it, then: {of_store(layout, 'pull', run_id, '--from', 'REGISTRY')}"
        ) from e


def seen_manifests(layout: Layout, run_id: str) -> tuple[str, ...]:
    """Return the digests of the published parts that make up what the store knows of a run; none where it has none."""
    if run_id not in run_ids(layout):
        return ()
    own = read_contributions(layout, run_id).published
    with suppress(ManifestNotFoundError):  # a run that is not sealed yet
        if (current := layout.resolve(run_id).digest) in own:
            return (current,)
    origin = read_origin(layout, run_id)
    return tuple(dict.fromkeys((*(origin.manifests if origin else ()), *own[-1:])))


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
        copied = copy(registry, manifest, layout, layer_filter=partial(_is_among, missing), progress=watch)
        for sent in (copied.sent, join_pieces(layout, registry, copied.manifest, missing)):
            fetched = TransferSize(fetched.blobs + sent.blobs, fetched.size_bytes + sent.size_bytes)
    return fetched


def _is_among(sizes: Mapping[str, int], descriptor: Descriptor) -> bool:
    """Return whether a layer is one that the log names: a log that understates a size gets nothing."""
    return sizes.get(descriptor.digest) == descriptor.size


def require_same_run(
    layout: Layout, log: RunLog, where: str, hint: str = "pull it into another folder: --store DIR"
) -> None:
    """Raise where the store has another run of the same id."""
    if log.run_id not in run_ids(layout):
        return
    here = load(layout, log.run_id)
    if run_identity(here) != run_identity(log):
        raise UsageError(
            f"`{log.run_id}` in {layout.label} is another run, {describe_beginning(manifest_annotations(here))}; "
            f"that in {where} was {describe_beginning(manifest_annotations(log))}; nothing was changed",
            hint=hint,
        )


def _renamed(log: RunLog, run_id: str) -> RunLog:
    renamed = log.model_copy(update={"run_id": run_id}, deep=True)
    for step in renamed.steps.values():
        for entries in (step.data_catalog, *(attempt.data_catalog for attempt in step.attempts)):
            for entry in entries:
                entry.catalog_relative_path = f"{run_id}/{entry.name}"
    return renamed


def import_log(layout: Layout, log: RunLog, parts: Sequence[WriterManifest], *, conclude: bool) -> list[Writer]:
    """Record a pulled run log, merged with what there is of the run here, and what came from which other writer."""
    noted = read_contributions(layout, log.run_id)
    here = _record(layout, log, conclude=conclude)
    now = noted.after_pull(here, [(part.writer, part.log) for part in parts], load(layout, log.run_id))
    if now != noted:
        write_contributions(layout, log.run_id, now)
    return [part.writer for part in parts if part.manifest.digest not in noted.published]


def _record(layout: Layout, log: RunLog, *, conclude: bool = True) -> RunLog | None:
    """Record a run log, merged with what there is of the run here; return the latter.

    What is in flight in it is over, since its process is gone, if that is to be concluded.
    """
    here = load(layout, log.run_id) if log.run_id in run_ids(layout) else None
    with reopen(layout, here or log, conclude=conclude) as recorder:
        if here is not None:
            # Before numbers may change: until then a file of output has its name by its attempt's number.
            recorder.seal(catalog_of(layout, recorder.log))
            here = recorder.log
            merged = merge([recorder.log, log])
            if merged != recorder.log:
                recorder.record(LogImported(run_log=merged))
        recorder.seal(catalog_of(layout, recorder.log))
    return here
