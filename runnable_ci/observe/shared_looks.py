"""What other processes of this program open on the same machine, as each says in a file that all of them share.

The run's own process and its workers watch one workspace: what one of them opens is an event for all.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 1 << 20
_GIT_BEGINS: Final = b"\x01"
_GIT_ENDS: Final = b"\x02"
_GIT_LAG_S: Final = 0.1
"""So long after it has ended its events may come."""
_GIT_MAX_S: Final = 60.0
"""Who asks for longer was killed before it said that it had ended."""


class _Descriptor:
    """A descriptor that is closed once no thread uses it: its number may be another file's from then on."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class SharedLooks:
    """A file of lines: who opens what, relative to the root, written before it happens."""

    def __init__(self, file: Path, root: str) -> None:
        self._root = root
        self._me = f"{os.getpid()}:".encode()
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._write: _Descriptor | None = _Descriptor(os.open(file, append, 0o600))
        self._read: _Descriptor | None = _Descriptor(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
        self._rest = b""
        self._asking: dict[bytes, float] = {}
        self._git_until_s = 0.0
        self.take()  # what was said until now is over

    def say(self, opened: object) -> None:
        """Say what this process is about to open. Safe in an audit hook."""
        if isinstance(opened, str | bytes | os.PathLike):
            path = os.fsencode(opened)
            if path.startswith(os.fsencode(self._root)) and b"\n" not in path and (file := self._write):
                with suppress(OSError):  # the disk is full: to the others it is a step's
                    os.write(file.number, self._me + path + b"\n")

    def ask_git(self, begins: bool) -> None:
        """Say that this process begins, or has ended, to ask git, and when: the clock is the whole machine's."""
        if file := self._write:
            moment = f"{time.monotonic()}\n".encode()
            os.write(file.number, self._me + (_GIT_BEGINS if begins else _GIT_ENDS) + moment)

    def take(self) -> list[str]:
        """Return what other processes have said since this was asked last."""
        found: list[str] = []
        file = self._read
        while file and (chunk := os.read(file.number, _READ_BYTES)):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                who, _, path = line.partition(b":")
                if line.startswith(self._me):
                    continue
                if path.startswith(_GIT_BEGINS):
                    self._asking[who] = float(path[1:])
                elif path.startswith(_GIT_ENDS):
                    self._asking.pop(who, None)
                    self._git_until_s = float(path[1:]) + _GIT_LAG_S  # not from when it is heard, which may be late
                else:
                    found.append(os.fsdecode(path))
        return found

    def others_ask_git(self) -> bool:
        """Return whether another process asks git, or did just now. What it opened meanwhile is `take`n before."""
        moment = time.monotonic()
        is_asking = any(moment < since_s + _GIT_MAX_S for since_s in self._asking.values())
        return is_asking or moment < self._git_until_s

    def close(self) -> None:
        """Say and hear nothing more."""
        self._read = self._write = None
