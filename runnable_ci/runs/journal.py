"""A run's journal on disk: lines of which each proves all before it, how far they were sealed, and who writes them.

Each line begins with a check over itself and all lines before it: one that was changed, removed, moved or written by
another run does not follow. That finds damage, not forgery: who can write the journal can also write its checks.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Self, get_args

from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunLogError
from runnable_ci.runs.artifact import RUN_LOG_MEDIA_TYPE
from runnable_ci.runs.events import STARTED_LINE_END, Event, Started, decode_event, decode_events
from runnable_ci.runs.model import Invocation, RunLog
from runnable_ci.runs.paths import JOURNAL, run_folder
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.bounded_json import check_of, stated_check, with_check, without_check
from runnable_ci.util.files import append_whole, write_whole
from runnable_ci.util.shell_command import path as typed

JOURNAL_SIZE = "vnd.runnable.journal-size"
"""Stands with a tag in `index.json`: where the journal has grown since, the summary beside it is out of date."""
JOURNAL_CHECK = "vnd.runnable.journal-check"
"""Stands beside it: the check of the last line that the journal had then."""
_APPENDING: Final = os.O_RDWR | os.O_APPEND
"""How a journal is open: it is read too, should a step remove it."""


@dataclass(frozen=True, slots=True)
class Seal:
    """How far a journal was when its run was sealed."""

    size: int
    """In bytes."""
    check: str = ""
    """Of the last line; empty where an earlier version wrote it."""

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> Seal | None:
        """Return what stands with a tag; None where it was not set by this program, or not by sealing."""
        size = annotations.get(JOURNAL_SIZE, "")
        return cls(int(size), annotations.get(JOURNAL_CHECK, "")) if size.isdecimal() and len(size) < 20 else None

    def annotations(self) -> dict[str, str]:
        """Return how it is written with a tag."""
        return {JOURNAL_SIZE: str(self.size), **({JOURNAL_CHECK: self.check} if self.check else {})}


class BrokenJournalError(RunLogError):
    """A journal is not what was written; so many of its lines, and bytes, at the beginning are."""

    def __init__(self, message: str, whole_lines: int, whole_bytes: int) -> None:
        super().__init__(message)
        self.whole_lines = whole_lines
        self.whole_bytes = whole_bytes


@dataclass(slots=True)
class Chain:
    """The checks of a journal up to some line.

    Lines of an earlier version have none, wherever it wrote them; they begin with a field of an event. They count like
    all others, so the next check proves them as well.
    """

    check: str = ""
    size: int = 0
    """In bytes, of the lines so far."""
    lines: int = 0

    def seal(self) -> Seal:
        """Return how far the journal is."""
        return Seal(self.size, self.check)

    def link(self, lines: Iterable[bytes]) -> bytes:
        """Return lines that have no checks with theirs: how the journal continues."""
        linked = []
        for line in lines:
            linked.append(with_check(line, self.check))
            self.check = stated_check(linked[-1])
            self._count(linked[-1])
        return b"".join(linked)

    def follow(self, lines: Iterable[bytes], *, where: str, seal: Seal | None = None) -> Iterator[bytes]:
        """Yield the lines that come next, each once it is known to be what was written.

        A last one without its newline was cut off by a crash and is not there. With a `seal` the lines lead to it, and
        may continue. Raises `BrokenJournalError`, which names the line.
        """
        for line in lines:
            if not line.endswith(b"\n"):
                break
            stated, check = stated_check(line), check_of(line, self.check)
            if (stated != check) if stated else not line.startswith(_beginnings()):
                raise self._broken(where, "does not follow from the lines before it")
            if seal and self.size < seal.size <= self.size + len(line) and not self._leads_to(seal, line, check):
                raise self._broken(where, "is not what it was when the run was sealed")
            self.check = check
            self._count(line)
            yield line
        if seal and self.size < seal.size:
            message = f"{where} ends after {self.size} bytes, line {self.lines}: it had {seal.size} when it was sealed"
            raise BrokenJournalError(message, self.lines, self.size)

    def _leads_to(self, seal: Seal, line: bytes, check: str) -> bool:
        return self.size + len(line) == seal.size and seal.check in ("", check)

    def _count(self, line: bytes) -> None:
        self.size += len(line)
        self.lines += 1

    def _broken(self, where: str, what: str) -> BrokenJournalError:
        return BrokenJournalError(f"{where}, line {self.lines + 1}: damaged, it {what}", self.lines, self.size)


@cache
def _beginnings() -> tuple[bytes, ...]:
    """Return how lines begin that never had a check; damage to one that has leaves another beginning."""
    return tuple(b'{"%s":' % name.encode() for event in get_args(Event) for name in event.model_fields)


@contextmanager
def proven_lines(
    layout: Layout, run_id: str, sealed: Descriptor | None, chain: Chain | None = None
) -> Iterator[Iterator[bytes]]:
    """Yield the whole lines of a run's journal, none where it has no journal; `sealed` is what its tag points to.

    To read the lines raises `RunLogError` where they are not what was written, which names the way back. A `chain` is
    where the journal ends, once they are read.
    """
    file = run_folder(layout, run_id) / JOURNAL
    seal = Seal.of(sealed.annotations) if sealed else None
    try:
        if file.exists():
            with file.open("rb") as lines:
                yield (chain or Chain()).follow(lines, where=str(file), seal=seal)
        else:
            yield iter(())
    except BrokenJournalError as e:
        raise RunLogError(e.message, hint=_way_back(layout, file, sealed, e)) from e


def read_journal(layout: Layout, run_id: str, sealed: Descriptor | None, chain: Chain | None = None) -> RunLog | None:
    """Return what the journal of a run says, None where there is none or not one whole line. Raises `RunLogError`."""
    with proven_lines(layout, run_id, sealed, chain) as lines:
        log = decode_events(lines, where=str(run_folder(layout, run_id) / JOURNAL))
    if log and log.run_id != run_id:
        folder = run_folder(layout, run_id)
        raise RunLogError(f"{folder / JOURNAL} is the journal of another run, {log.run_id}", hint="move it away")
    return log


def is_current(annotations: Mapping[str, str], journal: Path) -> bool:
    """Return whether a run was sealed, and its journal has not grown since, by what stands with its tag."""
    seal = Seal.of(annotations)
    return seal is not None and (not journal.exists() or journal.stat().st_size == seal.size)


def _way_back(layout: Layout, file: Path, sealed: Descriptor | None, broken: BrokenJournalError) -> str:
    name, kept = shlex.quote(typed(file)), shlex.quote(f"{typed(file)}.kept")
    seal = Seal.of(sealed.annotations) if sealed else None
    if sealed and seal and broken.whole_bytes < seal.size:
        if _has_log(layout, sealed):
            return f"rm {name} goes back to the run as it was sealed, which is whole"
        return "its sealed run log is damaged as well: take the store from another copy, or pull the run again"
    if not broken.whole_lines:
        return f"nothing of it can be read: rm -r {shlex.quote(typed(file.parent))}"
    back = f"head -n {broken.whole_lines} {name} > {kept} && mv {kept} {name}"
    return f"{back} goes back to the lines that are whole: what came later runs again"


def _has_log(layout: Layout, sealed: Descriptor) -> bool:
    """Return whether the log of a sealed run can be read."""
    try:
        layers = layout.manifest(sealed).get("layers", [])
        logs = [layer for layer in layers if layer.get("mediaType") == RUN_LOG_MEDIA_TYPE]
        return bool(logs) and layout.is_intact(Descriptor("", str(logs[0]["digest"]), int(logs[0]["size"])))
    except (BlobMissingError, BlobCorruptError):
        return False


class Journal:
    """A run's journal, open for its one writer."""

    def __init__(self, layout: Layout, run_id: str, chain: Chain) -> None:
        self.path = run_folder(layout, run_id) / JOURNAL
        self._layout = layout
        self._chain = chain
        self._file = os.open(self.path, _APPENDING)

    @classmethod
    def begin(cls, layout: Layout, run_id: str, lines: Iterable[bytes], *, sealed: Descriptor | None = None) -> Self:
        """Write how a journal begins: whole or absent, so that a journal that is there always tells of a run.

        `sealed` is what the run's tag points to, where it was sealed: the journal begins with that.
        """
        chain = Chain()
        content = chain.link(lines)
        if sealed and Seal.of(sealed.annotations):  # which led to a journal that is gone
            layout.tag(replace(sealed, annotations={**sealed.annotations, **chain.seal().annotations()}), run_id)
        write_whole(run_folder(layout, run_id) / JOURNAL, content, through=layout.temporaries)
        return cls(layout, run_id, chain)

    @classmethod
    def open(cls, layout: Layout, run_id: str, *, sealed: Descriptor | None) -> tuple[Self, RunLog] | None:
        """Return the journal and what it says, without a torn last line; None where there is not one whole line.

        Raises `RunLogError`, also where it does not lead to what was `sealed`.
        """
        chain = Chain()
        log = read_journal(layout, run_id, sealed, chain)
        if log is None:
            return None
        journal = cls(layout, run_id, chain)
        if os.fstat(journal._file).st_size > chain.size:
            os.ftruncate(journal._file, chain.size)
        return journal, log

    def seal(self) -> Seal:
        """Return how far it is."""
        return self._chain.seal()

    def append(self, lines: Iterable[bytes], *, synced: bool = True) -> None:
        """Have lines on disk, whole or not at all, before this returns. Raises `StoreError`.

        Those that are not `synced` come there with the next that are: a power cut may take them all.
        """
        longer = replace(self._chain)
        append_whole(self._file, longer.link(lines), self.path, synced=synced)
        self._chain = longer

    def lines(self) -> list[bytes]:
        """Return its lines, also where the file was removed."""
        with open(os.dup(self._file), "rb") as file:  # it lasts as long as it is open
            file.seek(0)
            return list(file)

    def rewrite(self, lines: Sequence[bytes], *, begin: int) -> bool:
        """Replace all lines from the one at place `begin` on; return whether that is a change."""
        before = self.lines()
        chain = Chain()
        kept = list(chain.follow(before[:begin], where=str(self.path)))
        content = b"".join(kept) + chain.link(map(without_check, lines))
        if content == b"".join(before):
            return False
        self._replace(content)
        self._chain = chain
        return True

    def restore(self) -> None:
        """Write it again where it was removed."""
        self._replace(b"".join(self.lines()))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _replace(self, content: bytes) -> None:
        write_whole(self.path, content, through=self._layout.temporaries)
        os.close(self._file)
        self._file = os.open(self.path, _APPENDING)


def own_invocations(lines: Iterable[bytes], *, store: str, where: str) -> list[Invocation]:
    """Return the invocations of a journal that this store recorded, not those that came with a log from elsewhere.

    Raises `RunLogError` for a line that cannot be read.
    """
    begun = (line for line in lines if line.endswith(STARTED_LINE_END))
    events = [decode_event(line, where=where) for line in begun]
    return [event.invocation for event in events if isinstance(event, Started) and event.store == store]
