"""The one transfer, between any two stores: blobs first, the manifest next, the tag last.

A copy that is broken off at any moment leaves the tag as it was, and the blobs that arrived whole are not sent again.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, cast

from runnable_ci.errors import BlobMissingError, ManifestNotFoundError, RegistryAuthError, StoreError
from runnable_ci.store.blobs import WatchedStream
from runnable_ci.store.target import (
    TAG,
    Descriptor,
    Target,
    ValidatesManifests,
    manifest_parts,
    read_manifest,
)
from runnable_ci.util.threads import map_all

JOBS = 16
# Below this, sending a blob that is there already costs no more than asking whether it is.
SMALL_BYTES = 64 * 1024
ASK_FIRST = 16


@dataclass(frozen=True, slots=True)
class TransferSize:
    """So many blobs of so many bytes together."""

    blobs: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, descriptors: Collection[Descriptor]) -> TransferSize:
        """Return the amount of these blobs."""
        return cls(len(descriptors), sum(descriptor.size for descriptor in descriptors))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is."""

    done: TransferSize
    """Blobs that the target has by now; bytes include those of blobs under way."""
    total: TransferSize


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy did; the manifest itself is not counted."""

    manifest: Descriptor
    sent: TransferSize
    there: TransferSize
    """Already at the target."""
    left: TransferSize
    """Not asked for by `layer_filter`."""


def copy(
    source: Target,
    reference: str,
    target: Target,
    *,
    as_reference: str | None = None,
    base_tags: Sequence[str] = (),
    there: Collection[str] = (),
    layer_filter: Callable[[Descriptor], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> CopyResult:
    """Copy the manifest that `reference` points to at this moment, and its blobs; return what was done.

    The tag at the target is `as_reference`, else `reference` if that is a tag, else none. `base_tags` point to earlier
    manifests in the target that share blobs with this one, `there` are digests of blobs that it was just seen to hold:
    these need no request. `layer_filter` says which layers to copy (the config always is). `progress` is called from
    many threads, one at a time. Raises `StoreError` with what went wrong on which side, `ManifestNotFoundError`.
    """
    manifest = source.resolve(reference)
    raw = _manifest_bytes(source, manifest)
    manifest = replace(manifest, size=len(raw))  # a registry may have announced another one
    config, *layers = manifest_parts(raw, manifest, label=source.label)
    wanted = {layer.digest: layer for layer in layers if layer_filter is None or layer_filter(layer)} | {
        config.digest: config
    }
    left = {layer.digest: layer for layer in layers if layer.digest not in wanted}
    tag = as_reference or (reference if TAG.fullmatch(reference) else None)

    transfer = _Transfer(source, target, wanted.values(), progress)
    known: frozenset[str] = frozenset()
    if isinstance(target, ValidatesManifests):
        current = _resolved(target, tag)
        if current is not None and current.digest == manifest.digest:
            held, rest = TransferSize.of(wanted.values()), TransferSize.of(left.values())
            return CopyResult(manifest, TransferSize(), held, rest)
        known = _digests(target, [current, *(_resolved(target, earlier) for earlier in base_tags)]).union(there)
    transfer.skip(known)
    transfer.run([blob for blob in wanted.values() if blob.digest not in known])
    doubts = [wanted.keys(), known]  # what the target's answers, and before those earlier manifests, promised
    while not _is_taken(target, manifest, raw, is_last=not doubts):
        doubted = doubts.pop()
        transfer.repeat([blob for blob in wanted.values() if blob.digest in doubted], ask=bool(doubts))
    if tag is not None:
        target.tag(manifest, tag)
    unsent = TransferSize.of([blob for blob in wanted.values() if blob.digest not in transfer.sent])
    return CopyResult(manifest, TransferSize.of(transfer.sent.values()), unsent, TransferSize.of(left.values()))


class _Transfer:
    """The blobs of one copy on their way."""

    def __init__(
        self,
        source: Target,
        target: Target,
        blobs: Collection[Descriptor],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.sent: dict[str, Descriptor] = {}
        self._source = source
        self._target = target
        self._total = TransferSize.of(blobs)
        self._sizes = {blob.digest: blob.size for blob in blobs}
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._asks = True
        self._asked = 0
        self._found = 0
        self._done_blobs = 0
        self._done_bytes = 0

    def skip(self, digests: Collection[str]) -> None:
        """Count blobs as done that need not be looked at."""
        there = [size for digest, size in self._sizes.items() if digest in digests]
        self._advance(len(there), sum(there))

    def repeat(self, blobs: Collection[Descriptor], *, ask: bool) -> None:
        """Copy those blobs that were counted as done without being sent, perhaps without asking for them."""
        self._asks, unsent = ask, [blob for blob in blobs if blob.digest not in self.sent]
        self._advance(-len(unsent), -sum(blob.size for blob in unsent))
        self.run(unsent)

    def run(self, blobs: Collection[Descriptor]) -> None:
        """Copy all of them to the target, the largest first; the first failure stops the others."""
        in_order = sorted(blobs, key=lambda blob: blob.size, reverse=True)
        map_all(self._one, in_order, jobs=JOBS, name="copy", on_failure=self._stop.set)

    def _one(self, blob: Descriptor) -> None:
        with _naming_both_sides(self._source, self._target, blob):
            if self._is_there(blob):
                self._advance(1, blob.size)
                return
            with self._source.fetch(blob) as content:
                self._target.push(
                    blob, cast("BinaryIO", WatchedStream(content, self._stop.is_set, partial(self._advance, 0)))
                )
        with self._lock:
            self.sent[blob.digest] = blob
        self._advance(1, 0)

    def _is_there(self, blob: Descriptor) -> bool:
        """Ask the target, unless the blob is small and none that was asked for was there."""
        if not self._asks or (blob.size <= SMALL_BYTES and self._asked >= ASK_FIRST and not self._found):
            return False
        there = self._target.exists(blob)
        with self._lock:
            self._asked += 1
            self._found += there
        return there

    def _advance(self, blobs: int, size_bytes: int) -> None:
        with self._lock:
            self._done_blobs += blobs
            self._done_bytes += size_bytes
            if self._progress is not None:
                self._progress(Progress(TransferSize(self._done_blobs, self._done_bytes), self._total))


@contextmanager
def _naming_both_sides(source: Target, target: Target, blob: Descriptor) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        message = f"{error.message} (copying from {source.label} to {target.label})"
        raise type(error)(message, hint=error.hint, fix=error.fix) from error
    except OSError as error:
        raise StoreError(
            f"{blob.digest} cannot be copied from {source.label} to {target.label}: {error.strerror or error}"
        ) from error


def _manifest_bytes(target: Target, manifest: Descriptor) -> bytes:
    with target.fetch(manifest) as content:
        return read_manifest(content, manifest, label=target.label)


def _is_taken(target: Target, manifest: Descriptor, raw: bytes, *, is_last: bool) -> bool:
    """Push a manifest; False where the target lacks a blob of it, raised on the last try."""
    try:
        target.push(manifest, io.BytesIO(raw))
    except BlobMissingError:
        if is_last:
            raise
        return False
    return True


def _resolved(target: Target, tag: str | None) -> Descriptor | None:
    try:
        return None if tag is None else target.resolve(tag)
    except (ManifestNotFoundError, RegistryAuthError):  # some registries refuse to look at what there is not yet
        return None


def _digests(target: Target, manifests: Collection[Descriptor | None]) -> frozenset[str]:
    """Return digests that the target must have, as it took in these manifests."""
    found: set[str] = set()
    for manifest in manifests:
        if manifest is None:
            continue
        try:
            parts = manifest_parts(_manifest_bytes(target, manifest), manifest, label=target.label)
        except StoreError:
            continue  # it would only have spared requests, and copying over what is damaged repairs it
        found.update(part.digest for part in parts)
    return frozenset(found)
