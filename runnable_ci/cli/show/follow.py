"""`runnable-ci logs -f`: what the steps of a run write, while another process runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from runnable_ci.cli.show.attempts import chosen_attempts, naming_lost, nothing_written
from runnable_ci.cli.terminal import Printer
from runnable_ci.errors import BlobCorruptError, BlobMissingError
from runnable_ci.runs.branches.labels import find_step, labels_of, step_named
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.output import parse_index, split
from runnable_ci.runs.paths import JOURNAL, OUTPUTS, is_running, run_folder
from runnable_ci.runs.reader import load, output_of
from runnable_ci.store.local import Layout
from runnable_ci.util.console import LINE_MAX_BYTES, console
from runnable_ci.util.process_output import Stream

POLL_S = 0.3


def follow(layout: Layout, run_id: str, step: str | None, *, attempt: int | None, stream: Stream | None) -> None:
    """Write output to stdout as it comes, from its begin until nobody writes the run any more.

    Without a step that of all, each line with its step. Raises `UsageError` where there was none by then.
    """
    write_parts(Followed(layout, run_id, step, attempt, stream), step)


class OutputParts(Protocol):
    """The output of a run, or of a step of it, as it becomes known."""

    labels: list[str]
    """How people know the steps that are known by now."""

    def parts(self) -> Iterator[tuple[str, bytes]]:
        """Yield (label of a step, what it wrote), an empty one at the end of each attempt."""


def write_parts(followed: OutputParts, step: str | None) -> None:
    """Write output to stdout as it comes; without a step each line with its own."""
    if step is not None:
        console.copy(console.quoted(part for _, part in followed.parts()), at_once=True)
        return
    printer = Printer(console.stdout, console.stdout, terminal=False, colour=False, quiet=False)
    held, named = dict[str, bytes](), set[str]()
    for label, part in followed.parts():
        if label not in named:
            named.add(label)
            printer.widen(followed.labels)
        text = held.pop(label, b"") + part
        cut = text.rfind(b"\n") + 1 if part and len(text) < LINE_MAX_BYTES else len(text)
        if rest := text[cut:]:
            held[label] = rest
        for quoted in console.quoted([text[:cut]]):
            printer.output(label, "o", quoted)
        if not part:
            printer.finish_lines(label)
        console.stdout.require()


@dataclass(slots=True, eq=False)
class _Place:
    """How far the output of an attempt was read.

    By lines too: what became a secret later is shorter when it is read again.
    """

    offset: int = 0
    lines: int = 0
    column: int = 0
    """Bytes of the line after these."""
    file: int = 0
    """Its inode: another one is there once a secret was removed."""
    index: bytes = b""

    def advance(self, content: bytes) -> None:
        """Note that this was read as well."""
        self.offset += len(content)
        ends = content.count(b"\n")
        self.lines += ends
        self.column = len(content) - content.rfind(b"\n") - 1 if ends else self.column + len(content)


@dataclass(slots=True)
class Followed:
    """The output of a run, or of a step of it, as far as it was read."""

    layout: Layout
    run_id: str
    step: str | None
    attempt: int | None
    stream: Stream | None
    sleep: Callable[[float], None] = time.sleep
    labels: list[str] = field(default_factory=list)
    """How people know the steps that are known by now."""
    _places: dict[tuple[str, int], _Place] = field(default_factory=dict)
    _ended: set[tuple[str, int]] = field(default_factory=set)
    _log: RunLog | None = None
    _journal: tuple[int, int, int] | None = None

    def parts(self) -> Iterator[tuple[str, bytes]]:
        """Yield (label of a step, what it wrote), an empty one at the end of each attempt.

        Raises `UsageError` where nothing is to be read once the run is over.
        """
        is_noted = False
        while True:
            is_over = not is_running(self.layout, self.run_id)  # before: what was written by then is read here
            log = self._load(is_over=is_over)
            step = find_step(log, self.step) if self.step is not None else None
            if self.step is None or step is not None:
                yield from self._news(log, step, is_over=is_over)
            elif not is_over and not is_noted:
                is_noted = True
                console.err(f"step `{self.step}` has not begun")
            if is_over:
                if not self._places:
                    raise nothing_written(log, None if self.step is None else step_named(log, self.step), self.attempt)
                return
            self.sleep(POLL_S)

    def _load(self, *, is_over: bool) -> RunLog:
        """Return the run log, read again where there is something new in it."""
        file = run_folder(self.layout, self.run_id) / JOURNAL
        try:
            seen = file.stat()
            journal = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
        except FileNotFoundError:
            journal = None
        if self._log is None or is_over or journal != self._journal:
            self._log, self._journal = load(self.layout, self.run_id), journal
        return self._log

    def _news(self, log: RunLog, step: str | None, *, is_over: bool) -> Iterator[tuple[str, bytes]]:
        labels = labels_of(log.steps)
        self.labels = [*labels.values()]
        known = self._places.keys() | self._ended
        for name, one in chosen_attempts(log, step, self.attempt, every=bool(known)):
            key = (name, one.attempt_number)
            if key in self._ended or (key not in known and self._is_earlier(key)):
                continue
            place = self._places.setdefault(key, _Place())
            is_ended = bool(one.end_time) or is_over
            with naming_lost(self.layout, log, name, one):
                try:
                    for part in self._whole(log, key, one, place) if is_ended else self._grown(key, place):
                        yield labels[name], part
                except (BlobMissingError, BlobCorruptError, FileNotFoundError):
                    if is_over:
                        raise
                    self._journal, is_ended = None, False  # it is being moved into the store
            if is_ended:
                self._ended.add(key)
                yield labels[name], b""
            elif step is not None:  # the step's own output, or that of its branches one after the other
                return

    def _is_earlier(self, key: tuple[str, int]) -> bool:
        """Return whether another attempt of the step was shown that came after this one."""
        return any(name == key[0] and number > key[1] for name, number in self._places)

    def _grown(self, key: tuple[str, int], place: _Place) -> Iterator[bytes]:
        """Yield what an attempt that runs has written since."""
        title = run_folder(self.layout, self.run_id) / OUTPUTS / f"{key[0]}.{key[1]}"
        try:
            file = open(f"{title}.log", "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if place.file not in (0, inode):
                return  # it is over, and the log will say so
            place.file = inode
            file.seek(place.offset)
            while content := file.read(1 << 20):
                yield from self._selected(content, f"{title}.idx", place)
                place.advance(content)

    def _selected(self, content: bytes, index: str, place: _Place) -> Iterator[bytes]:
        if self.stream is None:
            yield content
            return
        try:
            with open(index, "rb") as file:
                place.index = file.read()
        except FileNotFoundError:
            pass  # all came from stdout; or it is over, and what was there is true
        for stream, part in split(iter([content]), _index_from(place.index, place.offset), only_stream="o"):
            if stream == self.stream:
                yield part

    def _whole(self, log: RunLog, key: tuple[str, int], one: StepAttempt, place: _Place) -> Iterator[bytes]:
        """Yield what is left of the output of an attempt that is over."""
        lines, column = place.lines, place.column
        for stream, part in output_of(self.layout, log, f"{key[0]}.{key[1]}", one):
            begin = 0
            while lines and begin < len(part):
                end = part.find(b"\n", begin)
                lines, begin = (lines - 1, end + 1) if end >= 0 else (lines, len(part))
            skipped = min(column, len(part) - begin) if not lines else 0
            column -= skipped
            rest = part[begin + skipped :]
            if rest:
                if self.stream in (None, stream):
                    yield rest
                place.advance(rest)


def _index_from(index: bytes, offset: int) -> bytes:
    """Return the index of what comes after so many bytes."""
    left = b""
    for stream, count in parse_index(index):
        if count > offset:
            left += f"{stream} {count - offset}\n".encode()
        offset = max(0, offset - count)
    return left + index[index.rfind(b"\n") + 1 :]
