"""Processes that a program left running when it ended: those of its session, and those that carry its mark.

A session, or a group, is left by `setsid`; the environment is not, but by what clears it. So a mark stands in the
program's environment, where all that it starts inherits it, as Jenkins and GitHub's runner do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

VARIABLE = "RUNNABLE_PROCESS_MARKS"
"""The marks of a process: of the program that it belongs to, and of those that started this one."""
SETTLE_S = 0.2
"""How long what is left may take to end by itself: helpers often end a moment after what they served."""
_LOOK_S = 0.01


class Leftover(NamedTuple):
    """A process that outlived its program."""

    pid: int
    name: str


class ProcessTable:
    """Finds what programs left running that were started after it was made."""

    def __init__(self) -> None:
        self._older = _pids()

    def left(self, group: int, mark: str) -> list[Leftover]:
        """Return what runs in the session and group `group`, or has `mark` in its environment (on Linux)."""
        if sys.platform != "linux":
            return _in_group(group)
        # Most of the machine's processes are older and need no look, which is what makes this cheap.
        pids = _pids()
        self._older &= pids
        return [process for pid in pids - self._older if (process := _leftover(int(pid), group, mark.encode()))]

    def end(self, group: int, mark: str, *, grace_s: float, is_urgent: Callable[[], bool]) -> Iterator[Leftover]:
        """End what is left: with time to end by itself, then by SIGTERM, then by SIGKILL; yield what was ended so.

        Where it `is_urgent` only SIGKILL is sent. What that does not end, such as another user's, stays.
        """
        seen: set[Leftover] = set()
        for number, patience_s in ((None, SETTLE_S), (signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
            until = time.monotonic() + patience_s
            sent: set[Leftover] = set()
            while left := self.left(group, mark):
                if number is not signal.SIGKILL and is_urgent():
                    break
                if number is not None:
                    new = [process for process in left if process not in sent]
                    sent.update(new)
                    for process in new:
                        with suppress(ProcessLookupError, PermissionError):
                            os.kill(process.pid, number)
                    yield from (process for process in new if process not in seen)
                    seen.update(new)
                if time.monotonic() >= until:
                    break
                time.sleep(_LOOK_S)
            else:
                return


def _pids() -> set[str]:
    if sys.platform != "linux":
        return set()
    return {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - a Path a process takes longer


def _leftover(pid: int, group: int, mark: bytes) -> Leftover | None:
    """Return a process of Linux if it belongs to the group's session or has the mark; None else, or if it has ended."""
    try:
        session = os.getsid(pid)
        if session == os.getsid(0):
            return None  # ours: what we start for ourselves may have the mark of a program that started us
        if session != group and mark not in Path(f"/proc/{pid}/environ").read_bytes():
            return None
        before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:  # it has ended, or is another user's
        return None
    return None if after.split()[0] in ("Z", "X") else Leftover(pid, before.partition("(")[2])


def _in_group(group: int) -> list[Leftover]:
    """Return a group as one process, whose name is not known, if it has members."""
    try:
        os.killpg(group, 0)
    except OSError:
        return []
    return [Leftover(-group, "a process")]
