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
    UNSURE,
    WRITTEN,
)
from runnable_ci.observe.reads import GIT, Grade, is_tool_file
from runnable_ci.observe.watcher import Event

_BYTECODE: Final = re.compile(r"(?P<folder>.*/)?__pycache__/(?P<name>[^/]+?)\.[^/.]+(\.opt-[^/.]+)?\.pyc(\.\d+)?")
COMING: Final = CREATE | MOVED_TO
NAMED: Final = COMING | DELETE | MOVED_FROM
"""A name came or went."""


class Window(NamedTuple):
    """The time of one attempt in the list of events, `start` included, `end` not."""

    start: int
    end: int
    own: bool = False
    """Whether the program itself looked at the workspace then."""

    def overlaps(self, other: Window) -> bool:
        """Return whether both were open at the same time."""
        return self.start < other.end and other.start < self.end


class PassingName(NamedTuple):
    """A name that came or went while other steps ran, by a hand that is not known."""

    was_there: bool
    """Surely before that: a rename may have replaced a file, or not."""
    is_listed: bool | None
    """Whether it was there when its folder was listed; None where that is not known, or now so and now otherwise."""


@dataclass(slots=True)
class _Presence:
    was_there: bool
    is_there: bool
    since: int
    """How many listings of its folder were seen when it came, or went."""
    may_be_listed: bool
    changes: int = 1


@dataclass(slots=True)
class PassingNames:
    """What came and went, and when folders were listed: filled with events in their order.

    That is the order in which things happened: a folder is locked while it is listed, and while a name comes or goes.
    """

    _opened: set[str] = field(default_factory=set)
    """Folders that a step opened: what is listed without that is by the program itself."""
    _looks: Counter[str] = field(default_factory=Counter)
    _found: dict[str, dict[str, _Presence]] = field(default_factory=dict)

    def open(self, folder: str) -> None:
        """Note that a step opened a folder."""
        self._opened.add(folder)

    def look(self, folder: str) -> None:
        """Note that a folder was listed."""
        if folder in self._opened:
            self._looks[folder] += 1

    def change(self, path: str, mask: int, *, is_shared: bool = True) -> None:
        """Note that a name came or went. Where no other step ran then, it counts only if one changed it before."""
        folder, name = posixpath.split(path)
        known = self._found.setdefault(folder, {}) if is_shared else self._found.get(folder, {})
        looks, comes = self._looks[folder], bool(mask & COMING)
        if presence := known.get(name):
            presence.may_be_listed |= presence.is_there and looks > presence.since
            presence.is_there, presence.since = comes, looks
            presence.changes += 1
        elif is_shared and not is_tool_file(name):
            is_new = bool(mask & CREATE)
            known[name] = _Presence(not comes, comes, looks, may_be_listed=bool(looks) and not is_new)

    def among(self, folder: str) -> dict[str, PassingName]:
        """Return the names that came or went in a folder that was listed."""
        looks = self._looks[folder]
        return {
            name: PassingName(it.was_there, _is_listed(it, looks)) for name, it in self._found.get(folder, {}).items()
        }


def _is_listed(it: _Presence, looks: int) -> bool | None:
    if not looks:  # that was not seen
        return None
    if not it.may_be_listed and not (it.is_there and looks > it.since):
        return False
    went_behind_all = it.was_there and it.changes == 1 and looks == it.since
    return True if went_behind_all else None


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
    passing: PassingNames = field(default_factory=PassingNames)
    """Names that came or went while other steps ran."""
    asked_git: Grade | None = None


def trace(events: Sequence[Event], window: Window, others: Iterable[Window] = (), *, first: int | None = None) -> Trace:
    """Return what the events of a window tell; what lies in another attempt's window too is only possible.

    `events` begin at the position `first`, else with the window: of what was before it, names that came or went count.
    """
    shared = [other for other in others if other.overlaps(window)]
    state = _State()
    for position, event in enumerate(events, start=window.start if first is None else first):
        here = [other for other in shared if other.start <= position < other.end]
        if event.mask & NAMED:
            state.found.passing.change(*event, is_shared=any(not other.own for other in here))
        if position < window.start:
            continue
        if posixpath.basename(event.path) == GIT and any(other.own for other in here):
            continue  # the program asks git itself
        state.note(event, "possible" if here or event.mask & UNSURE else "seen")
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
        if mask & NAMED:
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
        if mask & OPEN:
            self.found.passing.open(path)
        if mask & (CREATE | MOVED_TO):
            self.new.add(path)
        elif mask & OPEN and path not in self.new:
            self.folders.setdefault(path, []).append(grade)
        elif mask & CLOSED_UNWRITTEN and self.folders.get(path):
            self.folders[path].pop()
        elif mask & ACCESS:
            self.found.passing.look(path)
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
