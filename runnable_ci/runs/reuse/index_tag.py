"""The index of a branch's results in the registry of its runs, under a tag of its own.

Who decides on the steps of a run reads it by one request for each branch: the index stands in the manifest, unless it
is too large for that. Registries have no compare-and-swap, so a writer merges what is there with what is new, writes,
and looks again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from runnable_ci.errors import (
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    RegistryProtocolError,
    RunLogError,
    StoreError,
)
from runnable_ci.runs.artifact import EMPTY_CONFIG
from runnable_ci.runs.remote.tag_record import REUSE_PREFIX
from runnable_ci.runs.reuse.index import (
    PACKED_MAX_BYTES,
    Change,
    Index,
    OtherIndexVersionError,
    decode,
    encode,
    without,
)
from runnable_ci.store.content_cache import ContentCache
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import (
    MANIFEST_ELEMENTS_MAX,
    MANIFEST_MEDIA_TYPE,
    Descriptor,
    manifest_parts,
    verified,
)
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.responses import TRIES

INDEX_TYPE = "application/vnd.runnable.reuse.v1+json"
INDEX_BLOB_TYPE = f"{INDEX_TYPE}+gzip"
INDEX_KEY = "vnd.runnable.reuse"
INLINE_MAX_BYTES = 2 * 1024 * 1024
"""Packed; as text in a manifest it is below the four MiB that registries take, with room to spare."""
_WRITES = 3
_WAIT_MAX_S = 1.0


def index_tag(branch: str) -> str:
    """Return the tag of a branch's index, which no run has: no run's tag begins so."""
    digest = hashlib.sha256(branch.encode(errors="replace")).hexdigest()[:12]
    word = re.sub(r"[^A-Za-z0-9_.]+", "-", branch)[:80]
    return f"{REUSE_PREFIX}{word}-{digest}"


def read_index(registry: Registry, branch: str, cache: ContentCache | None = None, *, tries: int = TRIES) -> Index:
    """Return the index of a branch, by one request, or two; empty where there is none.

    Raises `StoreError`, `OtherIndexVersionError`, `RunLogError` for one that cannot be used.
    """
    return _read(registry, index_tag(branch), cache, tries=tries)


def _read(
    registry: Registry, tag: str, cache: ContentCache | None = None, *, to_write: bool = False, tries: int = TRIES
) -> Index:
    where = f"the index {registry.label}:{tag}"
    try:
        manifest, raw = registry.manifest(tag, actions="pull,push" if to_write else "pull", tries=tries)
    except ManifestNotFoundError:
        return ()
    inline = _annotations(raw).get(INDEX_KEY)
    if isinstance(inline, str):
        try:
            packed = base64.b64decode(inline, validate=True)
        except ValueError as e:
            raise RunLogError(f"{where} cannot be read: {e}") from e
        return decode(packed, where=where)
    blobs = [it for it in manifest_parts(raw, manifest, label=registry.label) if it.media_type == INDEX_BLOB_TYPE]
    if len(blobs) != 1 or blobs[0].size > PACKED_MAX_BYTES:
        raise RunLogError(f"{where} is none; it was not used")
    return decode(_blob(registry, blobs[0], cache), where=where)


def change_index(registry: Registry, branch: str, change: Change, cache: ContentCache | None = None) -> str:
    """Change the index of a branch; return why that was not possible, empty where it was.

    An index that is damaged is replaced, that of another version of the program is left alone.
    """
    return _changed(registry, index_tag(branch), change, cache)


def forget_manifests(registry: Registry, manifests: Collection[str]) -> list[str]:
    """Take manifests that are gone out of all indexes of a registry; return what was not possible.

    Raises `StoreError` where its tags cannot be listed.
    """
    tags = sorted(tag for tag in registry.tags() if tag.startswith(REUSE_PREFIX))
    return list(filter(None, (_changed(registry, tag, lambda it: without(it, manifests)) for tag in tags)))


def _changed(registry: Registry, tag: str, change: Change, cache: ContentCache | None = None) -> str:
    """Change an index: each try reads what is there, so that the next one proves it.

    Who had read before this one wrote, and writes after it, takes its change away without a sign of it. Such a writer
    takes about as long as this one: so it is waited for before the look, and by who was first the other one is found.
    """
    try:
        for _ in range(_WRITES):
            began = time.monotonic()
            there = _index_to_change(registry, tag, cache)
            wanted = change(there or ())
            if wanted == there or not (wanted or there):
                break
            _write(registry, tag, encode(wanted))
            time.sleep(min(2 * (time.monotonic() - began), _WAIT_MAX_S))
    except (StoreError, OtherIndexVersionError) as e:
        return f"the index of results that others may reuse was not updated: {e.message}"
    return ""


def _index_to_change(registry: Registry, tag: str, cache: ContentCache | None) -> Index | None:
    """Return what there is; None where it is to be replaced."""
    try:
        return _read(registry, tag, cache, to_write=True)
    except OtherIndexVersionError:
        raise
    except (RunLogError, RegistryAuthError, BlobMissingError):  # some refuse to look at what is not there yet
        return None


def _annotations(raw: bytes) -> Mapping[str, Any]:
    with suppress(ValueError, KeyError, TypeError):
        found = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)["annotations"]
        return found if isinstance(found, dict) else {}
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


def _write(registry: Registry, tag: str, packed: bytes) -> None:
    """Write an index into the manifest that a tag points to; as a blob where that is too large, or refused."""
    if len(packed) <= INLINE_MAX_BYTES:
        with suppress(RegistryProtocolError):
            _tag(registry, tag, [EMPTY_CONFIG], {INDEX_KEY: base64.b64encode(packed).decode()})
            return
    blob = Descriptor.of_hash(hashlib.sha256(packed).hexdigest(), len(packed), INDEX_BLOB_TYPE)
    registry.push(blob, io.BytesIO(packed))
    _tag(registry, tag, [blob], {})


def _tag(registry: Registry, tag: str, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> None:
    """Point a tag to a new manifest. Raises `StoreError`."""
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": INDEX_TYPE,
            "config": _json(EMPTY_CONFIG),
            "layers": [_json(layer) for layer in layers],
            **({"annotations": dict(annotations)} if annotations else {}),
        }
    ).encode()
    manifest = Descriptor.of_hash(hashlib.sha256(raw).hexdigest(), len(raw), MANIFEST_MEDIA_TYPE)
    try:
        registry.tag(manifest, tag, raw)
    except BlobMissingError:  # a run that was sent as an image has no empty config
        registry.push(EMPTY_CONFIG, io.BytesIO(b"{}"))
        registry.tag(manifest, tag, raw)


def _json(blob: Descriptor) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
