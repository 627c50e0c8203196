"""Which files that were moved out of the workspace a clean-up may remove: none that nothing else has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.products.unfinished import unfinished
from runnable_ci.store.local import Layout

REPLACED = "replaced"
"""The folder of a run where the files are."""


def removable(
    layout: Layout, removed: Iterable[str], kept: Iterable[str], *, known: Mapping[int, Collection[str]]
) -> list[tuple[Path, int]]:
    """Return the files, with their sizes, that go with the runs that are `removed`, and those of the runs `kept` that
    are not the only copy: whose content (size → sha256) is `known`, since a run that stays holds it or a step made it.

    What a person wrote stays as long as its run. Of a run that was killed all stays: its recovery may need it.
    """
    removed, kept = list(removed), list(kept)
    left = unfinished(layout)
    found = [file for run_id in removed for file in _files(run_folder(layout, run_id) / REPLACED)]
    found += [file for item in left if item.run_id not in kept for file in _files(item.folder)]
    pending = {item.run_id for item in left}
    for run_id in kept:
        if run_id not in pending:
            files = _files(run_folder(layout, run_id) / REPLACED)
            found += [(path, size) for path, size in files if size in known and _sha256(path) in known[size]]
    return found


def remove(files: Iterable[tuple[Path, int]]) -> None:
    """Remove files, and the folders that are empty then."""
    folders = set()
    for path, _ in files:
        with suppress(FileNotFoundError):
            path.unlink()
        folders.add(path.parent)
    for folder in folders:
        with suppress(OSError):  # something else is in it
            os.removedirs(folder)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files below a folder, each with its size; links are not followed."""
    if folder.is_symlink():
        return
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path, path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
