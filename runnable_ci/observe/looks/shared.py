"""What other processes of this program open on the same machine, as each says in a file that all of them share.

Who watches a workspace listens, and announces its own looks before they happen: runs and workers. So does each command
in another terminal, from its very start. There is one file for a repository, as workspaces in it are watched with all
that is around them.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from errno import EPERM
from typing import Final

from runnable_ci.observe.looks import announcing
from runnable_ci.observe.looks.openings import listen, unlisten
from runnable_ci.util.files import lock

_READ_BYTES: Final = 1 << 20
_GIT_BEGINS: Final = b"\x01"
_GIT_ENDS: Final = b"\x02"
_STORE: Final = b"/.runnable/"
"""Is not watched."""
_GIT_MAX_S: Final = 60.0
"""Who asks for longer was killed before it said that it had ended."""


def announce_to_watchers(root: str, file: str) -> None:
    """Announce from now on what this process opens below a root, if a run listens to that in a file.

    What a step calls is its own look: nothing is announced by a process that a run has started, however.
    """
    with suppress(OSError):
        if _is_heard(file) and not _is_started_by_a_run(file):
            Announcer(file, root)


def stop_announcing() -> None:
    """Announce nothing more."""
    for one in tuple(announcing):
        one.close()


class _Descriptor:
    """A descriptor that is closed once no thread uses it: its number may be another file's from then on."""

    number = -1

    def __init__(self, file: str, flags: int) -> None:
        self.number = os.open(file, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # by then this module may be gone
        if self.number >= 0:
            close(self.number)


class Announcer:
    """Writes lines into the file: who opens what below a root, before it happens. A process has one at most."""

    def __init__(self, file: str, root: str) -> None:
        stop_announcing()
        self._root = os.fsencode(root)
        _require_own_folder(os.path.dirname(file))
        self._me = f"{os.getpid()}:".encode()
        self._file: _Descriptor | None = _Descriptor(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        announcing.append(self)
        listen(self.say)

    def say(self, path: bytes) -> None:
        """Say what this process is about to open. Safe in an audit hook."""
        if path.startswith(self._root) and b"\n" not in path and _STORE not in path and (file := self._file):
            with suppress(OSError):  # the disk is full: to the others it is a step's
                os.write(file.number, self._me + path + b"\n")

    def ask_git(self, *, begins: bool) -> None:
        """Say that this process begins, or has ended, to ask git, and when: the clock is the whole machine's."""
        if file := self._file:
            with suppress(OSError):
                moment = f"{time.monotonic()}\n".encode()
                os.write(file.number, self._me + (_GIT_BEGINS if begins else _GIT_ENDS) + moment)

    def close(self) -> None:
        """Say nothing more."""
        self._file = None
        announcing[:] = [one for one in announcing if one is not self]
        unlisten(self.say)


class Announced:
    """What other processes say in the file from now on. While it is open they know that it is listened to."""

    def __init__(self, file: str) -> None:
        _require_own_folder(os.path.dirname(file))
        self._path = file
        self._me = f"{os.getpid()}:".encode()
        self._file: _Descriptor | None = _Descriptor(file, os.O_RDWR | os.O_CREAT)
        with suppress(OSError):  # a file system without locks: then all announce
            _begin_to_hear(self._file.number)
        self._rest = b""
        self._asking: dict[bytes, float] = {}
        self._git_until_s = 0.0
        self.take()  # what was said until now is over

    def take(self) -> list[str]:
        """Return the absolute paths that other processes have said since this was asked last."""
        found: list[str] = []
        file = self._file
        while file and (chunk := os.read(file.number, _READ_BYTES)):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                who, _, path = line.partition(b":")
                if line.startswith(self._me):
                    continue
                if path.startswith((_GIT_BEGINS, _GIT_ENDS)):
                    with suppress(ValueError):  # torn, as where the disk was full
                        self._note_git(who, float(path[1:]), begins=path.startswith(_GIT_BEGINS))
                else:
                    found.append(os.fsdecode(path))
        return found

    def _note_git(self, who: bytes, moment_s: float, *, begins: bool) -> None:
        if begins:
            self._asking[who] = moment_s
        else:
            self._asking.pop(who, None)
            self._git_until_s = max(self._git_until_s, moment_s)

    def asked_git_since(self, moment_s: float) -> bool:
        """Return whether another process asks git, or did since a moment, as far as it was `take`n."""
        now_s = time.monotonic()
        return self._git_until_s >= moment_s or any(now_s < since_s + _GIT_MAX_S for since_s in self._asking.values())

    def close(self) -> None:
        """Hear nothing more; the last one removes the file."""
        if file := self._file:
            self._file = None
            with suppress(OSError):
                lock(file.number, wait=False)
                os.unlink(self._path)


def _begin_to_hear(number: int) -> None:
    """Hold the file's lock together with all that listen; who finds nobody empties it of what a killed run left."""
    with suppress(BlockingIOError):
        lock(number, wait=False)
        os.ftruncate(number, 0)
    lock(number, wait=True, shared=True)


def _is_heard(path: str) -> bool:
    """Return whether a process listens to what is written into a file, which must be this user's own."""
    file = _Descriptor(path, os.O_RDONLY)
    found = os.fstat(file.number)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        return False
    try:
        lock(file.number, wait=False)
    except BlockingIOError:
        return True
    return False


def _require_own_folder(folder: str) -> None:
    """Make the folder of the files; raise `OSError` where another user may write into it."""
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(EPERM, "may have been written by another user", folder)


def _is_started_by_a_run(file: str) -> bool:
    """Return whether a process that this one comes from listens to a file: it is a step's, whatever its variables."""
    process, file = os.getppid(), os.path.realpath(file)
    while process > 1:
        with suppress(OSError):  # of another user
            for entry in os.scandir(f"/proc/{process}/fd"):
                if os.readlink(entry.path) == file and _is_for_both(f"/proc/{process}/fdinfo/{entry.name}"):
                    return True
        try:
            with open(f"/proc/{process}/stat", "rb") as status:
                process = int(status.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):  # it has ended
            return False
    return False


def _is_for_both(place: str) -> bool:
    """Return whether a descriptor, by what the system says of it, reads and writes: who only announces writes."""
    with open(place, "rb") as about:
        flags = next((line.split()[1] for line in about if line.startswith(b"flags:")), b"0")
    return int(flags, 8) & os.O_ACCMODE == os.O_RDWR
