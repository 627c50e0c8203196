"""Windows 10 1809 or Server 2019 and newer: from there on an open file can be removed.

Reasoned from Microsoft's documentation and proved by the type checker, as far as that goes; see docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import msvcrt
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from ctypes import wintypes
from pathlib import Path
from typing import Final

from runnable_ci.util.system.windows_rules import GIT_SHELLS, git_shell, is_valid_filename

assert sys.platform == "win32"  # noqa: S101 - for the type checker: what follows is there on Windows only

__all__ = ["is_valid_filename"]

CANCEL_SIGNALS: Final = (signal.SIGINT, signal.SIGBREAK)
END: Final = signal.SIGBREAK
KILL: Final = signal.SIGTERM  # no process can be asked by it: it ends
CREATION_FLAGS: Final = 0x200  # CREATE_NEW_PROCESS_GROUP
SELECTS_PIPES: Final = False
CHANGE_TIMES: Final = False
IGNORES_CASE: Final = True
READS_AT: Final = False
_ARGUMENT_MAX_CHARACTERS = 8 * 1024
"""A quarter of what a whole command line may have: quotes and backslashes are doubled in it."""
_IN_USE_S = 5.0
"""How long a file may be open elsewhere (a reader, a virus scanner) that is to be replaced."""
_POLL_S = 0.1

# Source: winnt.h, fileapi.h, minwinbase.h, jobapi2.h
_GENERIC_READ, _GENERIC_WRITE = 0x80000000, 0x40000000
_SHARE_ALL = 0x1 | 0x2 | 0x4
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_ATTRIBUTE_NORMAL = 0x80
_LOCK_FAIL_IMMEDIATELY, _LOCK_EXCLUSIVE = 0x1, 0x2
_LOCK_VIOLATION, _IO_PENDING = 33, 997
_PROCESS_TERMINATE, _PROCESS_SET_QUOTA, _SYNCHRONIZE = 0x0001, 0x0100, 0x00100000
_WAIT_TIMEOUT = 258
_EXTENDED_LIMIT_INFORMATION = 9
_KILL_ON_JOB_CLOSE = 0x2000
_NAME_SURROGATE = 0x20000000  # IsReparseTagNameSurrogate of ntifs.h


class _Overlapped(ctypes.Structure):
    """OVERLAPPED, of which only the position counts here."""

    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", wintypes.DWORD),
        ("offset_high", wintypes.DWORD),
        ("event", wintypes.HANDLE),
    )


class _JobLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, of which only the flags count here."""

    _fields_ = (
        ("process_time", wintypes.LARGE_INTEGER),
        ("job_time", wintypes.LARGE_INTEGER),
        ("flags", wintypes.DWORD),
        ("working_set", ctypes.c_size_t * 2),
        ("active_processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority_class", wintypes.DWORD),
        ("scheduling_class", wintypes.DWORD),
        ("io_counters", ctypes.c_ulonglong * 6),
        ("memory", ctypes.c_size_t * 4),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_INVALID_HANDLE = wintypes.HANDLE(-1).value

_create_file = _kernel32.CreateFileW
_create_file.argtypes = [
    *(wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p),
    *(wintypes.DWORD, wintypes.DWORD, wintypes.HANDLE),
]
_create_file.restype = wintypes.HANDLE
_lock_file = _kernel32.LockFileEx
_lock_file.argtypes = [wintypes.HANDLE, *[wintypes.DWORD] * 4, ctypes.POINTER(_Overlapped)]
_lock_file.restype = wintypes.BOOL
_create_job = _kernel32.CreateJobObjectW
_create_job.argtypes = [ctypes.c_void_p, wintypes.LPCWSTR]
_create_job.restype = wintypes.HANDLE
_limit_job = _kernel32.SetInformationJobObject
_limit_job.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
_limit_job.restype = wintypes.BOOL
_assign_to_job = _kernel32.AssignProcessToJobObject
_assign_to_job.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
_assign_to_job.restype = wintypes.BOOL
_terminate_job = _kernel32.TerminateJobObject
_terminate_job.argtypes = [wintypes.HANDLE, wintypes.UINT]
_terminate_job.restype = wintypes.BOOL
_open_process = _kernel32.OpenProcess
_open_process.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_open_process.restype = wintypes.HANDLE
_wait_for = _kernel32.WaitForSingleObject
_wait_for.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_wait_for.restype = wintypes.DWORD
_close_handle = _kernel32.CloseHandle
_close_handle.argtypes = [wintypes.HANDLE]
_close_handle.restype = wintypes.BOOL


# -- files


def open_descriptor(path: Path, flags: int, mode: int = 0o644) -> int:  # noqa: ARG001 - Windows has no such modes
    """As `posix` has it: Python's own `open` would let nobody rename or remove the file, and translate line ends."""
    access = {os.O_RDONLY: _GENERIC_READ, os.O_WRONLY: _GENERIC_WRITE}.get(
        flags & (os.O_WRONLY | os.O_RDWR), _GENERIC_READ | _GENERIC_WRITE
    )
    creation = _OPEN_EXISTING
    if flags & os.O_CREAT:
        creation = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    handle = _create_file(str(path), access, _SHARE_ALL, None, creation, _ATTRIBUTE_NORMAL, None)
    if handle in (None, _INVALID_HANDLE):
        raise _error(path)
    return msvcrt.open_osfhandle(handle, flags & os.O_APPEND | os.O_BINARY | os.O_NOINHERIT)


def open_nofollow(path: str, flags: int) -> int:
    """As `posix` has it, but for who puts a link in the file's place between the two looks."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return os.open(path, flags | os.O_BINARY | os.O_NOINHERIT)


def lock(descriptor: int, *, wait: bool, shared: bool = False) -> None:
    """As `posix` has it, by a lock on one byte far behind the content: who holds no lock reads and writes as ever."""
    flags = (0 if shared else _LOCK_EXCLUSIVE) | (0 if wait else _LOCK_FAIL_IMMEDIATELY)
    position = _Overlapped(offset=0xFFFFFFFE, offset_high=0x7FFFFFFF)
    if not _lock_file(msvcrt.get_osfhandle(descriptor), flags, 0, 1, 0, ctypes.byref(position)):
        if ctypes.get_last_error() in (_LOCK_VIOLATION, _IO_PENDING):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock")
        raise _error()


def replace(source: Path, target: Path) -> None:
    """As `posix` has it; who has the target open is waited for a while, then it is a `PermissionError`."""
    until = time.monotonic() + _IN_USE_S
    while True:
        try:
            source.replace(target)
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(_POLL_S)
        else:
            return


def sync_file(path: Path) -> None:
    """As `posix` has it; Windows does this for those only who may write."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def copy_part(_source: int, _target: int, _count: int) -> int:
    """`OSError`: the system copies by name only."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def read_at(_descriptor: int, _buffer: memoryview, _position: int) -> int:
    """`OSError`: reading moves the position."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def start_writeback(descriptor: int, position: int, count: int) -> None:
    """Nothing."""


def is_link(path: Path | os.DirEntry[str]) -> bool:
    """As `posix` has it: a symbolic link, a junction, or whatever else stands for another name."""
    return bool(path.stat(follow_symlinks=False).st_reparse_tag & _NAME_SURROGATE)


def owner_of(_path: Path) -> int:
    """Nobody's number: who may write where is for Windows to know."""
    return 0


def current_user() -> int:
    """Nobody's number either."""
    return 0


def mode_of(_path: Path) -> int:
    """What a file of this kind has elsewhere: Windows knows a file as a program by its name."""
    return 0o644


def set_mode(path: Path, mode: int) -> None:
    """Nothing: what is marked as read-only can neither be replaced nor removed."""


def copy_mode(source: int, target: int) -> None:
    """Nothing."""


# -- processes


class ProcessGroup:
    """A process and what it started, in a job. All of it ends with us, should we be killed.

    What the process starts before it is in the job would be missed: that is the moment between two of our statements.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._process = _open_process(_PROCESS_TERMINATE | _PROCESS_SET_QUOTA | _SYNCHRONIZE, False, pid)
        self._job = _create_job(None, None)
        self._limit(_KILL_ON_JOB_CLOSE)
        _assign_to_job(self._job, self._process)  # says no for a process that has ended

    def send(self, number: signal.Signals) -> None:
        """End all of them, or press Ctrl-Break for the process and what it started in its group."""
        with contextlib.suppress(OSError):
            if number == KILL:
                _terminate_job(self._job, 1)
                os.kill(self._pid, KILL)
            elif _wait_for(self._process, 0) == _WAIT_TIMEOUT:  # else all in the console might get it
                os.kill(self._pid, signal.CTRL_BREAK_EVENT)

    def close(self) -> None:
        """As `posix` has it."""
        self._limit(0)
        _close_handle(self._job)
        _close_handle(self._process)

    def _limit(self, flags: int) -> None:
        limits = _JobLimits(flags=flags)
        _limit_job(self._job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits))


def kill_group(_pid: int) -> None:
    """Nothing: what a step started ends with the process that started the step."""


def program(name: str, environ: Mapping[str, str]) -> str:
    """As `posix` has it, from the given PATH alone: Windows would look into our folder and its own first."""
    path = environ.get("PATH", "")
    stem = name.casefold().removesuffix(".exe")
    if stem in GIT_SHELLS:
        found = git_shell(stem, lambda word: shutil.which(word, path=path), Path.is_file)
    else:
        found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def can_be_argument(program: str, text: str) -> bool:
    """As `posix` has it. Git's shells have rules of their own for how a command line is split, and expand `*` in it."""
    return program not in GIT_SHELLS and len(text) < _ARGUMENT_MAX_CHARACTERS


def call_after(delay_s: float, action: Callable[[], None]) -> None:
    """As `posix` has it, from a thread: there is no timer that interrupts."""
    timer = threading.Timer(delay_s, action)
    timer.daemon = True
    timer.start()


def _error(path: Path | None = None) -> OSError:
    """The last error, as Python's own functions would raise it."""
    code = ctypes.get_last_error()
    return OSError(0, ctypes.FormatError(code), None if path is None else str(path), code)
