"""Keeps the files of a step's checkpoint while it runs, and once more when it has ended.

A generation is all of them as they were at one moment: none is being written then, and none has changed when the last
one is copied. What stays open for writing, as a log does, counts as it was kept last, or not at all. Of a process that
a signal ended, only what was seen closed before counts, or what got its name when it was complete.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from runnable_ci.errors import RunnableError
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.checkpoints.contents import KeptFiles
from runnable_ci.runs.checkpoints.open_files import open_for_writing
from runnable_ci.runs.files.checkpoint_model import Checkpoint, CheckpointFile
from runnable_ci.runs.model import LINK
from runnable_ci.util.clock import now
from runnable_ci.util.files import fingerprint_of
from runnable_ci.util.process import start_time
from runnable_ci.util.text import listed
from runnable_ci.util.threads import start

_LOOK_S = 1.0
_ENDING_LOOK_S = 0.01
"""A process that was asked to end may write its last checkpoint and be gone soon after."""
_SHARE = 0.02
"""Of the time at most that looks take."""
_STABLE_S = 2.0
"""Where nobody tells what is open: how long a file must be the same."""
_PATIENCE_S = 10.0
"""How long a new file is waited for that is open for writing."""
_AFTER_END_S = 0.5
"""How long a shell may take to end after the program that it waited for was killed."""
_PASSES = 5
"""How often files are copied that change meanwhile."""


class Look(NamedTuple):
    """What was there at one moment."""

    files: Mapping[str, tuple[int, ...]]
    """Name → fingerprint."""
    links: Mapping[str, CheckpointFile]
    busy: frozenset[str]
    """Files that are open for writing."""


@dataclass(slots=True, eq=False, repr=False)
class Keeper:
    """Keeps the checkpoints of one attempt, in a thread of its own."""

    catalog: Catalog
    contents: KeptFiles
    patterns: Sequence[str]
    every_s: float
    report: Callable[[Checkpoint, Callable[[], None]], None]
    """Takes a generation that is whole, and what is to be called once it is recorded."""
    say: Callable[[str], None]
    is_ending: Callable[[], bool]
    """Whether the process was asked to end."""
    took: Callable[[float], None] = lambda _seconds: None
    """Takes how long it took to copy files."""
    restored: Mapping[str, CheckpointFile] = field(default_factory=dict)
    """What the attempt resumed from."""
    newest: Checkpoint | None = None
    """The attempt's own newest generation."""
    matched: set[str] = field(default_factory=set)
    """The globs that have matched something."""
    unfit: dict[str, RunnableError] = field(default_factory=dict)
    """What they matched and no checkpoint can hold, as a link that leads out of the workspace."""
    _known: dict[str, tuple[tuple[int, ...], CheckpointFile]] = field(default_factory=dict)
    """What was copied, or restored, by its fingerprint."""
    _closed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Files as they were when nobody had them open for writing."""
    _since: dict[str, tuple[tuple[int, ...], float]] = field(default_factory=dict)
    _busy_since: dict[str, float] = field(default_factory=dict)
    _pids: frozenset[int] = frozenset()
    _session: int = 0
    _unsure_until_s: float = 0.0
    """Until then a file may look closed since a signal ended who wrote it."""
    _stopped: threading.Event = field(default_factory=threading.Event)
    _recorded: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _said: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: bool = False

    def know(self, name: str, file: CheckpointFile) -> None:
        """Know a file that was restored, so that it need not be copied."""
        self._known[name] = (fingerprint_of((self.catalog.workspace / name).lstat()), file)

    def start(self, session: int) -> None:
        """Keep what the processes of a session write from now on."""
        self._session = session
        self._recorded.set()
        self._thread = start(self._keep_on, name="checkpoints")

    def stop(self) -> None:
        """Keep nothing more while it runs."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def keep_last(self, *, is_complete: bool, placed: Collection[str]) -> None:
        """Make what is there a generation when the process has ended.

        `is_complete`: it came to its own end. Else a file counts only as it was seen closed, or where it was `placed`,
        renamed after it was written.
        """
        with self._lock:
            self._is_over = True
        with self._telling():
            look = self._look(None)
            unsure = {name for name, seen in look.files.items() if self._changed(name, seen)}
            if is_complete:
                unsure = set()
            unsure -= {name for name in unsure if name in placed or self._closed.get(name) == look.files[name]}
            if unsure:
                named = listed(sorted(unsure))
                self._tell(f"not in the checkpoint, as a signal may have ended a write to it: {named}")
            if unsure & self._last().keys():
                return  # beside the others as they are now it would be of another moment
            self._make(look._replace(busy=frozenset(unsure)), is_over=True)

    def look_once(self) -> None:
        """See what the globs match now, which nothing is kept of: a short attempt may have ended before any look."""
        with self._telling():
            self._look(None)

    # -- while it runs

    def _keep_on(self) -> None:
        due_s, pause_s = time.monotonic() + self.every_s, min(_LOOK_S, self.every_s / 4)
        wait_s = pause_s
        while not self._stopped.wait(_ENDING_LOOK_S if self.is_ending() else wait_s):
            begun_s = time.monotonic()
            is_due = begun_s >= due_s and self._recorded.is_set()
            with self._telling():
                look = self._look_alive()
                if look is not None and is_due and self._make(look):
                    due_s = time.monotonic() + self.every_s
            moment_s = time.monotonic()
            rest_s = 0.0 if is_due else min((moment_s - begun_s) / _SHARE, due_s - moment_s)
            wait_s = max(pause_s, rest_s)

    def _look_alive(self) -> Look | None:
        """Return what is there; None where the process, or one of its own, has ended since: it may be half-written."""
        opened = open_for_writing(self._session)
        pids, self._pids = self._pids, opened.pids if opened else frozenset()
        look = self._look(None if opened is None else opened.files, is_running=True)
        # Asked afterwards: what a process had open when it ended is not seen as open.
        if opened and pids - opened.pids:
            self._unsure_until_s = float("inf") if self.is_ending() else time.monotonic() + _AFTER_END_S
        if time.monotonic() < self._unsure_until_s or not start_time(self._session):
            return None
        self._closed |= {name: seen for name, seen in look.files.items() if name not in look.busy}
        moment = time.monotonic()
        self._busy_since = {name: self._busy_since.get(name, moment) for name in look.busy}
        return look

    def _look(self, opened: Collection[tuple[int, int]] | None, *, is_running: bool = False) -> Look:
        found = self.catalog.files.find(self.patterns, is_strict=False)
        self.matched |= {pattern for pattern, names in found.names.items() if names}
        self.unfit |= found.unfit
        files: dict[str, tuple[int, ...]] = {}
        links: dict[str, CheckpointFile] = {}
        busy: set[str] = set()
        for name in sorted(found.all_names() - found.unfit.keys() - found.folders):
            try:
                at = (self.catalog.workspace / name).stat(follow_symlinks=name not in found.links)
            except OSError:  # it is gone
                continue
            if name in found.links:
                links[name] = _link(found.links[name], at.st_mtime_ns)
                continue
            files[name] = fingerprint_of(at)
            if is_running and self._is_busy(name, at, files[name], opened):
                busy.add(name)
        return Look(files, links, frozenset(busy))

    def _is_busy(
        self, name: str, at: os.stat_result, seen: tuple[int, ...], opened: Collection[tuple[int, int]] | None
    ) -> bool:
        if opened is not None:
            return (at.st_dev, at.st_ino) in opened
        if self._since.get(name, ((), 0.0))[0] != seen:
            self._since[name] = (seen, time.monotonic())
        return self._changed(name, seen) and time.monotonic() - self._since[name][1] < _STABLE_S

    def _last(self) -> Mapping[str, CheckpointFile]:
        return self.newest.files if self.newest else self.restored

    def _changed(self, name: str, seen: tuple[int, ...]) -> bool:
        return name not in self._known or self._known[name][0] != seen

    def _make(self, look: Look, *, is_over: bool = False) -> bool:
        """Make a generation of what is there; whether all is kept now."""
        last = self._last()
        for _ in range(_PASSES):
            if self._is_soon_closed(look):
                return False
            older = look.busy & last.keys()
            begun_s = time.monotonic()
            files = self._copied(look)
            self.took(time.monotonic() - begun_s)
            again = self._look(None)._replace(busy=look.busy) if is_over else self._look_alive()
            if again is None:
                return False
            if files is not None and _rests(look, again):
                return self._new_generation(files | {name: last[name] for name in older}, is_over=is_over)
            look = again
        self._tell("the checkpoint changes faster than it can be copied: none is kept until it rests")
        return False

    def _copied(self, look: Look) -> dict[str, CheckpointFile] | None:
        """Return what is not being written, copied where it is new; None where something changed meanwhile."""
        files = dict(look.links)
        for name, seen in look.files.items():
            if name in look.busy:
                continue
            if self._changed(name, seen):
                try:
                    copy = self.contents.keep(self.catalog.workspace / name, seen)
                except FileNotFoundError:
                    return None
                if copy is None:
                    return None
                self._known[name] = (seen, copy)
            files[name] = self._known[name][1]
        return files

    def _is_soon_closed(self, look: Look) -> bool:
        """Return whether to wait for files that are being written.

        What is open for longer is a log: its older state counts, or nothing of it.
        """
        open_s = {name: time.monotonic() - self._busy_since.get(name, 0.0) for name in look.busy}
        new_s = min(self.every_s, _PATIENCE_S)
        return any(it <= (self.every_s if name in self._last() else new_s) for name, it in open_s.items())

    def _new_generation(self, files: dict[str, CheckpointFile], *, is_over: bool) -> bool:
        if not files or _same(files, self._last()):
            return True
        self.contents.sync()
        # Of the generation before, which is the newest one recorded, nothing goes until this one is.
        self.newest = made = Checkpoint(
            generation=self.newest.generation + 1 if self.newest else 1, time=now(), files=files
        )
        if not is_over:
            self._recorded.clear()
            self.report(made, partial(self._forget_others, made))
        return True

    def _forget_others(self, made: Checkpoint) -> None:
        """Remove what the generations before this one had, which is recorded now."""
        with self._lock:
            if not self._is_over:  # else the last one may be under way
                self.contents.forget_all_but({file.data_hash for file in made.files.values()})
        self._recorded.set()

    # -- what cannot be kept stops no step

    def _telling(self) -> _Telling:
        return _Telling(self._tell)

    def _tell(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            self.say(problem)


class _Telling:
    """Says once why a checkpoint could not be kept."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, RunnableError):
            self._tell(f"the checkpoint could not be kept: {error.message}")
        elif isinstance(error, OSError):
            self._tell(f"the checkpoint could not be kept: {error.strerror or error}")
        return isinstance(error, RunnableError | OSError)


def _rests(look: Look, again: Look) -> bool:
    """Return whether all that was closed is still as it was, and nothing was added."""
    closed = {name: seen for name, seen in look.files.items() if name not in look.busy}
    is_same = all(again.files.get(name) == seen for name, seen in closed.items())
    return is_same and again.files.keys() - again.busy <= closed.keys() and again.links == look.links


def _link(target: str, mtime_ns: int) -> CheckpointFile:
    text = target.encode(errors="surrogateescape")
    digest = hashlib.sha256(text).hexdigest()
    return CheckpointFile(data_hash=digest, size=len(text), kind=LINK, target=target, mtime_ns=mtime_ns)


def _same(one: Mapping[str, CheckpointFile], other: Mapping[str, CheckpointFile]) -> bool:
    return {name: file.data_hash for name, file in one.items()} == {
        name: file.data_hash for name, file in other.items()
    }
