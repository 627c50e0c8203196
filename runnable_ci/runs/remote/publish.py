"""How a run goes to a registry, under an id that is its own there.

Who publishes another run under an id is refused, and nothing is changed. Tags have no compare-and-swap, so the id is
looked at before anything is sent and again once both tags are written: of two runs that are published at the same
moment, at least the later writer of a tag sees the other's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from runnable_ci.errors import (
    ManifestNotFoundError,
    ManifestRefusedError,
    RegistryAuthError,
    RegistryProtocolError,
    StoreError,
    UsageError,
)
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.runs.artifact import TITLE, layers, manifest_annotations
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import run_folder, shared
from runnable_ci.runs.reader import load, suggest_pull
from runnable_ci.runs.recorder import ensure_sealed
from runnable_ci.runs.remote.contributions import note_published
from runnable_ci.runs.remote.derived import derive
from runnable_ci.runs.remote.manifest_forms import FORMS
from runnable_ci.runs.remote.published_content import SEPARATOR
from runnable_ci.runs.remote.pull import OnProgress, missing_blobs
from runnable_ci.runs.remote.remote_index import Occupant, find_occupant, find_occupants, find_published
from runnable_ci.runs.remote.tag_record import (
    ATTEMPT_PREFIX,
    BRANCH_PREFIX,
    RECORD_TAG,
    REUSE_PREFIX,
    RecordedTag,
    note_tags,
)
from runnable_ci.runs.reuse.held_contents import fetch_held, note_own, origins_of
from runnable_ci.runs.run_identity import IDENTITY, describe_beginning
from runnable_ci.store.copy import CopyResult, TransferSize, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.store_identity import WRITER_LENGTH, writer_name
from runnable_ci.store.target import Descriptor
from runnable_ci.util.console import is_actions
from runnable_ci.util.files import locked
from runnable_ci.util.threads import LateError, within

TAG_MAX = 128
PUBLISH_LOCK = "publish.lock"


class IdTakenError(UsageError):
    """Another run has the id in the registry; nothing of it was changed."""


@dataclass(frozen=True, slots=True)
class Published:
    """Where a run stands now."""

    reference: str
    """`HOST/REPOSITORY:RUN_ID@DIGEST`."""
    manifest: Descriptor
    sent: TransferSize | None
    """What had to be sent; None where the run stood there already."""
    notes: Sequence[str] = ()
    """What is not as usual there."""


def publish(
    layout: Layout,
    run_id: str,
    registry: Registry,
    *,
    environ: Mapping[str, str],
    watch: OnProgress | None = None,
    limit_s: float | None = None,
    open_registry: Callable[[str], Registry] | None = None,
) -> Published:
    """Copy the run to the registry, sealing it first if needed. An unchanged one costs a request.

    What it took from runs of the same registry need not be here; from others it is fetched first, by `open_registry`.
    The plain tag goes first, as the writer's own proves that all is there. Raises `RunInUseError`, `UsageError` for a
    run id that leaves no room for the writer, `IdTakenError` for one that another run has there, `StoreError`, also
    after `limit_s` seconds: who is going to be killed can say before that what became of the run.
    """
    work = partial(_publish, layout, run_id, registry, environ=environ, watch=watch, open_registry=open_registry)
    if limit_s is None:
        return work()
    try:
        return within(work, limit_s=limit_s, name="publish")
    except LateError as error:
        raise StoreError(
            f"{registry.label} did not take the run within {limit_s:.0f} s, all that a cancelled job has for it",
            hint="what was sent whole is kept there; publishing the run again sends the rest",
        ) from error


def _publish(
    layout: Layout,
    run_id: str,
    registry: Registry,
    *,
    environ: Mapping[str, str],
    watch: OnProgress | None,
    open_registry: Callable[[str], Registry] | None,
) -> Published:
    tag = writers_tag(layout, run_id, environ)
    with shared(layout), one_publisher(layout, run_id):
        layout.sweep()  # a publish that was killed may have left the beginning of a file
        ensure_sealed(layout, run_id)
        own = layout.resolve(run_id)
        sent, notes = None, list[str]()
        manifest = find_published(registry, tag, own)
        if manifest is None:
            log = load(layout, run_id)
            mine = manifest_annotations(log)
            is_known = require_own_id(layout, registry, mine)
            held = held_there(layout, log, registry, open_registry)
            with suggest_pull(layout, run_id):
                base = held._replace(manifests=[run_id, tag, *held.manifests])
                copied = send(layout, own, registry, base, watch)
            sent, manifest = copied.sent, copied.manifest
            if manifest.digest != own.digest:
                notes.append(f"{registry.label} takes no such artifact or blob: the run's digest is another one there")
            if not is_known:  # to send it took time enough for another one to come first
                require_own_id(layout, registry, mine)
            note_published(layout, run_id, manifest.digest, registry.label)
            note_own(layout, run_id, registry.label, manifest.digest)
            where = RecordedTag.of(manifest, mine)
            if is_known:  # before the tags are moved, so that none is ever believed to be where it was
                note_tags(registry, dict.fromkeys((run_id, tag), where), learn=False)
            points = _tag(registry, manifest, run_id, tag)
            if not points[run_id]:
                notes.append(f"{registry.label} lets no tag be moved: `{run_id}` is what was published first of it")
            if not is_known:
                withdraw_later(layout, registry, mine, tag)
            note_tags(registry, {one: where if points[one] else None for one in points}, learn=not is_known)
    return Published(f"{registry.label}:{run_id}@{manifest.digest}", manifest, sent, notes)


class HeldElsewhere(NamedTuple):
    """What of a run a registry has, or was just given, without this store."""

    manifests: Sequence[str] = ()
    blobs: Sequence[str] = ()


def held_there(
    layout: Layout,
    log: RunLog,
    registry: Registry,
    open_registry: Callable[[str], Registry] | None,
    sent: Container[str] = (),
) -> HeldElsewhere:
    """Return what a registry holds of a run's contents; what only others have is taken over there, or fetched.

    But not what was `sent`, by digest: that the registry has had since.
    """
    origins = origins_of(layout, log.run_id)
    manifests = [manifest for it in origins if it.registry == registry.label for manifest in it.manifests]
    others = [it for it in origins if it.registry != registry.label]
    mounted: list[Descriptor] = []
    if others and open_registry is not None:
        missing = missing_blobs(layout, layers(log).values())
        contents = {blob.digest: blob for blob in missing if blob.digest not in sent}
        host = parse_reference(registry.label).host
        for source in (parse_reference(it.registry) for it in others):
            if source.host == host and contents:
                mounted += registry.mount(contents.values(), source)
                contents = {digest: blob for digest, blob in contents.items() if blob not in mounted}
        fetch_held(layout, others, contents.values(), open_registry)
    return HeldElsewhere(manifests, [blob.digest for blob in mounted])


def send(
    layout: Layout, own: Descriptor, registry: Registry, held: HeldElsewhere, watch: OnProgress | None
) -> CopyResult:
    """Copy a manifest in the first form that the registry takes: as it is, with the config of an image, as an image."""
    for place, form in enumerate(FORMS):
        source = derive(layout, own, blob_max_bytes=registry.blob_max_bytes, form=form)
        try:
            digest, there = source.derived.digest, held.blobs
            return copy(source, digest, registry, base_tags=held.manifests, there=there, progress=watch)
        except ManifestRefusedError:
            if place == len(FORMS) - 1:
                raise
    raise AssertionError("the last form returns or raises")


def require_own_id(layout: Layout, registry: Registry, mine: Mapping[str, str]) -> bool:
    """Return whether the registry holds the run already, whose manifest has the annotations `mine`.

    Raises `IdTakenError` where its id belongs to another run, `StoreError`.
    """
    run_id = mine[TITLE]
    found = find_occupant(registry, run_id)
    others = [found] if found is not None else find_occupants(registry, run_id)
    for other in others:
        if other.identity != mine[IDENTITY]:
            raise _taken(layout, registry, mine, other)
    return found is not None


def withdraw_later(layout: Layout, registry: Registry, mine: Mapping[str, str], tag: str) -> None:
    """Withdraw a run that was published as the first of its id, where another one was at the same moment.

    The plain tag decides, as both see the same there: both have written it before either sees the other's `tag`.
    That of the run which lost it then points to the other one. Raises `IdTakenError` for it, `StoreError`.
    """
    run_id = mine[TITLE]
    if all(other.identity == mine[IDENTITY] for other in find_occupants(registry, run_id)):
        return
    winner = find_occupant(registry, run_id)
    if winner is not None and winner.identity != mine[IDENTITY]:
        moved(registry, winner.manifest, tag)
        raise _taken(layout, registry, mine, winner)


def _tag(registry: Registry, manifest: Descriptor, run_id: str, tag: str) -> dict[str, bool]:
    """Point the plain tag and the writer's, or another of the same writer, to a manifest; return which point there."""
    points = {one: moved(registry, manifest, one) for one in (run_id, tag)}
    if not points[tag]:
        another = f"{tag[: TAG_MAX - 9]}-{manifest.hex[:8]}"
        registry.tag(manifest, another)
        points[another] = True
    return points


def moved(registry: Registry, manifest: Descriptor, tag: str, raw: bytes | None = None) -> bool:
    """Point a tag to a manifest; False where it stays with another one: some registries have immutable tags.

    With its `raw` bytes it need not be there.

    They refuse by 400, 403, 405, 409 or 412, so what counts is where the tag points afterwards. Raises `StoreError`.
    """
    try:
        registry.tag(manifest, tag, raw)
    except (RegistryAuthError, RegistryProtocolError):
        points_to = _remote_digest(registry, tag)
        if not points_to:
            raise
        return points_to == manifest.digest
    return True


def _taken(layout: Layout, registry: Registry, mine: Mapping[str, str], other: Occupant) -> IdTakenError:
    run_id, http = mine[TITLE], http_option(registry.plain_http)
    return IdTakenError(
        f"`{run_id}` in {registry.label} is another run, {describe_beginning(other.annotations)}; "
        f"the one here was {describe_beginning(mine)}; nothing there was changed",
        hint=of_store(layout, "publish", run_id, "--as", "OTHER_ID", "--to", registry.label, *http),
    )


@contextmanager
def one_publisher(layout: Layout, run_id: str) -> Iterator[None]:
    """Prevent other processes from publishing the run from this store in the block."""
    folder = run_folder(layout, run_id)
    folder.mkdir(parents=True, exist_ok=True)  # a run that came by another client has none
    with locked(folder / PUBLISH_LOCK):
        yield


def _remote_digest(registry: Registry, tag: str) -> str:
    try:
        return registry.resolve(tag, to_write=True).digest
    except (ManifestNotFoundError, RegistryAuthError):  # some registries refuse to look at what there is not yet
        return ""


def writers_tag(layout: Layout, run_id: str, environ: Mapping[str, str]) -> str:
    """Return the tag that only this store, or this job, moves. Raises `UsageError` for a run id that is too long."""
    require_room(run_id, environ)
    # A copy of the store is another writer: the number of the file and the name of the machine tell them apart.
    return f"{run_id}{SEPARATOR}{job_prefix(environ)}{writer_name(layout)}"


def require_room(run_id: str, environ: Mapping[str, str]) -> None:
    """Raise `UsageError` for a run id that leaves no room for its writer in a tag, or is the tag of something else."""
    if run_id == RECORD_TAG or run_id.startswith((BRANCH_PREFIX, REUSE_PREFIX, ATTEMPT_PREFIX)):
        hint = "publish it under another id: --as OTHER_ID"
        raise UsageError(f"the run id {run_id} cannot be published: such tags are no runs'", hint=hint)
    most = TAG_MAX - len(SEPARATOR + job_prefix(environ)) - WRITER_LENGTH
    if len(run_id) > most:
        raise UsageError(
            f"the run id {run_id} is too long to be published: it has {len(run_id)} characters",
            hint=f"at most {most}: publish it under another id, --as OTHER_ID",
        )


def job_prefix(environ: Mapping[str, str]) -> str:
    """Return what a writer's name begins with in a job: the jobs of a matrix differ in nothing of it."""
    if not is_actions(environ):
        return ""
    job = [environ.get(f"GITHUB_{name}", "") for name in ("RUN_ID", "JOB", "RUN_ATTEMPT")]
    return "-".join(["gh", *(re.sub(r"[^A-Za-z0-9_.]+", "-", word)[:24] for word in job), ""])
