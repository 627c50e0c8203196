"""What is in files of formats that have times and orders of their own, as texts by part. Pure, nothing is unpickled."""

from __future__ import annotations

import gzip
import io
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

PARTS_MAX: Final = 2_000
UNPACKED_MAX: Final = 4 * 1024 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_NOT_SOUND: Final = (
    *(ValueError, KeyError, IndexError, EOFError, OSError, struct.error, zlib.error, RecursionError),
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
)
_STAMP: Final = "{0[0]:04d}-{0[1]:02d}-{0[2]:02d}T{0[3]:02d}:{0[4]:02d}:{0[5]:02d}"


def parts(name: str, content: bytes) -> dict[str, str] | None:
    """Return what is in a file as texts by part; None for a format without parts, or what is not sound."""
    try:
        for magic, read in _READERS.items():
            if content.startswith(magic):
                return dict(read(content))
        if name.endswith((".ipynb", ".json")):
            return dict(_json(content))
    except _NOT_SOUND:
        pass  # it is compared as it is
    return None


def _text(content: bytes) -> str:
    return content[:UNPACKED_MAX].decode("utf-8", "surrogateescape")


def _zip(content: bytes) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()[:PARTS_MAX]
        yield "the order of the zip's members", "\n".join(one.filename for one in members)
        left = UNPACKED_MAX
        for one in members:
            yield f"the zip's time of {one.filename}", _STAMP.format(one.date_time)
            with archive.open(one) as file:
                read = file.read(left)
            left -= len(read)
            yield f"{one.filename} in the zip", _text(read)


def _gzip(content: bytes) -> Iterator[tuple[str, str]]:
    (seconds,) = struct.unpack("<I", content[4:8])
    yield "the time in the head of the gzip", str(seconds)
    with gzip.open(io.BytesIO(content)) as file:
        yield "what is packed", _text(file.read(UNPACKED_MAX))


def _png(content: bytes) -> Iterator[tuple[str, str]]:
    at, count = len(_PNG), 0
    while at + 8 <= len(content) and count < PARTS_MAX:
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        data = content[at + 8 : at + 8 + size]
        name = kind.decode("ascii", "replace")
        if kind == b"tIME":
            text = _STAMP.format(struct.unpack(">H5B", data))
        elif kind == b"IDAT":
            text = str(zlib.crc32(data))
        elif kind == b"zTXt":
            text = _text(zlib.decompressobj().decompress(data.partition(b"\0")[2][1:], UNPACKED_MAX))
        else:
            text = _text(data)
        yield f"the {name} chunk of the PNG ({count})", text
        at += 12 + size
        count += 1


def _pickle(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the arguments of the pickle's operations, a line each: which memo a value is in is no content."""
    lines = []
    for operation, argument, _ in pickletools.genops(content):
        if argument is not None and not any(word in operation.name for word in ("PUT", "GET", "FRAME", "PROTO")):
            shown = argument.decode("latin-1") if isinstance(argument, bytes) else str(argument)
            lines.append(shown)
    yield "the pickle", "\n".join(lines)


def _json(content: bytes) -> Iterator[tuple[str, str]]:
    parsed = json.loads(content)
    if not isinstance(parsed, dict) or "cells" not in parsed:
        yield "the JSON", _text(content)
        return
    cells = parsed.pop("cells")
    yield "the notebook's metadata", json.dumps(parsed)
    for at, cell in enumerate(cells[:PARTS_MAX], start=1):
        for key, value in cell.items():
            yield f"`{key}` of cell {at}", value if isinstance(value, str) else json.dumps(value)


_READERS: Final[Mapping[bytes, Callable[[bytes], Iterator[tuple[str, str]]]]] = {
    b"PK\x03\x04": _zip,
    b"\x1f\x8b": _gzip,
    _PNG: _png,
    b"\x80\x03": _pickle,
    b"\x80\x04": _pickle,
    b"\x80\x05": _pickle,
}
