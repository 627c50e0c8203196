"""Where a run's own files are in a store, who holds their locks, and whether the run is being written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runnable_ci.errors import StoreError
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import require_plain
from runnable_ci.store.target import TAG
from runnable_ci.util.clock import format_timestamp
from runnable_ci.util.files import share_lock, try_lock

JOURNAL = "journal.jsonl"
ORIGIN = "origin"
"""Beside the journal of a run that was pulled: where from."""
CARRIED = "carried"
"""Beside the journal of a run of which parts came in folders."""
MADE_HERE = "made-here"
"""Beside the journal of a run that this store made, and whose content has left it for where it was published."""
HELD = "held.json"
"""Beside the journal: which published runs hold contents that this one took from them, and that need not be here."""
IN_PROGRESS = "in-progress"
"""Beside the journal of a run that was pulled while another machine was writing it: which."""
WRITERS = "writers.json"
"""Beside the journal: whose parts of the run were pulled, and what this store published itself."""
PROCESSES = "processes"
"""Beside the journal of a run that is being written: the processes of its steps."""
OUTPUTS = "logs"
"""Beside the journal: what the attempts wrote, until the run is sealed."""
CHECKPOINTS = "checkpoints"
"""Beside the journal: what steps keep of their own work, until the run is sealed."""
SENDING = ".sending"
"""In that folder: what of it is being published while the next generation may take its place."""
READS_SUFFIX = ".reads"
"""Of the documents beside them that say what each attempt read."""
_RUNS = "runs"
ELSEWHERE = "elsewhere"
"""Beside the runs: what is known of their attempts that other machines run, until their end is recorded."""
STORE_LOCK = "store.lock"
"""Shared by all who write runs, held alone by who removes content."""


def run_folder(layout: Layout, run_id: str) -> Path:
    """Return where a run's own files are. Raises `StoreError` for what is no run id, and where links are among them."""
    if not TAG.fullmatch(run_id):
        raise StoreError(f"{run_id!r} in {layout.label} is not a run id")
    folder = layout.own_folder(_RUNS, run_id)
    layout.own_folder(_RUNS, run_id, OUTPUTS)
    layout.own_folder(_RUNS, run_id, CHECKPOINTS)
    return folder


def is_pulled(layout: Layout, run_id: str) -> bool:
    """Return whether what is not in the store of a run may be in a registry."""
    folder = run_folder(layout, run_id)
    return (folder / ORIGIN).exists() or (folder / HELD).exists()


def is_foreign(layout: Layout, run_id: str) -> bool:
    """Return whether a run came from a registry, or in folders."""
    folder = run_folder(layout, run_id)
    return ((folder / ORIGIN).exists() or (folder / CARRIED).exists()) and not (folder / MADE_HERE).exists()


def run_folders(layout: Layout) -> dict[str, Path]:
    """Return run id → folder of all runs that have one; what is in it is not looked at, as `run_folder` does."""
    runs = layout.folder / _RUNS
    if not runs.is_dir():
        return {}
    with os.scandir(runs) as entries:
        found = [e for e in entries if TAG.fullmatch(e.name) and not e.is_file(follow_symlinks=False)]
    for entry in found:
        if entry.is_symlink():
            require_plain(Path(entry.path))
    return {entry.name: runs / entry.name for entry in found}


def lock_run(folder: Path) -> int | None:
    """Lock a run for writing: a descriptor that holds the lock while it is open, None where another process has it."""
    return try_lock(folder / "lock")


def is_running(layout: Layout, run_id: str) -> bool:
    """Return whether a process is writing the run at this moment."""
    folder = run_folder(layout, run_id)
    if not (folder / "lock").exists():
        return False
    lock = lock_run(folder)
    if lock is not None:
        os.close(lock)
    return lock is None


@contextmanager
def shared(layout: Layout) -> Iterator[None]:
    """Prevent removal of runs and content from the store in the block."""
    lock = share_lock(layout.folder / STORE_LOCK)
    try:
        yield
    finally:
        os.close(lock)


def last_write_time(folder: Path) -> str:
    """Return when a run was written to last, empty where no file tells.

    It is the best guess of when its process was killed: a step that runs has the folder of outputs touched each second.
    """
    signs = (folder / JOURNAL, folder / OUTPUTS, *folder.glob(f"{OUTPUTS}/*"))
    written = [path.stat().st_mtime for path in signs if path.exists()]
    return format_timestamp(max(written)) if written else ""


def in_flight(layout: Layout, run_id: str) -> frozenset[str]:
    """Return the attempts of a run that other machines have and whose end is not recorded, as `STEP.ATTEMPT`.

    The machine may be gone.
    """
    folder = layout.folder / ELSEWHERE / run_id / "attempts"
    if not os.path.lexists(folder):  # nearly always
        return frozenset()
    require_plain(layout.folder / ELSEWHERE)
    require_plain(folder)
    return frozenset(path.name for path in folder.iterdir())
