"""Whether files and folders are unchanged since an earlier look, by their times: no contents, no git."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

WATCHED_MAX_FILES: Final = 2_000
"""Above this, git's own threaded look at the tree is quicker than ours (both measured)."""

# Where a filesystem stamps times coarsely, a change right after a look would not show: younger entries are not relied
# upon.
_SETTLED_NS: Final = 20_000_000
_SETTLED_WHOLE_SECONDS_NS: Final = 2_000_000_000

Signature = tuple[int, int, int, int, int]
"""Times of change and modification (ns), size, inode, mode."""
_Value = TypeVar("_Value")


def signature(path: str) -> Signature | None:
    """Return what must differ after a file was written, replaced or made; None where nothing is."""
    try:
        now = os.lstat(path)
    except OSError:
        return None
    return now.st_ctime_ns, now.st_mtime_ns, now.st_size, now.st_ino, now.st_mode


def _settled(seen: Signature | None, at_ns: int) -> bool:
    """Return whether any later change must show.

    The time of change counts, as programs set that of modification freely.
    """
    if seen is None:
        return True
    coarse = seen[0] % 1_000_000_000 == 0
    return seen[0] < at_ns - (_SETTLED_WHOLE_SECONDS_NS if coarse else _SETTLED_NS)


class Kept(Generic[_Value]):
    """A value that files determine, worked out again only where one of them may have changed."""

    def __init__(self) -> None:
        self._kept: tuple[list[Signature | None], _Value] | None = None

    def get(self, files: Iterable[str], work_out: Callable[[], _Value]) -> _Value:
        """Return the value, as of the files now."""
        now_ns = time.time_ns()
        seen = [signature(path) for path in files]
        if self._kept and self._kept[0] == seen:
            return self._kept[1]
        value = work_out()
        self._kept = (seen, value) if all(_settled(one, now_ns) for one in seen) else None
        return value


class _Folder(NamedTuple):
    """Its entries (folders end with a slash) without what the pipeline makes; no signature: list it again."""

    seen: Signature | None
    names: frozenset[str]


class Watch:
    """What one look at a tree depends on: while it is unchanged, so is what the look found.

    `own(path)`, for a path from the root, folders ending with a slash, says whether the pipeline itself makes that;
    such paths may come and go. `earlier` is the watch of the look before. The look begins when its watch is made.
    """

    def __init__(self, own: Callable[[str], bool], earlier: Watch | None = None) -> None:
        self._own = own
        self._began_ns = time.time_ns()
        self._earlier = {path: earlier._now(path) for path in earlier._folders} if earlier else {}
        self._root = ""
        self._files: dict[str, Signature | None] = {}
        self._folders: dict[str, _Folder] = {}
        self._holds = False

    def unchanged(self) -> bool:
        """Return whether all is as it was; never so for a watch that could not settle."""
        return (
            self._holds
            and all(signature(path) == seen for path, seen in self._files.items())
            and all(self._same(path, folder) for path, folder in list(self._folders.items()))
        )

    def add_files(self, paths: Iterable[str]) -> None:
        """Watch these files, whether they exist or not."""
        self._files.update((path, signature(path)) for path in paths)

    def see_folders(self, root: str, ignored: frozenset[str]) -> bool:
        """Watch all folders that git looks into; whether that is possible and sensible."""
        self._root = root
        waiting = [""]
        while waiting:
            path = waiting.pop()
            folder = self._now(path)
            if folder is None or len(self._folders) >= WATCHED_MAX_FILES:
                return False
            # Another repository's inside is for git only: neither its files nor its folders are looked at.
            if path and not folder.names.isdisjoint({".git", ".git/"}):
                return False
            self._folders[path] = folder
            self.add_files(f"{root}/{path}{name}" for name in folder.names & {".gitignore", ".gitattributes"})
            below = (path + name for name in folder.names if name.endswith("/") and name != ".git/")
            waiting += [path for path in below if path not in ignored]
        return True

    def settle(self) -> None:
        """Reuse this state from now on, if nothing of it can have changed since it was read."""
        self._holds = all(_settled(seen, self._began_ns) for seen in self._files.values()) and all(
            self._is_steady(path, folder) for path, folder in self._folders.items()
        )

    def _is_steady(self, path: str, folder: _Folder) -> bool:
        if folder.seen is not None and _settled(folder.seen, self._began_ns):
            return True
        earlier = self._earlier.get(path)
        return earlier is not None and earlier.names == folder.names

    def _now(self, path: str) -> _Folder | None:
        """Return a folder as it is now, None where it cannot be listed."""
        now_ns = time.time_ns()
        seen = signature(f"{self._root}/{path}")
        known = self._folders.get(path)
        if known and known.seen is not None and known.seen == seen:
            return known
        try:
            with os.scandir(f"{self._root}/{path}") as entries:
                names = [f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries]
        except OSError:
            return None
        others = frozenset(name for name in names if not self._own(path + name))
        return _Folder(seen if _settled(seen, now_ns) else None, others)

    def _same(self, path: str, folder: _Folder) -> bool:
        now = self._now(path)
        if now is None or folder.names - now.names:
            return False
        if not all(self._only_own(path + name) for name in now.names - folder.names):
            return False
        self._folders[path] = now
        return True

    def _only_own(self, path: str) -> bool:
        """Return whether a new path is a folder with the pipeline's own files only; it is watched from now on."""
        now = self._now(path) if path.endswith("/") else None
        if now is None or not all(self._only_own(path + name) for name in now.names):
            return False
        self._folders[path] = now
        return True
