"""What a path of a tree holds, byte for byte: a file, or where a link points to."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Final, NamedTuple

from runnable_ci.util.files import open_nofollow
from runnable_ci.vcs.objects import LINK, Format, Item, new_hash

_CHUNK_BYTES: Final = 1024 * 1024
# Where a filesystem stamps times coarsely, a change right after a look would not show: what changed within so long
# before it was read is read again.
_SETTLED_NS: Final = 20_000_000
_SETTLED_WHOLE_SECONDS_NS: Final = 2_000_000_000


class Content(NamedTuple):
    """A file's bytes or a link's target: as git names them with no filter, and by their sha256."""

    item: Item
    sha256: str
    size: int


def git_mode(mode: int) -> str:
    """Return a file's mode as git writes it."""
    if stat.S_ISLNK(mode):
        return LINK
    return "100755" if mode & stat.S_IXUSR else "100644"


def link_target(path: str) -> bytes:
    """Return where a symbolic link points to, byte for byte."""
    return os.fsencode(os.readlink(path))  # noqa: PTH115 - Path.readlink changes `./a` into `a`


def content_of(path: str, form: Format) -> Content:
    """Return what is at a path. Raises `OSError` where that cannot be read, or is neither a file nor a link."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        target = link_target(path)
        found = new_hash("blob", len(target), form)
        found.update(target)
        return Content(Item(LINK, found.hexdigest()), hashlib.sha256(target).hexdigest(), len(target))
    with open(path, "rb", opener=open_nofollow) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError("not a file")
        blob, plain, size = new_hash("blob", about.st_size, form), hashlib.sha256(), 0
        while chunk := file.read(_CHUNK_BYTES):
            blob.update(chunk)
            plain.update(chunk)
            size += len(chunk)
    if size != about.st_size:
        raise OSError("it changed while it was being read")
    return Content(Item(git_mode(about.st_mode), blob.hexdigest()), plain.hexdigest(), size)


def content_sha256(path: str) -> str:
    """Return the digest of a file's bytes or of a link's target; "" for anything else, and for what cannot be read."""
    try:
        return content_of(path, "sha1").sha256
    except OSError:
        return ""


Signature = tuple[int, int, int, int, int]
"""Times of change and modification (ns), size, inode, mode."""


def signature(path: str) -> Signature | None:
    """Return what must differ after a file was written, replaced or made; None where nothing is."""
    try:
        now = os.lstat(path)
    except OSError:
        return None
    return now.st_ctime_ns, now.st_mtime_ns, now.st_size, now.st_ino, now.st_mode


def is_settled(seen: Signature | None, at_ns: int) -> bool:
    """Return whether any change after that time must show.

    The time of change counts: that of modification is set freely.
    """
    if seen is None:
        return True
    coarse = seen[0] % 1_000_000_000 == 0
    return seen[0] < at_ns - (_SETTLED_WHOLE_SECONDS_NS if coarse else _SETTLED_NS)


class Contents:
    """What paths hold, read again only where something may have changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Signature | None, Content]] = {}

    def of(self, path: str, form: Format) -> Content:
        """Return what `content_of` does."""
        now_ns, seen = time.time_ns(), signature(path)
        known = self._known.get(path)
        if known and known[0] == seen:
            return known[1]
        found = content_of(path, form)
        if is_settled(seen, now_ns):
            self._known[path] = (seen, found)
        else:
            self._known.pop(path, None)
        return found
