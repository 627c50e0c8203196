"""Packs: many small contents as one tar, each found by its sha256 at an offset that the run log keeps.

Thousands of files as thousands of blobs would cost a request each on their way to a registry. A tar is what any client
can open, but its own headers are for people only: a member is what the run log says lies at an offset, verified by its
sha256, so that no name or size in a tar is ever trusted.
Source: POSIX.1-2017, pax, "ustar Interchange Format": a header of 512 bytes, the content filled up to a multiple of 512
with zeros, and two blocks of zeros at the end.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO

from runnable_ci.errors import BlobCorruptError
from runnable_ci.runs.model import CatalogEntry, Pack
from runnable_ci.runs.products.index import StoredContent
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor

PACK_MAX_BYTES = 64 * 1024 * 1024
PACKED_FILE_MAX_BYTES = 256 * 1024
PACK_MIN_FILES = 16
"""Fewer files are stored each as its own blob: a pack of a few saves no request that anyone notices."""
_BLOCK_BYTES = 512


class PackIndex:
    """The one answer to which blob holds a content: the content's own, or a pack of the run."""

    def __init__(self, packs: Mapping[str, Pack]) -> None:
        self._packs: dict[str, Pack] = {}
        self._pack_of: dict[str, str] = {}
        for digest, pack in packs.items():
            self.add(digest, pack)

    def add(self, digest: str, pack: Pack) -> None:
        """Add the members of a pack to the index."""
        self._packs[digest] = pack
        for member in pack.members:
            self._pack_of[member] = digest

    def __contains__(self, data_hash: str) -> bool:
        return data_hash in self._pack_of

    def __getitem__(self, data_hash: str) -> tuple[str, Pack]:
        """Return the pack that holds a content: its sha256, and what is in it. Raises `KeyError`."""
        digest = self._pack_of[data_hash]
        return digest, self._packs[digest]

    def blob_of(self, data_hash: str, size: int) -> Descriptor:
        """Return the blob that holds a content of `size` bytes."""
        if data_hash not in self:
            return Descriptor.of_hash(data_hash, size)
        digest, pack = self[data_hash]
        return Descriptor.of_hash(digest, pack.size)

    def content(self, entry: CatalogEntry) -> StoredContent:
        """Return a file as it is found without the run's log."""
        pack = None
        if entry.has_content and entry.data_hash in self:
            digest, holder = self[entry.data_hash]
            pack = (digest, holder.size, self.section(entry.data_hash)[0])
        return StoredContent(
            sha256=entry.data_hash,
            size=entry.size,
            mode=entry.mode,
            pack=pack,
            kind=entry.kind,
            target=entry.target,
            mtime_ns=entry.mtime_ns,
            sparse=entry.sparse,
            stored=entry.stored,
        )

    def section(self, data_hash: str) -> tuple[int, int]:
        """Return offset and size in bytes of a content in its pack.

        Raises `BlobCorruptError` where the run log places it outside of the pack.
        """
        digest, pack = self[data_hash]
        offset, size = pack.members[data_hash]
        if not 0 <= offset <= offset + size <= pack.size:
            raise BlobCorruptError(
                f"the run log says that sha256:{data_hash} is at a place that the pack sha256:{digest} does not have"
            )
        return offset, size


def open_stored(layout: Layout, content: StoredContent) -> io.RawIOBase:
    """Open content of a store without the log of the run that stored it. Raises `BlobMissingError`."""
    pack, size, offset = content.pack or (content.sha256, content.size, 0)
    return Section(layout.fetch(Descriptor.of_hash(pack, size)), offset, content.size)


class PackWriter:
    """Writes contents into a file as a tar that depends on nothing but them, their names and their order."""

    def __init__(self, file: BinaryIO) -> None:
        self.members: dict[str, tuple[int, int]] = {}
        """sha256 → (offset, size) in bytes."""
        self.size_bytes = 0
        self._file = file

    def is_full(self) -> bool:
        """Return whether further contents belong in another pack."""
        return self.size_bytes >= PACK_MAX_BYTES

    def add(self, name: str, data_hash: str, content: bytes) -> None:
        """Write a content under a name that tells people what it is."""
        import tarfile  # most runs have no pack

        info = tarfile.TarInfo(name)  # no owner, no time, one mode: equal contents make an equal pack
        info.size = len(content)
        header = info.tobuf(tarfile.PAX_FORMAT)  # more than a block where the name is long or not ASCII
        padding = -len(content) % _BLOCK_BYTES
        self._file.write(header)
        self._file.write(content)
        self._file.write(b"\0" * padding)
        self.members[data_hash] = (self.size_bytes + len(header), len(content))
        self.size_bytes += len(header) + len(content) + padding

    def end(self) -> None:
        """Write the end of the tar, and all that is still in memory."""
        self._file.write(b"\0" * 2 * _BLOCK_BYTES)
        self._file.flush()


class Section(io.RawIOBase):
    """A part of an open file, which it closes, as a stream that begins at 0 and ends where the part does."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._offset, self._size = file, offset, size
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Continue from byte `offset`, counted from the part's first."""
        if whence != io.SEEK_SET or offset < 0:
            raise io.UnsupportedOperation("only seek(offset) from the start")
        self._file.seek(self._offset + offset)
        self._position = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(len(buffer), max(self._size - self._position, 0)))
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()
