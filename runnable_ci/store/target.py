"""The one interface of all stores; the one transfer is in `copy.py`.

A target holds blobs by digest and manifests by tag: a folder (`layout.py`) or a registry (`registry.py`).
Nothing read from a target is trusted: `verified` is the only way from a target's stream to bytes that are used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Literal, Protocol, Self, runtime_checkable

from runnable_ci.errors import BlobCorruptError
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.threads import Background

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_MEDIA_TYPES = (MANIFEST_MEDIA_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
BLOB_MEDIA_TYPE = "application/octet-stream"
INDEX_MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
MANIFEST_ELEMENTS_MAX = 300_000
CHUNK_BYTES = 1024 * 1024
# A larger blob is hashed by a second thread, while the first one waits for the network or the disk.
HASHED_ASIDE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by its digest. Source: OCI image-spec v1.1.1, descriptor.md.

    `digest` is always `sha256:` and 64 hex digits, `size` is in bytes: anything else raises `BlobCorruptError`,
    so that no other form ever reaches a URL or a path.
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.digest):
            raise BlobCorruptError(f"{self.digest[:100]!r} is not a digest", hint="only sha256 digests are accepted")
        if self.size < 0:
            raise BlobCorruptError(f"{self.digest} has the invalid size {self.size}")

    @classmethod
    def of_hash(cls, data_hash: str, size: int, media_type: str = BLOB_MEDIA_TYPE) -> Self:
        """Return the descriptor of content as the run log names it: by its sha256 in hex digits."""
        return cls(media_type, f"sha256:{data_hash}", size)

    @property
    def hex(self) -> str:
        """The digest without its algorithm, as the run log writes it."""
        return self.digest.removeprefix("sha256:")


class Target(Protocol):
    """A place for blobs and tagged manifests. Model: `Target` of the ORAS libraries."""

    @property
    def label(self) -> str:
        """How an error message names this side."""

    def resolve(self, reference: str) -> Descriptor:
        """Return the manifest that a tag or digest points to; `ManifestNotFoundError` where there is none."""

    def tags(self) -> Iterator[str]:
        """Return all tags, in no particular order."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Return whether the content is there (its bytes are not checked)."""

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the stored bytes, unchecked: read them through `verified`. `BlobMissingError` where there are none."""

    def push(self, descriptor: Descriptor, content: BinaryIO) -> None:
        """Store a blob or (by its media type) a manifest, refusing bytes that do not match the descriptor."""

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Point a tag to a manifest that is already stored, replacing its target."""


@runtime_checkable
class ValidatesManifests(Protocol):
    """A target that takes in a manifest only when it has all its blobs, so that a manifest proves them."""

    takes_whole_only: Literal[True]


def verified(source: BinaryIO, descriptor: Descriptor, *, label: str) -> Iterator[bytes]:
    """Yield the bytes of `source` in chunks; after the last of them, proof that they are what `descriptor` says.

    Stops one byte past the expected size. Raises `BlobCorruptError`; a caller keeps nothing of a stream that raised.
    """
    digest = hashlib.sha256()
    size = 0
    with _second_thread(descriptor.size) as aside:
        while chunk := source.read(min(CHUNK_BYTES, descriptor.size - size + 1)):
            size += len(chunk)
            if size > descriptor.size:
                raise BlobCorruptError(f"{descriptor.digest} in {label} is longer than its {descriptor.size} bytes")
            if aside is None:
                digest.update(chunk)
            else:
                aside.do(partial(digest.update, chunk))
            yield chunk
    if size != descriptor.size:
        raise BlobCorruptError(f"{descriptor.digest} in {label} ends after {size} of {descriptor.size} bytes")
    if f"sha256:{digest.hexdigest()}" != descriptor.digest:
        raise BlobCorruptError(
            f"{descriptor.digest} in {label} does not match its digest", hint="restore the file from another copy"
        )


def _second_thread(size_bytes: int) -> AbstractContextManager[Background | None]:
    return Background(ahead=1, name="hash") if size_bytes > HASHED_ASIDE_BYTES else nullcontext()


def read_manifest(source: BinaryIO, descriptor: Descriptor, *, label: str) -> bytes:
    """Return a verified manifest, never more than `MANIFEST_MAX_BYTES` of it.

    Its digest alone decides: some registries announce another size than they send.
    """
    raw = b""
    while len(raw) <= MANIFEST_MAX_BYTES >= descriptor.size and (chunk := source.read(CHUNK_BYTES)):
        raw += chunk
    if max(descriptor.size, len(raw)) > MANIFEST_MAX_BYTES:
        raise BlobCorruptError(f"the manifest {descriptor.digest} in {label} is larger than 4 MiB")
    if hashlib.sha256(raw).hexdigest() != descriptor.hex:
        raise BlobCorruptError(
            f"{descriptor.digest} in {label} does not match its digest", hint="restore it from another copy"
        )
    return raw


def manifest_parts(raw: bytes, manifest: Descriptor, *, label: str) -> list[Descriptor]:
    """Return the config and then the layers that an image manifest names, in its order; a digest may come twice.

    `raw` is what `read_manifest` gave. Raises `BlobCorruptError` for anything else, an image index included.
    Source: OCI image-spec v1.1.1, manifest.md.
    """
    where = f"the manifest {manifest.digest} in {label}"
    try:
        parsed = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)
        media_type = parsed.get("mediaType", manifest.media_type)
        if manifest.media_type in INDEX_MEDIA_TYPES or media_type in INDEX_MEDIA_TYPES or "manifests" in parsed:
            raise BlobCorruptError(
                f"{where} is an image index, not one manifest", hint="name a manifest by its tag or digest"
            )
        if media_type not in MANIFEST_MEDIA_TYPES or media_type != manifest.media_type:
            raise BlobCorruptError(f"{where} has the media type {str(media_type)[:100]!r}")
        entries = [parsed["config"], *parsed["layers"]]
        parts = [_descriptor(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlobCorruptError(f"{where} cannot be read: {type(error).__name__} {str(error)[:100]}") from error
    sizes = {part.digest: part.size for part in parts}
    if any(sizes[part.digest] != part.size for part in parts):
        raise BlobCorruptError(f"{where} gives one blob two sizes")
    return parts


def _descriptor(entry: dict[str, Any]) -> Descriptor:
    media_type, digest, size, annotations = (
        entry["mediaType"],
        entry["digest"],
        entry["size"],
        entry.get("annotations") or {},
    )
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise TypeError("a descriptor without media type or digest")
    if type(size) is not int or size >= 2**63:
        raise TypeError("a descriptor without a size")
    if not all(isinstance(text, str) for pair in annotations.items() for text in pair):
        raise TypeError("annotations that are not text")
    return Descriptor(media_type, digest, size, annotations)
