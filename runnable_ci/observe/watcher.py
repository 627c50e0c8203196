"""Watch a workspace while steps run: which files were opened, which folders were listed, what was made and removed.

The rules are those that tracing build tools learned the hard way; each is named where it is applied.
"""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.observe.entries import entries_of
from runnable_ci.observe.inotify import (
    ACCESS,
    ATTRIBUTES,
    CHANGES,
    CLOSED_UNWRITTEN,
    CREATE,
    FOLDER,
    MOVED_TO,
    OPEN,
    OVERFLOW,
    UNSURE,
    WRITTEN,
    Inotify,
)
from runnable_ci.observe.looks.own import OwnLooks
from runnable_ci.observe.reads import GIT
from runnable_ci.observe.unwatchable import UNWATCHED, reason_of, remote_kind
from runnable_ci.util.threads import start

CANARY: Final = "canary"
CANARY_TIMEOUT_S: Final = 1.0
_LOOKS_MAX: Final = 10
"""Rounds in which others make new folders without end."""
REST_MS: Final = 20
"""Between two looks at the queue: in that time processes on all cores do not fill it."""


class Event(NamedTuple):
    """What happened to a path; of a folder itself `mask` has `FOLDER`. `path` is relative to the workspace, posix."""

    path: str
    mask: int


class Watcher:
    """What happens below a folder, as an ordered list of events. Safe in threads.

    `around` is the repository that the workspace lies in, which is watched too. `scratch` is a folder of this program
    with a canary: a file whose opening must cause an event, else nothing is seen. `own` is what no step has opened.
    `reason` says why nothing can be seen, "" while it can.
    """

    def __init__(self, root: Path, scratch: Path, around: Path | None = None, own: OwnLooks | None = None) -> None:
        self.root = os.path.realpath(root)
        self.around = os.path.realpath(around) if around else self.root
        self.reason = ""
        self.links: dict[str, str] = {}
        """Symbolic links of the workspace → where they point to, as written."""
        self._scratch = scratch
        self._canary_file = str(scratch / CANARY)
        self._lock = threading.RLock()
        self._closing = threading.Lock()
        self._folders: dict[int, str] = {}
        self._watched: dict[str, int] = {}
        self._events: list[Event] = []
        self._trimmed = 0
        self.own = own or OwnLooks(self.root)
        self._canary = -1
        self._canaries = 0
        self._lost_at = -1
        self._has_unwatched = False
        """Whether events were lost, and with them perhaps new folders, since all were last watched."""
        self._has_looked = False
        """Whether a new folder was looked into since a canary was laid."""
        self._changed: set[str] | None = None
        self._asked_git: set[str] = set()
        self._inotify: Inotify | None = None
        self._thread: threading.Thread | None = None
        self._wake_read = self._wake_write = -1
        try:
            self._start()
        except OSError as e:
            self._give_up(reason_of(e))

    def mark(self) -> int:
        """Return a position in the list that lies behind all that has happened until now."""
        with self._lock:
            if self._inotify is not None and not self.reason:
                is_seen = self._sees_canary()
                if is_seen and self._has_unwatched:
                    self._watch_again()
                    is_seen = self._sees_canary()
                for _ in range(_LOOKS_MAX):  # the events of looks into new folders come behind the canary's
                    if not (is_seen and self._has_looked):
                        break
                    self._has_looked = False
                    is_seen = self._sees_canary()
                if not is_seen:
                    self._give_up("files can be opened here without an event")
                self.own.clear()  # what is left would hide a step's
            return self.position()

    def position(self) -> int:
        """Return the position behind what is in the list by now, which costs nothing: more may have happened."""
        return self._trimmed + len(self._events)

    def between(self, start: int, end: int) -> list[Event] | None:
        """Return the events from one position to another; None where some of them were not seen."""
        with self._lock:
            if self.reason or self._inotify is None or start < self._trimmed or start <= self._lost_at < end:
                return None
            return self._events[start - self._trimmed : end - self._trimmed]

    def take_changed(self) -> set[str] | None:
        """Return the paths that were changed since this was asked last, and `.git` where a git was at work.

        None where they are not known, as at first. A file that is open for writing counts once it is closed.
        """
        with self._lock:
            if self._inotify is not None:
                self._take(0.0)
            found, self._changed = self._changed, None if self._has_unwatched else set()
            asked, self._asked_git = self._asked_git, set()
            if found is None or self.reason or self._inotify is None:
                return None
            return found | asked

    def forget_git(self) -> None:
        """Leave out of that who only read in `.git` until now: it was the program itself."""
        with self._lock:
            if self._inotify is not None:
                self._take(0.0)
            self._asked_git.clear()

    def forget(self, before: int) -> None:
        """Drop the events before a position that is not needed any more."""
        with self._lock:
            count = max(0, min(before - self._trimmed, len(self._events)))
            del self._events[:count]
            self._trimmed += count

    def close(self) -> None:
        """Stop watching. May be called twice, also at the same time: the kernel takes a while to remove watches."""
        with self._closing:
            if self._wake_write >= 0:
                os.close(self._wake_write)
                if self._thread is not None:
                    self._thread.join()
                os.close(self._wake_read)
                self._wake_write = -1
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None
            self.own.close()

    # -- starting

    def _start(self) -> None:
        if kind := remote_kind(self.root):
            raise OSError(0, f"a {kind} file system does not tell what others do with its files")
        self._inotify = Inotify()
        self._lay_canary()
        for folder in self._folders_below(""):
            self._add(folder)
        if self.around != self.root:
            self._add_around()
        self.mark()
        self.forget(self.position())
        self.own.listen()
        self._wake_read, self._wake_write = os.pipe()
        # Without a thread the queue is read at each mark alone: an overflow in between is reported.
        self._thread = start(self._keep_reading, name="watcher")

    def _watch_again(self) -> None:
        """Watch the folders whose making was among the events that were lost."""
        self._has_unwatched = False
        try:
            for folder in self._folders_below(""):
                self._add(folder)
            if self.around != self.root:
                self._add_around()
        except OSError as e:
            self._give_up(reason_of(e))

    def _lay_canary(self) -> None:
        assert self._inotify is not None  # noqa: S101 - for the type checker
        self._scratch.mkdir(parents=True, exist_ok=True)
        Path(self._canary_file).touch()
        self._canary = self._inotify.add(str(self._scratch))

    def _folders_below(self, top: str) -> list[str]:
        """Return a folder and those below it that are to be watched: each look at one that is already is an event."""
        found, waiting = [], [top]
        while waiting:
            folder = waiting.pop()
            if (inner := entries_of(f"{self.root}/{folder}")) is None:
                continue
            found.append(folder)
            prefix = f"{folder}/" if folder else ""
            for name in inner.links:
                self._add_link(prefix + name)
            if inner.has_git:
                found.append(prefix + GIT)
            waiting += [prefix + name for name in inner.folders]
        return found

    def _add_new(self, top: str) -> None:
        """Watch a new folder and those below it; what lies in there counts as made, as its events may be missed."""
        waiting = [top]
        self._has_looked = True
        while waiting:
            folder = waiting.pop()
            self._add(folder)  # before the look: what is made in between counts twice, never not at all
            if (inner := entries_of(f"{self.root}/{folder}")) is None:
                continue
            for name in inner.links:
                self._add_link(f"{folder}/{name}")
            for name in inner.files:
                self._events += [Event(f"{folder}/{name}", CREATE), Event(f"{folder}/{name}", WRITTEN)]
            if inner.has_git:
                self._add(f"{folder}/{GIT}")
            below = [f"{folder}/{name}" for name in inner.folders]
            self._events += [Event(path, CREATE | FOLDER) for path in below]
            waiting += below

    def _add(self, folder: str) -> None:
        assert self._inotify is not None  # noqa: S101 - for the type checker
        try:
            watch = self._inotify.add(f"{self.root}/{folder}")
        except OSError as e:
            if isinstance(e, FileNotFoundError | NotADirectoryError):  # gone already
                return
            raise
        # A folder that was renamed keeps its watch, whose number is given again.
        self._watched.pop(self._folders.get(watch, ""), None) if watch in self._folders else None
        self._folders[watch] = folder
        self._watched[folder] = watch

    def _add_link(self, path: str) -> None:
        """Watch where a link points to, if that is outside: a read through it has the link's name."""
        assert self._inotify is not None  # noqa: S101 - for the type checker
        full = f"{self.root}/{path}"
        try:
            self.links[path] = os.readlink(full)
            target = os.path.realpath(full)
            if target == self.root or target.startswith(f"{self.root}/"):
                return
            if os.path.isdir(target):
                self._add_outside(path, target)
            elif os.path.exists(target):
                self._folders[self._inotify.add(target, folder=False)] = path
        except OSError as e:
            if e.filename is None:  # not the link, but the watch
                raise

    def _add_outside(self, link: str, target: str) -> None:
        assert self._inotify is not None  # noqa: S101 - for the type checker
        for at, folders, _ in os.walk(target):
            folders[:] = [name for name in folders if name not in UNWATCHED and name != GIT]
            inner = os.path.relpath(at, target)
            self._folders[self._inotify.add(at)] = link if inner == "." else f"{link}/{inner}"

    def _add_around(self) -> None:
        """Watch the repository around the workspace; what lies there has a path that begins with `..`."""
        for at, folders, names in os.walk(self.around):
            inner = os.path.relpath(at, self.root)
            if "pyvenv.cfg" in names:
                folders.clear()
                continue
            if GIT in folders:
                self._add(f"{inner}/{GIT}")
            folders[:] = [
                name for name in folders if name not in UNWATCHED and name != GIT and f"{at}/{name}" != self.root
            ]
            self._add(inner)

    # -- reading

    def _keep_reading(self) -> None:
        """Empty the queue again and again: the kernel drops what does not fit into it."""
        woken = select.poll()
        woken.register(self._wake_read, select.POLLIN)
        either = select.poll()
        either.register(self._wake_read, select.POLLIN)
        with self._lock:
            if self._inotify is None:
                return
            either.register(self._inotify.descriptor, select.POLLIN)
        while True:
            either.poll()
            if woken.poll(REST_MS):  # else each event of a step would wake this thread
                return
            with self._lock:
                if self._inotify is None:
                    return
                self._take(0.0)

    def _sees_canary(self) -> bool:
        """Open the canary and read events until its own comes: all earlier ones have come then."""
        while self._inotify is not None:
            canaries, lost_at = self._canaries, self._lost_at
            try:
                if not os.path.exists(self._canary_file):  # a step removed it
                    self._lay_canary()
                os.close(os.open(self._canary_file, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as e:
                self._give_up(e.strerror or str(e))
                return False
            while self._canaries == canaries and self._lost_at == lost_at:
                if not self._take(0.0) and not self._take(CANARY_TIMEOUT_S):
                    return False
            if self._canaries > canaries:
                return True
            # The queue was full: the event of this canary is lost, too.
        return False

    def _take(self, timeout_s: float) -> bool:
        """Take what is in the queue; whether there was something."""
        assert self._inotify is not None  # noqa: S101 - for the type checker
        found = False
        try:
            moment = time.monotonic()
            events = list(self._inotify.read(timeout_s))
            self.own.hear_others(moment)
            for watch, mask, name in events:
                found = True
                if mask & OVERFLOW:
                    self._lost_at = self._trimmed + len(self._events)
                    self._has_unwatched, self._changed = True, None
                    self._events.append(Event("", OVERFLOW))  # has a position of its own
                elif watch == self._canary:
                    self._canaries += bool(mask & OPEN and name == CANARY)
                elif watch in self._folders:
                    self._note(self._folders[watch], mask, name)
        except OSError as e:
            self._give_up(reason_of(e))
        return found

    def _note(self, folder: str, mask: int, name: str) -> None:
        is_git = folder == GIT or folder.endswith(f"/{GIT}")
        path = f"{folder}/{name}" if folder and name else folder or name
        if self._changed is not None and mask & CHANGES and not (mask & FOLDER and mask & ATTRIBUTES):
            self._changed.add(folder if is_git else path)
        if is_git:
            # Each git opens HEAD; who looks at the index alone, as `show` in another terminal, is none.
            is_asked = mask & OPEN and name not in ("", "index")
            if is_asked and not self.own.take(path) and not self.own.others_ask_git:
                self._asked_git.add(folder)
                self._events.append(Event(folder, OPEN))
            return
        if mask & ATTRIBUTES:
            return
        if mask & FOLDER:
            if mask & (ACCESS | CLOSED_UNWRITTEN):
                if not name:  # whether it was listed, or only opened
                    self._events.append(Event(folder, mask))
                return
            if mask & OPEN:
                if not (name or self.own.take(folder)):  # one with a name has an event of its listing, too
                    self._events.append(Event(folder, mask | self._doubt()))
                return
            if name in UNWATCHED:
                return
            self._events.append(Event(path, mask))
            if mask & (CREATE | MOVED_TO):
                self._add(path) if name == GIT else self._add_new(path)
            return
        if mask & OPEN:
            if self.own.take(path):
                return
            mask |= self._doubt()
        if mask & OPEN and name == GIT:  # a file that says where the repository is
            self._asked_git.add(path)
        self._events.append(Event(path, mask))
        if mask & (CREATE | MOVED_TO) and os.path.islink(f"{self.root}/{path}"):
            self._add_link(path)

    def _doubt(self) -> int:
        """Return the mark for what may be of a git that another process asks; else 0."""
        return UNSURE if self.own.others_ask_git else 0

    def _give_up(self, reason: str) -> None:
        """Nothing is seen from now on; the queue stays open for the thread that waits for it."""
        self.reason = self.reason or reason
        self.own.close()
