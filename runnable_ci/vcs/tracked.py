"""What git's index says without git: whether a path is tracked, and which files are as they were."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from runnable_ci.errors import CodeIdentityError, StoreError
from runnable_ci.vcs.git import Git
from runnable_ci.vcs.git_files import repository_root

_VERSIONS_WITH_WHOLE_PATHS = (b"\0\0\0\2", b"\0\0\0\3")
_HEADER: Final = struct.Struct(">4sII")
_STAT: Final = struct.Struct(">10I")
_FLAGS: Final = struct.Struct(">H")
_EXTENDED: Final = 0x4000
_32_BITS: Final = 0xFFFFFFFF
_IGNORES_CASE = sys.platform == "darwin"
"""Whether two names that differ in capital letters alone are one file, on most of its disks."""


def is_tracked(path: Path, environ: Mapping[str, str]) -> bool:
    """Return whether git tracks something at a path or below it. Raises `StoreError` where that is unknown.

    Mostly git need not be started: an index of version 2 or 3 in which the name does not occur tracks nothing of that
    name, unless it is split. (A sparse one has folders in place of files, none of which came with the clone.)
    Source: git, gitformat-index.
    """
    root = repository_root(path.parent, environ)
    if root is None or not _may_track(root, os.fsencode(path.name)):
        return False
    try:
        names = os.fsdecode(Git(str(root), environ)("ls-files", "-z")).split("\0")
    except CodeIdentityError as e:
        raise StoreError(f"cannot tell whether git tracks {path}: {e.message}", hint=e.hint) from e
    own = f"{path.relative_to(root).as_posix()}/"
    return any(f"{_folded(name)}/".startswith(_folded(own)) for name in names)


def unchanged(index: str, root: str, blobs: Mapping[str, str]) -> frozenset[str]:
    """Return which files, by path → what the commit has there, are as git saw them when it wrote its index.

    It has their times, size and number. git compares seconds, and reads what was written in the second of its index
    once more, as many files are after a checkout; here nanoseconds count. None of them where the index is of another
    version. Source: git, gitformat-index and racy-git.
    """
    try:
        written_ns = Path(index).stat().st_mtime_ns  # first: what is read may be newer, never older
        content = Path(index).read_bytes()
        signature, version, count = _HEADER.unpack_from(content)
        if signature != b"DIRC" or version not in (2, 3):
            return frozenset()
        return frozenset(_unchanged(content, count, root, blobs, written_ns))
    except (OSError, struct.error, ValueError):
        return frozenset()


def _unchanged(content: bytes, count: int, root: str, blobs: Mapping[str, str], written_ns: int) -> Iterator[str]:
    wanted = {os.fsencode(path): (path, bytes.fromhex(blob)) for path, blob in blobs.items()}
    id_bytes = max(len(blob) for _, blob in wanted.values())
    start = _HEADER.size
    for _ in range(count):
        (flags,) = _FLAGS.unpack_from(content, start + _STAT.size + id_bytes)
        name_at = start + _STAT.size + id_bytes + (4 if flags & _EXTENDED else 2)
        end = content.index(0, name_at)
        path, blob = wanted.get(content[name_at:end], ("", b""))
        if path and content[start + _STAT.size :][:id_bytes] == blob:
            ctime_s, ctime_ns, mtime_s, mtime_ns, _, number, _, _, _, size = _STAT.unpack_from(content, start)
            now = os.lstat(f"{root}/{path}")
            times = (ctime_s * 10**9 + ctime_ns, mtime_s * 10**9 + mtime_ns)
            is_seen = times == (now.st_ctime_ns, now.st_mtime_ns) and now.st_mtime_ns < written_ns
            if is_seen and (number, size) == (now.st_ino & _32_BITS, now.st_size & _32_BITS):
                yield path
        start += (end - start + 8) // 8 * 8


def _may_track(root: Path, name: bytes) -> bool:
    folder = root / ".git"
    try:
        if folder.is_file():  # of a submodule, or of a worktree beside the first one
            folder = root / folder.read_text(encoding="utf-8", errors="surrogateescape").partition(":")[2].strip()
        index = (folder / "index").read_bytes()
        is_split = any(entry.name.startswith("sharedindex.") for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):  # nothing was added yet
        return False
    except OSError as e:
        raise StoreError(f"cannot read git's index in {folder}: {e.strerror}") from e
    if is_split or index[4:8] not in _VERSIONS_WITH_WHOLE_PATHS:
        return True
    # From the end: that is twice as fast in a large index.
    return (index.lower() if _IGNORES_CASE else index).rfind(name) >= 0


def _folded(name: str) -> str:
    return name.lower() if _IGNORES_CASE else name
