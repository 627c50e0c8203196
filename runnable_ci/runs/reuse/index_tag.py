"""The index of a branch's results in the registry of its runs, under a tag of its own.

Who decides on the steps of a run reads it by one request for each branch: the index stands in the manifest, unless it
is too large for that. Registries have no compare-and-swap, so a writer merges what is there with what is new, writes,
and looks again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from runnable_ci.errors import (
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    RegistryProtocolError,
    RunLogError,
    StoreError,
)
from runnable_ci.runs.remote.manifest_forms import TYPE, original_type
from runnable_ci.runs.remote.tag_record import REUSE_PREFIX
from runnable_ci.runs.reuse.index import (
    PACKED_MAX_BYTES,
    Index,
    OtherIndexVersionError,
    decode,
    within,
    without,
)
from runnable_ci.runs.reuse.tagged_manifest import tag_manifest
from runnable_ci.store.content_cache import ContentCache
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import (
    MANIFEST_ELEMENTS_MAX,
    Descriptor,
    manifest_parts,
    verified,
)
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.responses import TRIES

INDEX_TYPE = "application/vnd.runnable.reuse.v1+json"
INDEX_BLOB_TYPE = f"{INDEX_TYPE}+gzip"
INDEX_KEY = "vnd.runnable.reuse"
RUNS_KEY = "vnd.runnable.reuse.runs"
"""Of the manifest: the beginnings of the digests of runs' manifests of which all is in the index, or was."""
INLINE_MAX_BYTES = 2 * 1024 * 1024
"""Packed. As text in a manifest it is below the four MiB that registries take, and read by one request."""
RUNS_MAX = 500
_RUN_LENGTH = 12
_RUNS = re.compile(rf"(?:[0-9a-f]{{{_RUN_LENGTH}}} ?){{0,{RUNS_MAX}}}")
_NEWER = re.compile(r"application/vnd\.runnable\.reuse\.v(?!1\+)[0-9]+\+")
_WRITES = 3
_WAIT_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """An index as it is in a registry."""

    entries: Index = ()
    runs: tuple[str, ...] = ()
    """See `RUNS_KEY`; the newest last."""

    def has(self, manifest: str) -> bool:
        """Return whether what a run's manifest holds was taken in."""
        return _short(manifest) in self.runs

    def with_runs(self, manifests: Iterable[str]) -> StoredIndex:
        """Return the same with more runs' manifests."""
        runs = [*self.runs, *(short for it in manifests if (short := _short(it)) not in self.runs)]
        return replace(self, runs=tuple(runs[-RUNS_MAX:]))


def index_tag(branch: str) -> str:
    """Return the tag of a branch's index, which no run has: no run's tag begins so."""
    digest = hashlib.sha256(branch.encode(errors="replace")).hexdigest()[:12]
    word = re.sub(r"[^A-Za-z0-9_.]+", "-", branch)[:80]
    return f"{REUSE_PREFIX}{word}-{digest}"


def read_index(registry: Registry, branch: str, cache: ContentCache | None = None, *, tries: int = TRIES) -> Index:
    """Return the index of a branch, by one request; empty where there is none.

    It takes two where the registry refused it as one manifest. Raises `StoreError`, `OtherIndexVersionError`,
    `RunLogError` for one that cannot be used.
    """
    return _read(registry, index_tag(branch), cache, tries=tries).entries


def _read(
    registry: Registry, tag: str, cache: ContentCache | None = None, *, to_write: bool = False, tries: int = TRIES
) -> StoredIndex:
    where = f"the index {registry.label}:{tag}"
    try:
        manifest, raw = registry.manifest(tag, actions="pull,push" if to_write else "pull", tries=tries)
    except ManifestNotFoundError:
        return StoredIndex()
    annotations = _annotations(raw, where)
    noted = annotations.get(RUNS_KEY, "")
    runs = tuple(noted.split()) if isinstance(noted, str) and _RUNS.fullmatch(noted) else ()
    inline = annotations.get(INDEX_KEY)
    if isinstance(inline, str):
        try:
            packed = base64.b64decode(inline, validate=True)
        except ValueError as e:
            raise RunLogError(f"{where} cannot be read: {e}") from e
        return StoredIndex(decode(packed, where=where), runs)
    blobs = [it for it in manifest_parts(raw, manifest, label=registry.label) if original_type(it) == INDEX_BLOB_TYPE]
    if len(blobs) != 1 or blobs[0].size > PACKED_MAX_BYTES:
        raise RunLogError(f"{where} is none; it was not used")
    return StoredIndex(decode(_blob(registry, blobs[0], cache), where=where), runs)


Change = Callable[[StoredIndex], StoredIndex]
"""What a writer does to an index that it finds."""


def change_index(registry: Registry, branch: str, change: Change, cache: ContentCache | None = None) -> str:
    """Change the index of a branch; return why that was not possible, empty where it was.

    One that is damaged, or of an earlier version of the program, is replaced; that of a later version is left alone.
    """
    return _changed(registry, index_tag(branch), change, cache)


def forget_manifests(registry: Registry, manifests: Collection[str]) -> list[str]:
    """Take manifests that are gone out of all indexes of a registry; return what was not possible.

    Raises `StoreError` where its tags cannot be listed.
    """

    def change(there: StoredIndex) -> StoredIndex:
        return replace(there, entries=without(there.entries, manifests))

    tags = sorted(tag for tag in registry.tags() if tag.startswith(REUSE_PREFIX))
    return list(filter(None, (_changed(registry, tag, change) for tag in tags)))


def _changed(registry: Registry, tag: str, change: Change, cache: ContentCache | None = None) -> str:
    """Change an index: each try reads what is there, so that the next one proves it.

    Who had read before this one wrote, and writes after it, takes its change away without a sign of it. Such a writer
    takes about as long as this one: so it is waited for before the look, and by who was first the other one is found.
    """
    try:
        for _ in range(_WRITES):
            began = time.monotonic()
            there = _index_to_change(registry, tag, cache)
            wanted = change(there or StoredIndex())
            entries, packed = within(wanted.entries, INLINE_MAX_BYTES)
            wanted = replace(wanted, entries=entries)
            if wanted == there or not (wanted.entries or there):
                break
            _write(registry, tag, packed, wanted.runs)
            time.sleep(min(2 * (time.monotonic() - began), _WAIT_MAX_S))
    except (StoreError, OtherIndexVersionError) as e:
        return f"the index of results that others may reuse was not updated: {e.message}"
    return ""


def _index_to_change(registry: Registry, tag: str, cache: ContentCache | None) -> StoredIndex | None:
    """Return what there is; None where it is to be replaced."""
    try:
        return _read(registry, tag, cache, to_write=True)
    except OtherIndexVersionError:
        raise
    except (RunLogError, RegistryAuthError, BlobMissingError):  # some refuse to look at what is not there yet
        return None


def _annotations(raw: bytes, where: str) -> Mapping[str, Any]:
    """Return those of an index's manifest. Raises `OtherIndexVersionError` for a later version's."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        parsed = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)
        found = parsed.get("annotations")
        annotations = found if isinstance(found, dict) else {}
        if _NEWER.match(str(parsed.get("artifactType") or annotations.get(TYPE) or "")):
            raise OtherIndexVersionError.of(where)
        return annotations
    return {}


def _blob(registry: Registry, blob: Descriptor, cache: ContentCache | None) -> bytes:
    known = cache.read(blob) if cache else None
    if known is not None:
        return known
    with registry.fetch(blob) as source:
        content = b"".join(verified(source, blob, label=registry.label))
    if cache:
        cache.keep(blob, content, at_most=PACKED_MAX_BYTES)
        cache.trim()
    return content


def _write(registry: Registry, tag: str, packed: bytes, runs: Sequence[str]) -> None:
    """Write an index into the manifest that a tag points to; as a blob where that is refused."""
    noted = {RUNS_KEY: " ".join(runs)} if runs else {}
    with suppress(RegistryProtocolError):
        tag_manifest(registry, tag, INDEX_TYPE, {INDEX_KEY: base64.b64encode(packed).decode(), **noted})
        return
    blob = Descriptor.of_hash(hashlib.sha256(packed).hexdigest(), len(packed), INDEX_BLOB_TYPE)
    registry.push(blob, io.BytesIO(packed))
    tag_manifest(registry, tag, INDEX_TYPE, noted, [blob])


def _short(manifest: str) -> str:
    return manifest.partition(":")[2][:_RUN_LENGTH]
