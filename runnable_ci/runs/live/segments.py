"""A run in progress in parts of which most stay as they are: what a publish after each step sends is what is new.

A run log is one document that grows with each step, so that sending it after each of N steps sends N² of them. So a run
in progress is sent as its journal, and what it names that is small as packs, in segments. Two of about one size become
one: of N segments there are log N, and each byte is sent log N times at most.
Source: O'Neil et al., "The Log-Structured Merge-Tree", 1996.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunLogError
from runnable_ci.runs.artifact import EMPTY, EMPTY_CONFIG, contents, manifest_with
from runnable_ci.runs.events import (
    STARTED_LINE_END,
    PackStored,
    apply,
    decode_event,
    decode_events,
    encode_event,
)
from runnable_ci.runs.files.packs import PACKED_FILE_MAX_BYTES, PackIndex, PackWriter
from runnable_ci.runs.live.life_sign import LifeSign
from runnable_ci.runs.model import Pack, RunLog
from runnable_ci.runs.paths import CHECKPOINTS, JOURNAL, OUTPUTS, READS_SUFFIX, SENDING, run_folder
from runnable_ci.store.local import Layout
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor
from runnable_ci.util.bounded_json import without_check

JOURNAL_MEDIA_TYPE: Final = "application/vnd.runnable.journal.v1+jsonl"
"""Of a part of the journal, in place of the run log."""
SEGMENT_MAX_BYTES: Final = 8 * 1024 * 1024
"""Larger ones stay as they are: a layer more for so many bytes is nothing."""
_PACKED: Final = ("catalog/", "history/", "failed/", "inputs/", "logs/", "reads/")
"""The titles of what may be in packs: readers look for other contents in blobs of their own."""


class Named(NamedTuple):
    """A content, and what it is called in the run."""

    title: str
    blob: Descriptor


@dataclass(slots=True, eq=False, repr=False)
class Segment:
    """A part of a run's journal, and the small contents that it was the first to name."""

    begin: int
    """In bytes of the journal, as is `end`."""
    end: int
    packed: dict[str, Named] = field(default_factory=dict)
    """By their sha256."""
    size_bytes: int = 0
    journal: Descriptor | None = None
    """None while it has not been made."""
    pack: tuple[str, Pack] | None = None

    def joined(self, later: Segment) -> Segment:
        """Return this one and that which follows it as one."""
        return Segment(self.begin, later.end, self.packed | later.packed, self.size_bytes + later.size_bytes)


class LiveRun:
    """What a run is by now, by its journal; another thread may be writing it."""

    def __init__(self, layout: Layout, run_id: str) -> None:
        self.layout = layout
        self.run_id = run_id
        self._folder = run_folder(layout, run_id)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.log = RunLog(run_id=self.run_id)
        self._segments: list[Segment] = []
        self._known: set[str] = set()
        """Contents that were looked at."""
        self._last, self._last_at = b"", 0
        """The last line that was read, and where it begins: it proves all before it."""
        self._made: dict[str, bytes] = {}
        """Digest → blobs that may not have been sent."""

    def look(self) -> bool:
        """Take in what was recorded since the last look; return whether that is anything.

        Where lines were written again, as of a secret that became known, all of it is new.
        """
        with (self._folder / JOURNAL).open("rb") as file:
            file.seek(self._last_at)
            read = file.read()
            if not read.startswith(self._last):
                self._begin_anew()
                file.seek(0)
                read = file.read()
        new = read[len(self._last) : read.rfind(b"\n") + 1]
        if not new:
            return False
        begin = self._last_at + len(self._last)
        lines = new.splitlines(keepends=True)
        for line in lines:
            event = decode_event(line, where=self.run_id)
            self.log = apply(self.log, event)
        self._last = lines[-1]
        self._last_at = begin + len(new) - len(self._last)
        if (self._folder / CHECKPOINTS).exists():
            from runnable_ci.runs.checkpoints.sending import hold  # few steps keep any

            hold(self._folder / CHECKPOINTS, self.log)
        segment = Segment(begin, begin + len(new), self._new_contents(), len(new))
        segment.size_bytes += sum(content.blob.size for content in segment.packed.values())
        self._add(segment)
        return True

    def _new_contents(self) -> dict[str, Named]:
        """Return the small contents that are named since and that are here."""
        packs, found = PackIndex(self.log.packs), dict[str, Named]()
        for title, content in contents(self.log):
            if content.hex in self._known:
                continue
            self._known.add(content.hex)
            is_small = content.size <= PACKED_FILE_MAX_BYTES and title.startswith(_PACKED)
            if is_small and content.hex not in packs and self._find(named := Named(title, content)):
                found[content.hex] = named
        return found

    def _find(self, content: Named) -> Path | None:
        """Return where a content is; None where it is not here, as of a run that was pulled without its files."""
        try:
            path = self._path(content)
        except BlobMissingError:
            return None
        return path if path.is_file() else None

    def _path(self, content: Named) -> Path:
        """Return where a content is: until a run is sealed its output, and what its steps read, are beside it."""
        kind, _, name = content.title.partition("/")
        if kind in ("logs", "reads"):
            beside = self._folder / OUTPUTS / (name if kind == "logs" else name.removesuffix(".json") + READS_SUFFIX)
            if beside.is_file():
                return beside
        if kind == "checkpoints" and (held := self._folder / CHECKPOINTS / SENDING / content.blob.hex).is_file():
            return held
        return self.layout.path(content.blob)

    def _add(self, segment: Segment) -> None:
        while self._segments:
            size = self._segments[-1].size_bytes
            if size > 2 * segment.size_bytes or size + segment.size_bytes > SEGMENT_MAX_BYTES:
                break
            segment = self._segments.pop().joined(segment)
        self._segments.append(segment)

    def manifest(self, sign: LifeSign) -> LiveSource:
        """Return the run as it was at the last look, ready to be copied. Raises `StoreError` for what is gone."""
        for segment in self._segments:
            if segment.journal is None:
                self._make(segment)
        packs = dict(self.log.packs) | dict(one.pack for one in self._segments if one.pack)
        log = self.log.model_copy(update={"packs": packs})
        journal = [segment.journal for segment in self._segments if segment.journal]
        titled = {f"journal/{number:04}.jsonl": part for number, part in enumerate(journal, start=1)}
        raw = manifest_with(log, titled, sign.annotations())
        own = Descriptor.of_hash(hashlib.sha256(raw).hexdigest(), len(raw), MANIFEST_MEDIA_TYPE)
        made = {**self._made, own.digest: raw, EMPTY_CONFIG.digest: EMPTY}
        return LiveSource(self.layout, own, raw, made, self._large_outputs())

    def forget_sent(self) -> None:
        """Let go of what is in the registry."""
        self._made.clear()

    def _make(self, segment: Segment) -> None:
        lines = self._lines(segment)
        if segment.packed:
            file = io.BytesIO()
            writer = PackWriter(file)
            for digest, content in segment.packed.items():
                writer.add(content.title, digest, self._content(content))
            writer.end()
            packed = self._keep(file.getvalue())
            segment.pack = (packed.hex, Pack(size=packed.size, members=writer.members))
            lines += encode_event(PackStored(digest=packed.hex, pack=segment.pack[1]))
        segment.journal = self._keep(lines, JOURNAL_MEDIA_TYPE)

    def _lines(self, segment: Segment) -> bytes:
        with (self._folder / JOURNAL).open("rb") as file:
            file.seek(segment.begin)
            raw = file.read(segment.end - segment.begin)
        return b"".join(_published(line) for line in raw.splitlines(keepends=True))

    def _content(self, content: Named) -> bytes:
        try:
            raw = self._path(content).read_bytes()
        except FileNotFoundError as e:
            raise BlobMissingError(
                f"{content.title} of run `{self.run_id}` is not in {self.layout.label} any more"
            ) from e
        if hashlib.sha256(raw).hexdigest() != content.blob.hex:  # output is written again where a secret became known
            raise BlobCorruptError(f"{content.title} of run `{self.run_id}` is not what was recorded")
        return raw

    def _keep(self, content: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        made = Descriptor.of_hash(hashlib.sha256(content).hexdigest(), len(content), media_type)
        self._made[made.digest] = content
        return made

    def _large_outputs(self) -> dict[str, Path]:
        """Return digest → file of output that is a blob of its own, and not in the store yet."""
        return {
            content.digest: path
            for title, content in contents(self.log)
            if title.startswith(("logs/", "reads/", "checkpoints/"))
            and not self.layout.exists(content)
            and (path := self._find(Named(title, content)))
        }


class LiveSource(Layout):
    """A store with the manifest of a run in progress, of which nothing is in the store."""

    def __init__(
        self, layout: Layout, own: Descriptor, raw: bytes, made: Mapping[str, bytes], files: Mapping[str, Path]
    ) -> None:
        super().__init__(layout.folder)
        self.own = own
        self.raw = raw
        self._made = made
        self._files = files

    def resolve(self, reference: str) -> Descriptor:
        """Return the manifest that a tag or digest points to; `ManifestNotFoundError` where there is none."""
        return self.own if reference == self.own.digest else super().resolve(reference)

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the bytes, unchecked: read them through `verified`."""
        if (content := self._made.get(descriptor.digest)) is not None:
            return io.BytesIO(content)
        if (file := self._files.get(descriptor.digest)) is not None and file.is_file():
            return file.open("rb")
        return super().fetch(descriptor)


def log_of_segments(parts: Iterable[bytes], *, where: str) -> RunLog:
    """Return the run log that parts of a journal, in their order, add up to. Raises `RunLogError`."""
    journal = b"".join(parts)
    try:
        log = decode_events(_whole_lines(journal, where), where=where)
    except (KeyError, IndexError, TypeError, AttributeError) as e:
        raise RunLogError(f"{where} is not a run log: its events do not follow from each other") from e
    if log is None:
        raise RunLogError(f"{where} is not a run log: it is empty")
    return log


def _whole_lines(journal: bytes, where: str) -> Iterator[bytes]:
    if not journal.endswith(b"\n"):
        raise RunLogError(f"{where} is not a run log: it ends within a line")
    return iter(io.BytesIO(journal))


def _published(line: bytes) -> bytes:
    """Return a line of a journal without what is for its own store only."""
    if line.endswith(STARTED_LINE_END):
        return encode_event(decode_event(line, where="the journal").model_copy(update={"store": ""}))
    return without_check(line)
