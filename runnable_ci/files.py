"""Files that are whole or absent: temp + fsync + rename, and locks that die with their process."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from runnable_ci.errors import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BUFFER_BYTES = 1024 * 1024
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(slots=True)
class Temporary:
    """A file without a name of its own yet."""

    file: BinaryIO
    path: Path

    def keep_as(self, path: Path) -> None:
        """Let the file appear under `path`, whole and on disk, in place of what was there."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(path)


@contextmanager
def temporary(folder: Path, *, mode: int = 0o644) -> Iterator[Temporary]:
    """A new file in `folder` that is gone after the block, unless it was kept."""
    path = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, mode), "w+b") as file:
            yield Temporary(file, path)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise StoreError(f"no space left on the disk of {folder}", hint="free some space and retry") from e
        raise
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A file that appears under `path`, whole and on disk, when the block ends; not at all if the block raises."""
    with temporary(path.parent, mode=mode) as new:
        yield new.file
        new.keep_as(path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(content)


def copy_and_hash(source: RawIOBase, copy: BinaryIO) -> tuple[str, int]:
    """Copy from one open file to another; the sha256 (hex) and the size in bytes of what was written.

    A large file is written by a second thread while this one hashes: both release the interpreter.
    """
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    count = source.readinto(buffer)
    if count < _BUFFER_BYTES:
        copy.write(buffer[:count])
        digest.update(buffer[:count])
        while chunk := source.read(_BUFFER_BYTES):
            copy.write(chunk)
            digest.update(chunk)
            count += len(chunk)
        return digest.hexdigest(), count
    empty: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
    for _ in range(3):
        empty.put(memoryview(bytearray(_BUFFER_BYTES)))
    failures: list[OSError] = []

    def write() -> None:
        while filled := full.get():
            buffer, count = filled
            try:
                if not failures:
                    copy.write(buffer[:count])
            except OSError as e:
                failures.append(e)
            empty.put(buffer)

    writer = threading.Thread(target=write, name="write")
    writer.start()
    try:
        while count and not failures:
            full.put((buffer, count))
            digest.update(buffer[:count])
            size += count
            buffer = empty.get()
            count = source.readinto(buffer)
    finally:
        full.put(None)
        writer.join()
    if failures:
        raise failures[0]
    return digest.hexdigest(), size


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for it; it ends with the process, however that dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path` until it is closed; None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, wait=False)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


if sys.platform == "win32":

    def _lock(descriptor: int, *, wait: bool) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:

    def _lock(descriptor: int, *, wait: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
