"""What goes by a registry between two machines that share no folder: a document, and the contents that it names.

Each parcel has a tag of its own, which is no run's. Who opens one knows its digest, or a key that its writer had too:
whatever else is in the registry is not believed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.errors import BlobCorruptError, BlobMissingError, ManifestNotFoundError, StoreError
from runnable_ci.runs.artifact import EMPTY, EMPTY_CONFIG
from runnable_ci.runs.live.segments import LiveSource
from runnable_ci.runs.remote.manifest_forms import original_type
from runnable_ci.runs.remote.publish import HeldElsewhere, send
from runnable_ci.runs.remote.pull import Origin, fetch, missing_blobs
from runnable_ci.runs.remote.tag_record import ATTEMPT_PREFIX
from runnable_ci.runs.run_identity import CREATED
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import DIGEST, MANIFEST_MEDIA_TYPE, Descriptor, manifest_parts, verified
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.clock import now

_TYPE: Final = "application/vnd.runnable.attempt.v1+json"
_DOCUMENT_TYPE: Final = "application/vnd.runnable.attempt.document.v1"
_DOCUMENT_MAX_BYTES: Final = 256 << 20
_SEAL_BYTES: Final = 64
_NAMED_MAX: Final = 60


class Parcel(NamedTuple):
    """A parcel in a registry."""

    registry: Registry
    manifest: Descriptor
    document: bytes
    sizes: Mapping[str, int]
    """Digest of each of its blobs → size."""

    def bring(self, layout: Layout, wanted: Iterable[Descriptor]) -> None:
        """Have these of its contents in a store, verified. Raises `StoreError`."""
        blobs = list(wanted)
        fetch(layout, self.registry, Origin(self.registry.label, (self.manifest.digest,)), blobs)
        if missing := missing_blobs(layout, blobs):
            raise BlobMissingError(f"{self.registry.label} lacks {missing[0].digest} of an attempt")


def tags_of(run_id: str, worker: str) -> tuple[str, str]:
    """Return the tags of what a worker gets for an attempt, and of what it sends back."""
    own = f"{ATTEMPT_PREFIX}{run_id[:_NAMED_MAX]}-{hashlib.sha256(f'{run_id} {worker}'.encode()).hexdigest()[:16]}"
    return f"{own}-letter", f"{own}-answer"


def post(
    layout: Layout,
    registry: Registry,
    tag: str,
    document: bytes,
    contents: Iterable[Descriptor],
    *,
    files: Mapping[str, Path],
) -> Descriptor:
    """Send a document with contents of a store, or `files` by their digests; the manifest. Raises `StoreError`."""
    named = Descriptor.of_hash(hashlib.sha256(document).hexdigest(), len(document), _DOCUMENT_TYPE)
    blobs = {blob.digest: blob for blob in contents}
    layers = [named, *blobs.values()]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": _TYPE,
        "config": _json(EMPTY_CONFIG),
        "layers": [_json(layer) for layer in layers],
        "annotations": {CREATED: now()},
    }
    raw = json.dumps(manifest).encode()
    own = Descriptor.of_hash(hashlib.sha256(raw).hexdigest(), len(raw), MANIFEST_MEDIA_TYPE)
    made = {EMPTY_CONFIG.digest: EMPTY, named.digest: document, own.digest: raw}
    sent = send(LiveSource(layout, own, raw, made, files), own, registry, HeldElsewhere(), None).manifest
    registry.tag(sent, tag)
    return sent


def old_parcels(registry: Registry, *, before: str) -> list[Descriptor]:
    """Return the manifests of parcels that were sent before a moment: nobody read them, or they could not be removed.

    Raises `StoreError`.
    """
    found: dict[str, Descriptor] = {}
    for tag in registry.tags():
        if tag.startswith(ATTEMPT_PREFIX):
            with suppress(StoreError, ValueError, KeyError, TypeError):  # gone by now, or not sent by this program
                manifest, raw = registry.manifest(tag)
                if str(parse_json(raw)["annotations"][CREATED]) < before:
                    found[manifest.digest] = manifest
    return list(found.values())


def find_parcel(registry: Registry, reference: str) -> Parcel | None:
    """Return what a tag or a digest points to; None where there is nothing. Raises `StoreError` for what is none."""
    label = f"{registry.label}:{reference}"
    try:
        manifest, raw = registry.manifest(reference)
    except ManifestNotFoundError:
        return None
    if hashlib.sha256(raw).hexdigest() != manifest.hex or (
        DIGEST.fullmatch(reference) and reference != manifest.digest
    ):
        raise BlobCorruptError(f"{label} does not match its digest")
    parts = manifest_parts(raw, manifest, label=registry.label)
    documents = [part for part in parts if original_type(part) == _DOCUMENT_TYPE]
    if len(documents) != 1 or documents[0].size > _DOCUMENT_MAX_BYTES:
        raise StoreError(f"{label} is not of an attempt")
    with registry.fetch(documents[0]) as source:
        document = b"".join(verified(source, documents[0], label=registry.label))
    return Parcel(registry, manifest, document, {part.digest: part.size for part in parts})


def sealed(document: bytes, key: str) -> bytes:
    """Return a document that only who knows the key can have made."""
    return _seal(document, key) + document


def unsealed(document: bytes, key: str, where: str) -> bytes:
    """Return what was sealed. Raises `StoreError` where it was not, by who knows the key."""
    content = document[_SEAL_BYTES:]
    if not hmac.compare_digest(document[:_SEAL_BYTES], _seal(content, key)):
        raise StoreError(f"{where} was not written by the worker of the attempt: it was not used")
    return content


def _seal(document: bytes, key: str) -> bytes:
    return hmac.new(key.encode(), document, hashlib.sha256).hexdigest().encode()


def _json(blob: Descriptor) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
