"""From events to facts: what one attempt read, listed, made, changed and removed. Pure."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from runnable_ci.observe.inotify import (
    ACCESS,
    CLOSED_UNWRITTEN,
    CREATE,
    DELETE,
    FOLDER,
    MOVED_FROM,
    MOVED_TO,
    OPEN,
    WRITTEN,
)
from runnable_ci.observe.reads import GIT, Grade, is_tool_file
from runnable_ci.observe.watcher import Event

_BYTECODE: Final = re.compile(r"(?P<folder>.*/)?__pycache__/(?P<name>[^/]+?)\.[^/.]+(\.opt-[^/.]+)?\.pyc(\.\d+)?")


class Window(NamedTuple):
    """The time of one attempt in the list of events, `start` included, `end` not."""

    start: int
    end: int
    own: bool = False
    """Whether the program itself looked at the workspace then."""


@dataclass(slots=True)
class Trace:
    """What happened to paths of the workspace during an attempt; what was made and removed again is left out."""

    read: dict[str, Grade] = field(default_factory=dict)
    """Files that were there before and were read, or opened so that they could only be read."""
    listed: dict[str, tuple[Grade, int]] = field(default_factory=dict)
    """Folders that were there before and were listed, and how often."""
    made: set[str] = field(default_factory=set)
    """Files that were not there before."""
    changed: set[str] = field(default_factory=set)
    """Files that were there before and were written to or replaced."""
    removed: set[str] = field(default_factory=set)
    placed: set[str] = field(default_factory=set)
    """Files that got their name by a rename and were not written since."""
    stirred: Counter[str] = field(default_factory=Counter)
    """Folder → how often a name came or went in it: a reader of a folder that keeps its listing lists it again then."""
    asked_git: Grade | None = None


def trace(events: Sequence[Event], window: Window, others: Iterable[Window] = ()) -> Trace:
    """Return what the events of a window tell; what lies in another attempt's window too is only possible."""
    shared = [other for other in others if other.start < window.end and window.start < other.end]
    state = _State()
    for position, event in enumerate(events, start=window.start):
        here = [other for other in shared if other.start <= position < other.end]
        if posixpath.basename(event.path) == GIT and any(other.own for other in here):
            continue  # the program asks git itself
        state.note(event, "possible" if here else "seen")
    return state.ended()


@dataclass(slots=True, eq=False, repr=False)
class _State:
    found: Trace = field(default_factory=Trace)
    new: set[str] = field(default_factory=set)
    """Paths that did not exist when the attempt began."""
    opened: dict[str, Grade] = field(default_factory=dict)
    folders: dict[str, list[Grade]] = field(default_factory=dict)
    """Folders that are open and were not listed yet: some programs only go back to one."""
    written: set[str] = field(default_factory=set)
    """Files that were closed after they were open for writing."""

    def ended(self) -> Trace:
        for path, grade in self.opened.items():
            if path not in self.written:  # it may have been mapped into memory, or is still open
                self.found.read[path] = _better(self.found.read.get(path), grade)
        return self.found

    def note(self, event: Event, grade: Grade) -> None:
        path, mask = event
        name = posixpath.basename(path)
        if name == GIT:
            self.found.asked_git = _better(self.found.asked_git, grade)
            return
        if mask & (CREATE | DELETE | MOVED_FROM | MOVED_TO):
            self.found.stirred[posixpath.dirname(path)] += 1
        if mask & FOLDER:
            self._note_folder(path, mask, grade)
        elif match := _BYTECODE.fullmatch(path):
            # An opened byte code is its source: Python only looks at the times of that.
            if mask & CREATE:
                self.new.add(path)
            elif mask & OPEN and path not in self.new:
                source = f"{match['folder'] or ''}{match['name']}.py"
                self.found.read[source] = _better(self.found.read.get(source), grade)
        elif not is_tool_file(name):
            self._note_file(path, mask, grade)

    def _note_folder(self, path: str, mask: int, grade: Grade) -> None:
        if mask & (CREATE | MOVED_TO):
            self.new.add(path)
        elif mask & OPEN and path not in self.new:
            self.folders.setdefault(path, []).append(grade)
        elif mask & CLOSED_UNWRITTEN and self.folders.get(path):
            self.folders[path].pop()
        elif mask & ACCESS:
            for opened in self.folders.pop(path, ()):  # which of them listed it cannot be seen
                earlier, count = self.found.listed.get(path, (None, 0))
                self.found.listed[path] = (_better(earlier, opened), count + 1)

    def _note_file(self, path: str, mask: int, grade: Grade) -> None:
        found, existed = self.found, path not in self.new
        if mask & MOVED_TO:
            found.placed.add(path)
        elif mask & (CREATE | WRITTEN | DELETE | MOVED_FROM):
            found.placed.discard(path)
        if mask & (CREATE | MOVED_TO):
            if path in found.removed or path in self.opened or path in found.changed:
                found.removed.discard(path)
                found.changed.add(path)  # replaced: what was there before may have been read
            else:  # where a rename replaced a file, who looked before the step knows of it
                found.made.add(path)
                self.new.add(path)
        elif mask & (DELETE | MOVED_FROM):
            if existed:
                found.removed.add(path)
            found.made.discard(path)
            found.changed.discard(path)
        elif existed:
            self._note_use(path, mask, grade)

    def _note_use(self, path: str, mask: int, grade: Grade) -> None:
        if mask & WRITTEN:
            self.found.changed.add(path)
            self.written.add(path)
        elif path in self.found.changed:
            return  # a read after an own write is no input
        elif mask & OPEN:
            self.opened[path] = _better(self.opened.get(path), grade)
        elif path in self.opened and mask & (ACCESS | CLOSED_UNWRITTEN):  # else it is the program's own look
            # Opened for writing alone is no read: to append to a log depends on nothing in it.
            # Who opened it counts: the program reads it too, to hash it, once the other attempt has ended.
            self.found.read[path] = _better(self.found.read.get(path), self.opened[path])


def _better(earlier: Grade | None, grade: Grade) -> Grade:
    return "seen" if "seen" in (earlier, grade) else "possible"
