"""One run at a time works in a workspace: two would take each other's files, and record them as their own.

The lock is a file in the store beside the pipeline file, and so in the workspace itself: every path to the folder,
every user and every container that shares it meets the same file, which no folder of a user's own would do. `run` and
`retry` have no other store; `--store` is for commands that do not work in a workspace. A step may remove that file
with the store (`git clean -fdx`), so the folder itself is marked too, where the file system has locks for folders. The
system frees both when their process ends, however that happens.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runnable_ci.errors import UsageError
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.files import mark_folder, try_lock
from runnable_ci.util.text import format_time

VARIABLE = "RUNNABLE_WORKSPACE_LOCKS"
"""Tells the steps' processes which locks they may work under: the nonces, with commas between them."""
LOCK = "workspace.lock"
_NAMING_S = 1.0
"""How long a holder may take to write its name after it has got the lock."""
_POLL_S = 0.1
_HOLDER_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that works in a workspace; parameters are no part of its command, since they may be secrets."""

    run_id: str
    command: str
    pid: int
    start_time: str
    nonce: str

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.command}, process {self.pid}, since {format_time(self.start_time)} UTC)"


@contextmanager
def hold_workspace(
    layout: Layout,
    run_id: str,
    command: str,
    *,
    environ: Mapping[str, str],
    wait_s: float,
    say: Callable[[str], None],
) -> Iterator[Mapping[str, str]]:
    """Hold the workspace of a store in the block; yield the environment for the steps, whose own runs may work in it.

    A run that was started by a step of the holder works under the holder's lock. Raises `UsageError` where another run
    has it and keeps it for `wait_s` seconds.
    """
    held = _acquire(layout, environ, wait_s, say)
    if not held:
        yield environ
        return
    lock = held[0]
    try:
        holder = Holder(run_id, command, os.getpid(), now(), secrets.token_hex(16))
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(asdict(holder)).encode(), 0)
        outer = [nonce for nonce in environ.get(VARIABLE, "").split(",") if nonce]
        yield {**environ, VARIABLE: ",".join([*outer, holder.nonce])}
    finally:
        with suppress(OSError):  # a name without a lock tells nothing
            os.ftruncate(lock, 0)
        for descriptor in held:
            os.close(descriptor)


def _acquire(layout: Layout, environ: Mapping[str, str], wait_s: float, say: Callable[[str], None]) -> list[int]:
    """Return the descriptors that hold the lock, that of its file first.

    Empty where the lock is held by the run that this one was started by.
    """
    workspace = layout.folder.parent
    begin = time.monotonic()
    announced = False
    while True:
        layout.create()  # each time: a step of the holder may have removed the store
        held = _try_locks(layout.folder / LOCK, workspace)
        if isinstance(held, list):
            return held
        waited_s = time.monotonic() - begin
        # The variable alone proves nothing: that run may be over, and another one have the lock.
        if isinstance(held, Holder) and held.nonce in environ.get(VARIABLE, "").split(","):
            return []
        if held is not None or waited_s > _NAMING_S:
            name = str(held or "another run")
            if waited_s >= wait_s:
                waited = f", still after {wait_s / 60:g} min" if wait_s else ""
                raise UsageError(
                    f"the workspace {workspace} is in use by {name}{waited}", hint="wait for it with --wait, or stop it"
                )
            if not announced:
                say(f"waiting up to {wait_s / 60:g} min for {name}")
                announced = True
        time.sleep(_POLL_S)


def _try_locks(path: Path, workspace: Path) -> list[int] | Holder | str | None:
    """Return the descriptors that hold the lock; else who does, None while nobody has written its name."""
    try:
        lock = try_lock(path)
    except FileNotFoundError:  # the store was removed just now
        return None
    if lock is None:
        return _holder(path)
    try:
        mark = mark_folder(workspace)
    except BlockingIOError:
        os.close(lock)
        return _nameless(workspace)
    return [lock] if mark is None else [lock, mark]


def _holder(path: Path) -> Holder | None:
    """Return who wrote its name into the lock; None while nobody has, or where it cannot be read."""
    try:
        with path.open("rb") as file:
            return Holder(**json.loads(file.read(_HOLDER_MAX_BYTES)))
    except (OSError, ValueError, TypeError):
        return None


def _nameless(workspace: Path) -> str:
    """Return who works in a folder whose store, which had its name, was removed: the system may know the process."""
    try:
        inode = str(workspace.stat().st_ino)
        with open("/proc/locks", encoding="ascii") as file:  # Source: proc_locks(5)
            locks = [line.split() for line in file]
    except (OSError, ValueError):
        locks = []
    found = [
        words[4] for words in locks if words[1:4] == ["FLOCK", "ADVISORY", "READ"] and words[5].endswith(f":{inode}")
    ]
    process = f" (process {found[0]})" if len(found) == 1 and found[0] != "0" else ""
    return f"another run{process}, whose store was removed"
