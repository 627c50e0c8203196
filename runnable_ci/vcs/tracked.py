"""Whether git tracks a path: read from its index where that is enough, else asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from runnable_ci.errors import CodeIdentityError, StoreError
from runnable_ci.vcs.git import Git
from runnable_ci.vcs.git_files import repository_root

_VERSIONS_WITH_WHOLE_PATHS = (b"\0\0\0\2", b"\0\0\0\3")
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
