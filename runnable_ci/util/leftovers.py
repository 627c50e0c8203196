"""Processes that a program left running when it ended: those of its session, those that carry its mark, the adopted.

A session, or a group, is left by `setsid`; the environment is not, but by what clears it. So a mark stands in the
program's environment, where all that it starts inherits it, as Jenkins and GitHub's runner do. What has left both is
found on Linux by its parent: what loses that becomes a child of the process that asked for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

VARIABLE = "RUNNABLE_PROCESS_MARKS"
"""The marks of a process: of the program that it belongs to, and of those that started this one."""
SETTLE_S = 0.2
"""How long what is left may take to end by itself: helpers often end a moment after what they served."""
_LOOK_S = 0.01
_READ_BYTES: Final = 1 << 14
_EXEC_LOOKS: Final = 100
_EXEC_LOOK_S = 0.001
"""A process that replaces its program has no environment for a moment; it is waited for."""
_PR_SET_CHILD_SUBREAPER: Final = 36
"""Source: prctl(2), linux/prctl.h."""
_ENDED: Final = ("Z", "X")


PS: Final = ("ps", "-A", "-E", "-ww", "-o", "pid=,ppid=,pgid=,stat=,command=")
"""Lists all processes of macOS, with the environment of those whose user it is behind the command. Source: ps(1)."""


class Leftover(NamedTuple):
    """A process that outlived its program."""

    pid: int
    name: str


class Row(NamedTuple):
    """A process as the system lists it."""

    pid: int
    parent: int
    session: int
    """On macOS its group."""
    name: str
    marks: frozenset[str]
    """Those in its environment, as far as that can be read."""


def read_proc(name: str) -> bytes:
    """Return a file of Linux's `/proc`; without a `Path` and its file, which take longer, since each step reads some.

    Raises `OSError`.
    """
    file = os.open(f"/proc/{name}", os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(file, _READ_BYTES), b""))
    finally:
        os.close(file)


def adopt_orphans() -> None:
    """Have what loses its parent, among all that descends from this process, become its child: on Linux."""
    if sys.platform == "linux":
        import ctypes  # late: only where steps run

        with suppress(OSError, AttributeError):  # without it, what left session and environment is not found
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))


class ProcessTable:
    """Finds what programs left running that were started after it was made. `listed` gives what `PS` prints."""

    def __init__(self, listed: Callable[[], bytes] = bytes) -> None:
        self._older = _pids()
        self._listed = listed

    def spare(self, pid: int) -> None:
        """Find a process no longer: nothing ends it."""
        self._older.add(str(pid))

    def left(
        self, group: int, mark: str, *, leaders: Collection[int] = (), is_alone: Callable[[], bool] = lambda: False
    ) -> list[Leftover]:
        """Return what runs in the session and group `group`, has `mark` in its environment, or was adopted.

        The `leaders` are other programs that run: they need no look.
        Of what was adopted nothing says which program started it: it counts while no other one runs, as `is_alone`
        says.
        """
        if sys.platform != "linux":
            marked = belonging(parsed_rows(self._listed()), (), {mark}, _own_session())
            return _in_group(group) or [Leftover(row.pid, row.name) for row in marked]
        # Most of the machine's processes are older and need no look, which is what makes this cheap.
        pids = _pids()
        self._older &= pids
        new = pids.difference(self._older, map(str, tuple(leaders)))
        parent = os.getpid() if new and is_alone() else 0  # asked after the list was made: none is of a later program
        return [process for pid in new if (process := _leftover(int(pid), group, mark, parent))]

    def end(
        self,
        group: int,
        mark: str,
        *,
        grace_s: float,
        is_urgent: Callable[[], bool],
        leaders: Collection[int] = (),
        is_alone: Callable[[], bool] = lambda: False,
    ) -> Iterator[Leftover]:
        """End what is left: with time to end by itself, then by SIGTERM, then by SIGKILL; yield what was ended so.

        Where it `is_urgent` only SIGKILL is sent. What that does not end, such as another user's, stays.
        """
        seen: set[Leftover] = set()
        for number, patience_s in ((None, SETTLE_S), (signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
            until = time.monotonic() + patience_s
            sent: set[Leftover] = set()
            while left := self.left(group, mark, leaders=leaders, is_alone=is_alone):
                if number is not signal.SIGKILL and is_urgent():
                    break
                if number is not None:
                    new = [process for process in left if process not in sent]
                    sent.update(new)
                    for process in new:
                        _send(process.pid, number)
                    yield from (process for process in new if process not in seen)
                    seen.update(new)
                if time.monotonic() >= until:
                    break
                time.sleep(_LOOK_S)
            else:
                return


def reap(running: Collection[int]) -> None:
    """Let adopted processes that have ended go; the `running` children are waited for elsewhere."""
    try:
        children = read_proc(f"self/task/{os.getpid()}/children").split()
    except OSError:  # another system, or one without this list
        return
    for pid in map(int, children):
        with suppress(OSError):  # it is gone
            if pid not in running and os.getsid(pid) != _own_session():
                os.waitpid(pid, os.WNOHANG)


def kill_all(leaders: Collection[int], marks: Collection[str], *, listed: Callable[[], bytes], within_s: float) -> None:
    """Kill the sessions of these leaders, what descends from them, and what has one of the marks.

    It is looked for again until nothing is found: what runs may start something else meanwhile.
    """
    until = time.monotonic() + within_s
    while found := [row for row in belonging(_rows(listed), leaders, marks, _own_session()) if _may_end(row.pid)]:
        for row in found:
            _send(row.pid, signal.SIGKILL)
        if time.monotonic() >= until:
            return
        time.sleep(_LOOK_S)


def marks_like(beginnings: tuple[str, ...], *, listed: Callable[[], bytes]) -> set[str]:
    """Return the marks in the environments of all processes that begin with one of these texts."""
    return {mark for row in _rows(listed) for mark in row.marks if mark.startswith(beginnings)}


def belonging(rows: Collection[Row], leaders: Collection[int], marks: Collection[str], own: int) -> list[Row]:
    """Return the processes of these leaders or marks, but none of the session or group `own`."""
    found = {row.pid for row in rows if row.pid in leaders or row.session in leaders or not row.marks.isdisjoint(marks)}
    more = found
    while more:
        more = {row.pid for row in rows if row.parent in more} - found
        found |= more
    return [row for row in rows if row.pid in found and row.session != own]


def parsed_rows(output: bytes) -> list[Row]:
    """Return the processes of what `PS` prints, without those that have ended."""
    found = []
    for line in output.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) > 4 and words[3][0] not in _ENDED and all(word.isdigit() for word in words[:3]):
            pid, parent, group = map(int, words[:3])
            values = (word.partition("=")[2] for word in words[5:] if word.startswith(f"{VARIABLE}="))
            marks = frozenset(mark for value in values for mark in value.split(","))
            found.append(Row(pid, parent, group, words[4].rpartition("/")[2], marks))
    return found


def _rows(listed: Callable[[], bytes]) -> list[Row]:
    if sys.platform != "linux":
        return parsed_rows(listed())
    return [row for pid in _pids() if (row := _row(int(pid)))]


def _row(pid: int) -> Row | None:
    """Return a process of Linux; None where it has ended."""
    for _ in range(_EXEC_LOOKS):
        try:
            session = os.getsid(pid)
            before, _, after = read_proc(f"{pid}/stat").decode(errors="replace").rpartition(")")
        except OSError:
            return None
        state, parent = after.split()[:2]
        if state in _ENDED:
            return None
        marks = _marks(pid)
        if marks is not None or not session:  # threads of the system have neither session nor environment
            break
        time.sleep(_EXEC_LOOK_S)
    return Row(pid, int(parent), session, before.partition("(")[2], marks or frozenset())


def _marks(pid: int) -> frozenset[str] | None:
    """Return the marks of a process of Linux; None where it has no environment and no arguments, not even empty ones.

    So it is between one program and the next: it has left the old memory, and the new one is not filled in.
    """
    try:
        environ = read_proc(f"{pid}/environ")
        if not environ and not read_proc(f"{pid}/cmdline"):
            return None
    except OSError:  # it is another user's, or hides it, as an agent does that keeps keys
        return frozenset()
    value = (b"\0" + environ).partition(f"\0{VARIABLE}=".encode())[2].partition(b"\0")[0]
    return frozenset(value.decode(errors="replace").split(","))


def _pids() -> set[str]:
    if sys.platform != "linux":
        return set()
    return {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - a Path a process takes longer


def _leftover(pid: int, group: int, mark: str, parent: int) -> Leftover | None:
    """Return a process of Linux if it is in the group's session, has the mark, or was adopted by `parent`, if any.

    None where it has ended.
    """
    row = _row(pid)
    if row is None or row.session == _own_session():
        return None  # ours: what we start for ourselves may have the mark of a program that started us
    is_adopted = parent and row.parent == parent and _may_end(pid)
    return Leftover(pid, row.name) if row.session == group or mark in row.marks or is_adopted else None


def _own_session() -> int:
    return os.getsid(0) if sys.platform == "linux" else os.getpgid(0)


def _may_end(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _in_group(group: int) -> list[Leftover]:
    """Return a group as one process, whose name is not known, if it has members."""
    try:
        os.killpg(group, 0)
    except OSError:
        return []
    return [Leftover(-group, "a process")]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
