"""A store's folders and files are real ones: a link among them would have us read, write or remove what lies elsewhere.

A store may have come with a clone, an archive or a copy; what is in it was not always made by us.
"""

from __future__ import annotations

import os
from pathlib import Path

from runnable_ci.errors import StoreError

_FOLDERS = frozenset({"blobs", "sha256", "runs", "tmp", "logs", "replaced", "reports", "seen", "unfinished"})
_FILES = frozenset(
    {
        *(".gitignore", "oci-layout", "index.json", "index.lock", "store.lock", "workspace.lock", "writer"),
        *("journal.jsonl", "lock", "processes", "origin", "made-here", "carried", "publish.lock"),
        *("products.jsonl", "products.lock", "hashes.json"),
    }
)


def require_plain(folder: Path) -> None:
    """Raise `StoreError` where a folder of a store, or something right in it, is a link or not of its kind.

    A folder that is not there is fine.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise _not_plain(folder, "a link" if folder.is_symlink() else "not a folder")
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                _require_kind(entry)
    except OSError as e:
        raise StoreError(f"cannot read the store's folder {folder}: {e.strerror}") from e


def make_folders(path: Path, *, within: Path) -> None:
    """Make the folders from one of a store's down to `path`. Raises `StoreError` where a link is among them."""
    for part in reversed([folder for folder in (path, *path.parents) if folder.is_relative_to(within)]):
        part.mkdir(exist_ok=True)
        if part.is_symlink():
            raise _not_plain(part, "a link")


def _require_kind(entry: os.DirEntry[str]) -> None:
    path = Path(entry.path)
    if entry.is_symlink():
        raise _not_plain(path, "a link")
    if entry.is_dir(follow_symlinks=False):
        if entry.name in _FILES:
            raise _not_plain(path, "a folder")
    elif entry.name in _FOLDERS or not entry.is_file(follow_symlinks=False):
        raise _not_plain(path, "not a folder" if entry.name in _FOLDERS else "not a file")


def _not_plain(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is {what}: a store has real folders and files only", hint="move it away")
