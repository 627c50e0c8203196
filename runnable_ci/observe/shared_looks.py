"""What other processes of this program open on the same machine, as each says in a file that all of them share.

The run's own process and its workers watch one workspace: what one of them opens is an event for all.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 1 << 20
_GIT_BEGINS: Final = b"\x01"
_GIT_ENDS: Final = b"\x02"
_GIT_LAG_S: Final = 0.1
"""So long after it has ended its events may come."""


class SharedLooks:
    """A file of lines: who opens what, relative to the root, written before it happens."""

    def __init__(self, file: Path, root: str) -> None:
        self._root = root
        self._me = f"{os.getpid()}:".encode()
        self._write = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._read = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._rest = b""
        self._asking: set[bytes] = set()
        self._git_until_s = 0.0
        self.take()  # what was said until now is over

    def say(self, opened: object) -> None:
        """Say what this process is about to open. Safe in an audit hook."""
        if isinstance(opened, str | bytes | os.PathLike):
            path = os.fsencode(opened)
            if path.startswith(os.fsencode(self._root)) and b"\n" not in path and self._write >= 0:
                os.write(self._write, self._me + path + b"\n")

    def ask_git(self, begins: bool) -> None:
        """Say that this process begins, or has ended, to ask git."""
        if self._write >= 0:
            os.write(self._write, self._me + (_GIT_BEGINS if begins else _GIT_ENDS) + b"\n")

    def take(self) -> list[str]:
        """Return what other processes have said since this was asked last."""
        found: list[str] = []
        while self._read >= 0 and (chunk := os.read(self._read, _READ_BYTES)):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                who, _, path = line.partition(b":")
                if line.startswith(self._me):
                    continue
                if path == _GIT_BEGINS:
                    self._asking.add(who)
                elif path == _GIT_ENDS:
                    self._asking.discard(who)
                    self._git_until_s = time.monotonic() + _GIT_LAG_S
                else:
                    found.append(os.fsdecode(path))
        return found

    def others_ask_git(self) -> bool:
        """Return whether another process asks git, or did just now. What it opened meanwhile is `take`n before."""
        return bool(self._asking) or time.monotonic() < self._git_until_s

    def close(self) -> None:
        """Say and hear nothing more."""
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1
