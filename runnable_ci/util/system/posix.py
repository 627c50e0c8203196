"""Linux, macOS, and what else is POSIX."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

assert sys.platform != "win32"  # noqa: S101 - for the type checker: what follows is not there on Windows

CANCEL_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which a person or a runner ends us."""
END: Final = signal.SIGTERM
"""Asks a process to end."""
KILL: Final = signal.SIGKILL
"""Ends a process."""
CREATION_FLAGS: Final = 0
"""For `Popen`, beside `start_new_session`: the process leads a group of its own."""
SELECTS_PIPES: Final = True
"""Whether one thread can wait for several pipes at once."""
CHANGE_TIMES: Final = True
"""Whether `st_ctime` is when a file was changed, whatever programs set its other times to."""
IGNORES_CASE: Final = sys.platform == "darwin"
"""Whether two names that differ in capital letters alone are one file, on most of its disks."""
READS_AT: Final = hasattr(os, "preadv")
"""Whether one thread can read from a descriptor where another one writes to it."""
_ARGUMENT_MAX_BYTES = 64 * 1024


# -- files


def open_descriptor(path: Path, flags: int, mode: int = 0o644) -> int:
    """A descriptor of a file in binary, which others may rename, replace and remove meanwhile."""
    return os.open(path, flags, mode)


def open_nofollow(path: str, flags: int) -> int:
    """Opens neither through a link nor waits for a pipe's other end: either may have taken the file's place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def lock(descriptor: int, *, wait: bool, shared: bool = False) -> None:
    """Lock a file until the descriptor is closed, by us or by the end of the process.

    `BlockingIOError` where that would have to be waited for and `wait` is not set.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)


def replace(source: Path, target: Path) -> None:
    """Give a file another name, in place of what has it."""
    source.replace(target)


def sync_file(path: Path) -> None:
    """Return when a file's content would survive a crash of the machine."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def copy_part(source: int, target: int, count: int) -> int:
    """How many bytes, at most `count`, the system has copied from where one descriptor stands to where another does.

    `OSError` where it cannot.
    """
    if sys.platform == "linux":
        return os.copy_file_range(source, target, count)
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def read_at(descriptor: int, buffer: memoryview, position: int) -> int:
    """How many bytes were read from a position, whatever position the descriptor has; 0 at the end."""
    return os.preadv(descriptor, [buffer], position)


def start_writeback(descriptor: int, position: int, count: int) -> None:
    """Let the system begin to write a part of a file to the disk, if it can be told: less is left for the end."""
    if sys.platform == "linux":  # that it may forget what is written is harmless
        with contextlib.suppress(AttributeError, OSError):
            os.posix_fadvise(descriptor, position, count, os.POSIX_FADV_DONTNEED)


def mode_of(path: Path) -> int:
    """Who may do what with a file, as POSIX counts it."""
    return stat.S_IMODE(path.stat().st_mode)


def set_mode(path: Path, mode: int) -> None:
    """Say who may do what with a file."""
    path.chmod(mode)


def copy_mode(source: int, target: int) -> None:
    """Let who may do what with one open file hold for another."""
    os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode))


def is_link(path: Path | os.DirEntry[str]) -> bool:
    """Whether what has that name is somewhere else."""
    return path.is_symlink()


def owner_of(path: Path) -> int:
    """The number of the user that a file or folder belongs to."""
    return path.lstat().st_uid


def current_user() -> int:
    """The number of the user that this process acts as."""
    return os.geteuid()


def is_valid_filename(_name: str) -> bool:
    """Whether a file can have that path, whose parts are separated by `/`."""
    return True


# -- processes


class ProcessGroup:
    """A process that leads a group of its own, and what it started."""

    def __init__(self, pid: int) -> None:
        self._group = pid

    def send(self, number: signal.Signals) -> None:
        """Give all of them a signal. Safe in a signal handler."""
        _signal_group(self._group, number)

    def close(self) -> None:
        """Give back what it took to know them; those that still run go on."""


def kill_group(pid: int) -> None:
    """Kill what a process started that led a group of its own, and that we may not have started."""
    _signal_group(pid, KILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def program(name: str, _environ: Mapping[str, str]) -> str:
    """What to start for a program's name. Raises `FileNotFoundError`, or leaves that to the start."""
    return name


def can_be_argument(_program: str, text: str) -> bool:
    """Whether a text surely reaches that program as one argument, and as it is."""
    return len(text.encode(errors="surrogateescape")) < _ARGUMENT_MAX_BYTES


def call_after(delay_s: float, action: Callable[[], None]) -> None:
    """Interrupt the main thread by a call, later, whatever it waits for then. No thread is needed for it."""
    signal.signal(signal.SIGALRM, lambda *_: action())
    signal.setitimer(signal.ITIMER_REAL, delay_s)
