"""A store's run in another form, ready to be copied, and blobs made whole again from their pieces."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from runnable_ci.runs.artifact import RUN_LOG_MEDIA_TYPE
from runnable_ci.runs.files.packs import Section
from runnable_ci.runs.live.segments import JOURNAL_MEDIA_TYPE
from runnable_ci.runs.remote.manifest_forms import ImageForm, Whole, as_image, in_pieces, piece_sizes, wholes
from runnable_ci.store.copy import TransferSize
from runnable_ci.store.local import Layout
from runnable_ci.store.target import (
    BLOB_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    Descriptor,
    Target,
    manifest_parts,
    verified,
)


class DerivedRun(Layout):
    """A store with one manifest more, which needs no space: what it names is in memory, or a part of what is there."""

    def __init__(
        self,
        layout: Layout,
        derived: Descriptor,
        contents: Mapping[str, bytes],
        sections: Mapping[str, tuple[Descriptor, int]],
    ) -> None:
        super().__init__(layout.folder)
        self._base = layout
        self.derived = derived
        """The manifest; the run's own where nothing had to change."""
        self._contents = contents
        self._sections = sections

    def resolve(self, reference: str) -> Descriptor:
        """Return the manifest that a tag or digest points to; `ManifestNotFoundError` where there is none."""
        return self.derived if reference == self.derived.digest else self._base.resolve(reference)

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the bytes, unchecked: read them through `verified`."""
        if (content := self._contents.get(descriptor.digest)) is not None:
            return io.BytesIO(content)
        if (section := self._sections.get(descriptor.digest)) is not None:
            blob, offset = section
            return cast("BinaryIO", Section(self._base.fetch(blob), offset, descriptor.size))
        return self._base.fetch(descriptor)


def derive(
    layout: Layout,
    own: Descriptor,
    *,
    blob_max_bytes: int,
    form: ImageForm | None = None,
    pieces: dict[str, list[Descriptor]] | None = None,
) -> DerivedRun:
    """Return a run whose own manifest is `own` with its blobs in pieces of at most so many bytes, perhaps as an image.

    Who derives a run again and again hands over the `pieces` that are known, by the digest of their blob, and gets
    those of more. Raises `StoreError`.
    """
    manifest: dict[str, Any] = layout.manifest(own)
    large = [
        Descriptor(BLOB_MEDIA_TYPE, layer["digest"], layer["size"])
        for layer in manifest["layers"]
        if layer["size"] > blob_max_bytes and layer["mediaType"] not in (RUN_LOG_MEDIA_TYPE, JOURNAL_MEDIA_TYPE)
    ]
    known = {} if pieces is None else pieces
    for blob in large:
        if blob.digest not in known:
            known[blob.digest] = _pieces(layout, blob, blob_max_bytes)
    pieces = {blob.digest: known[blob.digest] for blob in large}
    contents: dict[str, bytes] = {}
    if pieces:
        manifest = in_pieces(manifest, own.digest, pieces)
    if form is not None:
        config, manifest = as_image(manifest, own.digest, form)
        contents[_digest(config)] = config
    if not pieces and form is None:
        return DerivedRun(layout, own, {}, {})
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    derived = Descriptor(MANIFEST_MEDIA_TYPE, _digest(raw), len(raw))
    contents[derived.digest] = raw
    return DerivedRun(layout, derived, contents, dict(_sections(large, pieces)))


def join_pieces(layout: Layout, source: Target, manifest: Descriptor, wanted: Mapping[str, int]) -> TransferSize:
    """Fetch the wanted blobs (digest → size) that a manifest in the store names by their pieces; return how much.

    Each piece and each whole is verified. Raises `StoreError`.
    """
    with layout.fetch(manifest) as content:
        raw = b"".join(verified(content, manifest, label=layout.label))
    joined = [
        whole
        for digest, whole in wholes(manifest_parts(raw, manifest, label=source.label)).items()
        if wanted.get(digest) == whole.blob.size
    ]
    for whole in joined:
        with _Joined(_bytes_of(source, whole)) as stream:
            layout.push(whole.blob, cast("BinaryIO", stream))
    return TransferSize.of([whole.blob for whole in joined])


def _pieces(layout: Layout, blob: Descriptor, most_bytes: int) -> list[Descriptor]:
    """Return what each piece of a blob is, which takes reading all of it once, verified."""
    sizes = iter(piece_sizes(blob.size, most_bytes))
    found: list[Descriptor] = []
    left, digest, size = next(sizes), hashlib.sha256(), 0
    with layout.fetch(blob) as content:
        for chunk in verified(content, blob, label=layout.label):
            rest = memoryview(chunk)
            while rest:
                part, rest = rest[:left], rest[left:]
                digest.update(part)
                left, size = left - len(part), size + len(part)
                if not left:
                    found.append(Descriptor.of_hash(digest.hexdigest(), size))
                    left, digest, size = next(sizes, 0), hashlib.sha256(), 0
    return found


def _sections(
    blobs: Sequence[Descriptor], pieces: Mapping[str, Sequence[Descriptor]]
) -> Iterator[tuple[str, tuple[Descriptor, int]]]:
    for blob in blobs:
        offset = 0
        for piece in pieces[blob.digest]:
            yield piece.digest, (blob, offset)
            offset += piece.size


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _bytes_of(source: Target, whole: Whole) -> Iterator[bytes]:
    for piece in whole.pieces:
        with source.fetch(piece) as content:
            yield from verified(content, piece, label=source.label)


class _Joined(io.RawIOBase):
    """Chunks as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        wanted = len(self._rest) if size < 0 else size
        chunk, self._rest = self._rest[:wanted], self._rest[wanted:]
        return chunk
