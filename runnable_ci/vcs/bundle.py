"""A git bundle: objects in a pack, behind a header that says which commit they build on. Any git can fetch it.

Source: git, gitformat-bundle (versions 2 and 3) and gitformat-pack (version 2). Ours has whole objects only, no deltas,
one commit under one name, and equal bytes for equal objects.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from runnable_ci.errors import CodeIdentityError, UnsafePathError
from runnable_ci.vcs.objects import Format, Kind

REF: Final = "refs/runnable/code"
_TYPES: Final[dict[Kind, int]] = {"commit": 1, "tree": 2, "blob": 3}
_KINDS: Final = {number: kind for kind, number in _TYPES.items()}
_LEVEL: Final = 6
_CHUNK_BYTES: Final = 1024 * 1024
_HEADER_MAX_BYTES: Final = 1024 * 1024
UNPACKED_MAX_BYTES: Final = 8 * 1024**3
UNPACKED_MAX_OBJECTS: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """What a bundle says of itself: the commit that it brings, and those that must be there before."""

    commit: str
    prerequisites: tuple[str, ...]
    form: Format


def write_bundle(destination: BinaryIO, header: Header, objects: Mapping[str, tuple[Kind, bytes]]) -> None:
    """Write a bundle with these objects, in the order of their ids."""
    lines = ["# v2 git bundle"] if header.form == "sha1" else ["# v3 git bundle", f"@object-format={header.form}"]
    lines += [f"-{commit} " for commit in header.prerequisites]
    destination.write("\n".join([*lines, f"{header.commit} {REF}", "", ""]).encode())
    digest = hashlib.sha1(usedforsecurity=False) if header.form == "sha1" else hashlib.sha256()
    for part in _packed(objects):
        digest.update(part)
        destination.write(part)
    destination.write(digest.digest())


def _packed(objects: Mapping[str, tuple[Kind, bytes]]) -> Iterator[bytes]:
    yield struct.pack(">4sII", b"PACK", 2, len(objects))
    for _, (kind, content) in sorted(objects.items()):
        yield _entry(_TYPES[kind], len(content))
        packer = zlib.compressobj(_LEVEL)
        yield packer.compress(content)
        yield packer.flush()


def _entry(number: int, size: int) -> bytes:
    """Return the type and size before an object: four bits of the size, then seven at a time, the lowest first."""
    byte, size = number << 4 | size & 0x0F, size >> 4
    found = bytearray()
    while size:
        found.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    return bytes([*found, byte])


def read_header(source: BinaryIO) -> Header:
    """Return the header of a bundle of a run; its pack is next. Raises `CodeIdentityError` for anything else."""
    first, *lines = _header_lines(source)
    form: Format = "sha1"
    if first == b"# v3 git bundle" and lines and lines[0].startswith(b"@object-format="):
        name = lines.pop(0).partition(b"=")[2]
        form = "sha256" if name == b"sha256" else "sha1"
    elif first != b"# v2 git bundle":
        raise CodeIdentityError("the saved changes are no git bundle")
    needed = [line[1:].strip().decode("ascii", "replace") for line in lines if line.startswith(b"-")]
    brought = [line.split(b" ") for line in lines if not line.startswith(b"-")]
    if len(brought) != 1 or brought[0][1:] != [REF.encode()]:
        raise CodeIdentityError("the saved changes are a git bundle that runnable-ci did not write")
    return Header(brought[0][0].decode("ascii", "replace"), tuple(needed), form)


def _header_lines(source: BinaryIO) -> Sequence[bytes]:
    lines = list[bytes]()
    left = _HEADER_MAX_BYTES
    while left > 0:
        line = source.readline(left)
        left -= len(line)
        if line == b"\n" and lines:
            return lines
        if not line.endswith(b"\n"):
            break
        lines.append(line[:-1])
    raise CodeIdentityError("the saved changes are no git bundle")


def contents(source: BinaryIO) -> Iterator[bytes]:
    """Yield what a bundle holds, each object's content in chunks and an empty one. Raises as `read_header` does.

    Also `UnsafePathError` for one that would unpack to more than any that is stored.
    """
    read_header(source)
    stream = _Stream(source)
    magic, version, count = struct.unpack(">4sII", stream.take(12))
    if (magic, version) != (b"PACK", 2) or count > UNPACKED_MAX_OBJECTS:
        raise CodeIdentityError("the saved changes are a git bundle that runnable-ci did not write")
    left_bytes = UNPACKED_MAX_BYTES
    for _ in range(count):
        number, size = stream.entry()
        left_bytes -= size
        if left_bytes < 0:
            raise UnsafePathError("the saved changes are larger than any that are stored")
        if number not in _KINDS:
            raise CodeIdentityError("the saved changes are a git bundle that runnable-ci did not write")
        yield from stream.inflate(size)
        yield b""


class _Stream:
    """A pack as it is read; what was read too far waits."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._waiting = b""

    def take(self, size: int) -> bytes:
        while len(self._waiting) < size:
            more = self._source.read(_CHUNK_BYTES)
            if not more:
                raise CodeIdentityError("the saved changes are cut off")
            self._waiting += more
        found, self._waiting = self._waiting[:size], self._waiting[size:]
        return found

    def entry(self) -> tuple[int, int]:
        byte = self.take(1)[0]
        number, size, shift = byte >> 4 & 7, byte & 0x0F, 4
        while byte & 0x80:
            byte = self.take(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 64:
                raise CodeIdentityError("the saved changes are damaged")
        return number, size

    def inflate(self, size: int) -> Iterator[bytes]:
        unpacker = zlib.decompressobj()
        found = 0
        try:
            while not unpacker.eof:
                piece = unpacker.unconsumed_tail or self._waiting or self._source.read(_CHUNK_BYTES)
                self._waiting = b"" if not unpacker.unconsumed_tail else self._waiting
                if not piece:
                    raise CodeIdentityError("the saved changes are cut off")
                chunk = unpacker.decompress(piece, _CHUNK_BYTES)
                found += len(chunk)
                if found > size:
                    raise CodeIdentityError("the saved changes are damaged")
                if chunk:
                    yield chunk
        except zlib.error as error:
            raise CodeIdentityError("the saved changes are damaged") from error
        if found != size:
            raise CodeIdentityError("the saved changes are damaged")
        self._waiting = unpacker.unused_data + self._waiting
