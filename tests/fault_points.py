"""Lets the system refuse one call that the program makes, in a process of the test's own.

The program's doors to the system are replaced by ones that count, and fail at one place: the functions of `os`, `open`
and what is done with the files that it opens, locks, and the start of processes. A place is named by the line of the
program that calls, and the line in another module that led there: `write_whole` of the run log is another place than
that of an index. Calls of the standard library and of other packages count for the line that called those.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import runnable_ci

PACKAGE = f"{Path(runnable_ci.__file__).parent}{os.sep}"
OF_OS = (
    *(
        "open",
        "read",
        "write",
        "pread",
        "pwrite",
        "fsync",
        "fdatasync",
        "ftruncate",
        "copy_file_range",
        "posix_fadvise",
    ),
    *("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "link", "symlink", "chmod", "fchmod", "utime"),
    *("stat", "lstat", "fstat", "statvfs", "readlink", "scandir", "listdir", "pipe", "pidfd_open", "access"),
    "posix_fadvise",
)
OF_FILES = ("read", "readline", "readinto", "write", "flush", "truncate")


@dataclass(frozen=True)
class Fault:
    """One call to fail: the `nth` at a place, by an error number."""

    place: str
    nth: int
    number: int


@dataclass
class Doors:
    """Counts the calls at each place; fails one."""

    fault: Fault | None = None
    places: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_through(self, name: str) -> None:
        """Count a call; raises `OSError` where it is the one to fail."""
        place = place_of(sys._getframe(2), name)
        if not place:
            return
        with self.lock:
            self.places[place] += 1
            count = self.places[place]
        if self.fault and (place, count) == (self.fault.place, self.fault.nth):
            raise OSError(self.fault.number, os.strerror(self.fault.number))

    def install(self) -> None:
        """Replace the doors of this process for good."""
        for name in OF_OS:
            if hasattr(os, name):
                setattr(os, name, self._guarded(getattr(os, name), name))
        fcntl.flock = self._guarded(fcntl.flock, "flock")
        files: Any = sys.modules["runnable_ci.util.files"]
        files._to_disk = self._guarded(files._to_disk, "fdatasync")
        opened = self._guarded(io.open, "open")

        def open_watched(*arguments: Any, **options: Any) -> Any:
            return WatchedFile(opened(*arguments, **options), self)

        builtins.open = io.open = open_watched
        started = subprocess.Popen.__init__

        def start(process: Any, *arguments: Any, **options: Any) -> None:
            self.pass_through("Popen")
            started(process, *arguments, **options)

        subprocess.Popen.__init__ = start  # type: ignore[method-assign, assignment]

    def _guarded(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.pass_through(name)
            return function(*arguments, **options)

        return guarded


class WatchedFile:
    """A file of which reading and writing may fail."""

    def __init__(self, file: Any, doors: Doors) -> None:
        self._file, self._doors = file, doors

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        return self._doors._guarded(found, f"file.{name}") if name in OF_FILES else found

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        self._doors.pass_through("file.read")
        return iter(self._file)


def place_of(frame: FrameType | None, name: str) -> str:
    """Where the program calls, as `module:line < module:line: call`; empty where it does not."""
    inner = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file == subprocess.__file__ and name != "Popen":
            return ""  # its pipe to the new process: the system does not refuse to read it
        if file.startswith(PACKAGE):
            here = f"{file.removeprefix(PACKAGE)}:{frame.f_lineno}"
            if inner and not here.startswith(f"{inner.partition(':')[0]}:"):
                return f"{inner} < {here}: {name}"
            inner = inner or here
        frame = frame.f_back
    return f"{inner}: {name}" if inner else ""
