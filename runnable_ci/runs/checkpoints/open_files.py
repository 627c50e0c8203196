"""Which files a step has open for writing: what it writes at this moment is no checkpoint yet."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NamedTuple

_WRITABLE = 0o200
"""Of the link that Linux shows for a descriptor: it is open for writing. Source: proc_pid_fd(5)."""


class OpenFiles(NamedTuple):
    """What the processes of a session have open for writing."""

    files: frozenset[tuple[int, int]]
    """Device and number."""
    pids: frozenset[int]


def open_for_writing(session: int) -> OpenFiles | None:
    """Return what the processes of a session have open for writing; None where the system does not tell of all."""
    if sys.platform != "linux":
        return None
    found: set[tuple[int, int]] = set()
    pids = {pid for pid in _pids() if _session_of(pid) == session}
    for pid in pids:
        try:
            found.update(_of_process(f"/proc/{pid}/fd"))
        except PermissionError:  # another user's, as by sudo
            return None
        except OSError:  # it is gone
            continue
    return OpenFiles(frozenset(found), frozenset(pids))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names alone


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _of_process(folder: str) -> set[tuple[int, int]]:
    found = set()
    for descriptor in os.listdir(folder):  # noqa: PTH208 - names alone
        with suppress(FileNotFoundError):
            path = f"{folder}/{descriptor}"
            if os.lstat(path).st_mode & _WRITABLE:
                file = os.stat(path)  # noqa: PTH116 - one of many
                found.add((file.st_dev, file.st_ino))
    return found
