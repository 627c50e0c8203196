"""Folders for what is made to be looked at and removed: a run made again, contents that are compared.

Each is locked by the process that made it. What a killed one left is known by that, and removed by the next.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from runnable_ci.runs.orphans import end_orphans
from runnable_ci.util.files import mark_folder

PREFIX: Final = "runnable-again-"
_STORE_NOTE: Final = ".store"
"""In such a folder: where a store in it is, of which the steps may outlive who started them."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is removed in the end, with all that is in it."""
    folder, descriptor = _made()
    try:
        yield folder
    finally:
        _remove(folder)
        if descriptor is not None:
            os.close(descriptor)


def note_store(folder: Path, store: Path) -> None:
    """Note in a scratch folder, or in a folder `tree` two below it, where the store of its steps is."""
    (folder / _STORE_NOTE).write_bytes(os.fsencode(store))


def sweep_scratch() -> int:
    """Remove the folders of processes that were killed, after what their steps left running; return how many."""
    count = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, another user's, or gone
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            descriptor = mark_folder(folder)
            if descriptor is None:  # nothing can be known of it
                continue
            try:
                _end_steps(folder)
                _remove(folder)
                count += not folder.exists()
            finally:
                os.close(descriptor)
    return count


def _made() -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            descriptor = mark_folder(folder)
        except OSError:  # a sweep came between the two
            continue
        if descriptor is None or folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _end_steps(folder: Path) -> None:
    for note in (*folder.glob(_STORE_NOTE), *folder.glob(f"*/tree/{_STORE_NOTE}")):
        store = Path(os.fsdecode(note.read_bytes()))
        if store.resolve().is_relative_to(folder.resolve()):
            for processes in store.glob("runs/*/processes"):
                end_orphans(processes)


def _remove(folder: Path) -> None:
    """Remove a folder as far as that is possible: a container may leave what is another user's."""

    def allow(remove: Callable[..., Any], path: str, _error: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120 - rmtree gives texts
            if not os.path.islink(path):  # noqa: PTH114
                os.chmod(path, 0o700)  # noqa: PTH101
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else remove(path)  # noqa: PTH112, PTH114

    shutil.rmtree(folder, onerror=allow)
