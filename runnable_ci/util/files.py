"""Files that are whole or absent: temp + fsync + rename, and locks that die with their process.

What is temporary has a random name: `.NAME.tmp`, a file that is locked as long as its process needs it, and what
belongs to it, a folder `.NAME.dir` or a note `.NAME.near`. So `sweep` can tell what a killed process left.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from runnable_ci.errors import FREE_SPACE, StoreError
from runnable_ci.util.threads import Background

_BUFFER_BYTES = 1024 * 1024
_PIECE_BYTES = 4 * 1024 * 1024
_HOLE_BYTES = 64 * 1024
_PIECES_AHEAD = 16
"""How far the copying may be ahead of the hashing: what it reads again is then still in memory."""
_OURS = re.compile(r"(\.[0-9a-f]{16})\.(tmp|dir|near)")


@dataclass(slots=True)
class Temporary:
    """A file without a name of its own yet."""

    file: BinaryIO
    path: Path

    def keep_as(self, path: Path, *, synced: bool = True) -> None:
        """Move the complete file to `path`, replacing what was there; sync it to disk if `synced`."""
        self.file.flush()
        if synced:
            os.fsync(self.file.fileno())
        try:
            self.path.replace(path)
        except OSError as e:
            if e.errno != errno.EXDEV:
                raise
            self._copy_to(path)

    def _copy_to(self, path: Path) -> None:
        """Copy the content to a path on another mount, through a file beside it that `sweep` finds."""
        near, note = path.with_name(self.path.name), self.path.with_suffix(".near")
        note.write_bytes(os.fsencode(near.absolute()))
        try:
            self.file.seek(0)
            with open(os.open(near, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
                shutil.copyfileobj(self.file, copy, _BUFFER_BYTES)
                own = os.fstat(self.file.fileno())
                os.fchmod(copy.fileno(), stat.S_IMODE(own.st_mode))
                copy.flush()
                os.utime(copy.fileno(), ns=(own.st_atime_ns, own.st_mtime_ns))
                os.fsync(copy.fileno())
            near.replace(path)
        finally:
            near.unlink(missing_ok=True)
            note.unlink()


@contextmanager
def temporary(folder: Path, *, mode: int = 0o644) -> Iterator[Temporary]:
    """Yield a new file in `folder` that is removed after the block, unless it was kept."""
    with needing_space(folder):
        descriptor, path = _open_locked(folder, mode)
        try:
            with open(descriptor, "w+b") as file:
                yield Temporary(file, path)
        finally:
            with suppress(OSError):  # a sweep takes it
                path.unlink(missing_ok=True)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a new private folder in `folder` that is removed after the block with all its content."""
    with temporary(folder) as claim:
        made = claim.path.with_suffix(".dir")
        made.mkdir(mode=0o700)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def claim_of(folder: Path) -> Path:
    """Return the file that tells that a temporary folder is in use."""
    return folder.with_suffix(".tmp")


def renew_folder(folder: Path) -> None:
    """Make a temporary folder again that is still needed, where a step removed it or what tells that it is in use."""
    claim = claim_of(folder)
    if folder.exists() and claim.exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Until the process ends: what was locked before is no file any more.
    lock(os.open(claim, os.O_RDWR | os.O_CREAT, 0o600), wait=True)


def remove_folder(folder: Path, *, through: Path) -> None:
    """Remove a folder and all that is in it: at once, as a temporary one in `through`, which a sweep would take."""
    gone = through / f".{secrets.token_hex(8)}.dir"
    with suppress(FileNotFoundError):
        folder.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def append_whole(descriptor: int, data: bytes, file: Path, *, synced: bool = True) -> None:
    """Have all of the data at the end of an open file, on disk if `synced`, or nothing of it. Raises `StoreError`."""
    position = os.fstat(descriptor).st_size
    with needing_space(file.parent):
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            if synced:
                _to_disk(descriptor)
        except OSError as e:
            os.ftruncate(descriptor, position)
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"cannot write {file}: {e.strerror}") from e
            raise


_to_disk = getattr(os, "fdatasync", os.fsync)


@contextmanager
def needing_space(folder: Path) -> Iterator[None]:
    """Turn a full disk or quota in the block into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if _has_no_inodes(folder):
            hint = "remove some files (`df -i` counts them), then try again"
            raise StoreError(f"no room for more files on the disk of {folder}", hint=hint) from e
        raise StoreError(f"no space left on the disk of {folder}", hint=FREE_SPACE) from e


def _has_no_inodes(folder: Path) -> bool:
    """Return whether a disk has space, but no room for another file."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_files > 0 and not found.f_favail and found.f_bavail > 0


def _open_locked(folder: Path, mode: int) -> tuple[int, Path]:
    while True:
        path = folder / f".{secrets.token_hex(8)}.tmp"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return descriptor, path
        os.close(descriptor)  # a sweep saw it before it was locked


def sweep(folder: Path) -> None:
    """Remove what is temporary in `folder` and was left by processes that were killed."""
    with suppress(FileNotFoundError):
        for name in {ours[1] for entry in os.scandir(folder) if (ours := _OURS.fullmatch(entry.name))}:
            with suppress(
                OSError, ValueError
            ):  # another process writes it or has just removed it, or it is not a temporary file
                _sweep_one(folder / name)


def _sweep_one(base: Path) -> None:
    claim, note = base.with_name(f"{base.name}.tmp"), base.with_name(f"{base.name}.near")
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = open_nofollow(str(claim), os.O_RDONLY)
    try:
        if descriptor is not None:
            lock(descriptor, wait=False)
        shutil.rmtree(base.with_name(f"{base.name}.dir"), ignore_errors=True)
        with suppress(FileNotFoundError):
            # The name is what makes it ours: a note can have nothing else removed, wherever it came from.
            Path(os.fsdecode(note.read_bytes())).with_name(claim.name).unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        claim.unlink(missing_ok=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, through: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a file that appears at `path`, complete and on disk, when the block ends; not if the block raises.

    Until then it is a temporary file in the folder `through`, by default that of `path`.
    """
    with temporary(through or path.parent, mode=mode) as new:
        yield new.file
        new.keep_as(path)


def write_whole(path: Path, content: bytes, *, through: Path | None = None) -> None:
    """Write a small file so that a reader sees the old content or the new, never a part."""
    with replacing(path, through=through) as file:
        file.write(content)


def copy_and_hash(source: RawIOBase, copy: BinaryIO, *, sparse: bool = False) -> tuple[str, int]:
    """Copy from one open file to another, open for reading too; the sha256 (hex) and the size in bytes of the copy.

    Of a large file a second thread hashes what has arrived while this one copies on: both release the interpreter. That
    takes half the time of reading, hashing and writing in turn (512 MiB on two cores: 0.7 s against 1.4 to 1.7).
    Of a `sparse` one what is all zeros is not written, so that it takes no room on disk.
    """
    if sparse:
        return _copy_without_zeros(source, copy)
    digest, size = hashlib.sha256(), 0
    while size < _BUFFER_BYTES:
        chunk = source.read(_BUFFER_BYTES)
        if not chunk:
            return digest.hexdigest(), size
        copy.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    copy.flush()
    with Background(ahead=_PIECES_AHEAD, name="hash") as aside:
        for count in _carry(source, copy.fileno()):
            aside.do(partial(_hash_part, digest, copy.fileno(), size, count))
            _start_writeback(copy.fileno(), size, count)
            size += count
    return digest.hexdigest(), size


def _copy_without_zeros(source: RawIOBase, copy: BinaryIO) -> tuple[str, int]:
    digest, size, zeros = hashlib.sha256(), 0, memoryview(bytes(_HOLE_BYTES))
    while chunk := source.read(_HOLE_BYTES):
        digest.update(chunk)
        if chunk != zeros[: len(chunk)]:
            copy.seek(size)
            copy.write(chunk)
        size += len(chunk)
    copy.truncate(size)
    copy.flush()
    return digest.hexdigest(), size


def is_sparse(found: os.stat_result) -> bool:
    """Return whether a large file takes less room on disk than its size."""
    return found.st_size >= _BUFFER_BYTES and found.st_blocks * 512 < found.st_size


def _carry(source: RawIOBase, copy: int) -> Iterator[int]:
    """Copy the rest of a file to where a descriptor stands; how many bytes came, piece by piece."""
    # No file, another file system, a system that is too old: whatever it was, tried plainly.
    if sys.platform == "linux":
        with suppress(OSError):
            while count := os.copy_file_range(source.fileno(), copy, _PIECE_BYTES):
                yield count
    while chunk := source.read(_BUFFER_BYTES):
        left = memoryview(chunk)
        while left:
            left = left[os.write(copy, left) :]
        yield len(chunk)


def _hash_part(digest: hashlib._Hash, descriptor: int, position: int, count: int) -> None:
    """Update the digest with a part of a file."""
    end = position + count
    while position < end:
        chunk = os.pread(descriptor, min(end - position, _BUFFER_BYTES), position)
        if not chunk:
            raise OSError(errno.EIO, "the copy is shorter than what was written")
        digest.update(chunk)
        position += len(chunk)


def fingerprint(path: Path, *, follow_links: bool = True) -> tuple[int, ...]:
    """Return what differs once a file was replaced or written: its number, size, and times of content and of change.

    The last one, in nanoseconds, is the kernel's own, whatever programs set the time of the content to.
    """
    return fingerprint_of(path.stat(follow_symlinks=follow_links))


def fingerprint_of(found: os.stat_result) -> tuple[int, ...]:
    """Return the same of a file that is known."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for it; it ends with the process, however that dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_alone(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on `path` if it is free; yield whether it is held."""
    descriptor = try_lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def share_lock(path: Path) -> int:
    """Return a descriptor that holds a shared lock on `path` until it is closed, waiting for one who holds it alone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    lock(descriptor, wait=True, shared=True)
    return descriptor


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock on `path` until it is closed; None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock(descriptor, wait=False)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def mark_folder(folder: Path) -> int | None:
    """Return a descriptor that marks a folder as taken until it is closed; None where it cannot be marked.

    Raises `BlockingIOError` where another process has marked it. A mark is a shared lock: one that is held alone, as by
    `flock . make`, is another program's, and keeps nobody out.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        is_free, is_shared = _locks(descriptor), _locks(descriptor, shared=True)
    except OSError:  # a file system that has no locks for folders
        is_free = is_shared = False
    if is_free and is_shared:
        return descriptor
    os.close(descriptor)
    if is_free or is_shared:  # free at first only: another process came between the two
        raise BlockingIOError(errno.EWOULDBLOCK, "marked by another process", str(folder))
    return None


def _locks(descriptor: int, *, shared: bool = False) -> bool:
    """Lock a file or folder if it is free at once; return whether it is locked now."""
    try:
        lock(descriptor, wait=False, shared=shared)
    except BlockingIOError:
        return False
    return True


def _start_writeback(descriptor: int, position: int, count: int) -> None:
    """Make the system start writing a part of a file to disk, if it can: less is left for the end."""
    if sys.platform == "linux":  # that it may forget what is written is harmless
        with suppress(OSError):
            os.posix_fadvise(descriptor, position, count, os.POSIX_FADV_DONTNEED)


def lock(descriptor: int, *, wait: bool, shared: bool = False) -> None:
    """Lock a file until the descriptor is closed, by us or by the end of the process.

    Raises `BlockingIOError` where that would have to be waited for and `wait` is not set.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)


def open_nofollow(path: str, flags: int) -> int:
    """Open a file neither through a link nor waiting for a pipe's other end: either may have taken its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def sync_file(path: Path) -> None:
    """Return when a file's content would survive a crash of the machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
