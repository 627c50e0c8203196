"""Files of the workspace ↔ content of the store.

Many small files are stored as one tar, a pack: its members are found by their sha256 at an offset that the run log
keeps, so that no name in a tar is ever trusted.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
import mimetypes
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from runnable_ci.errors import BlobCorruptError, BlobMissingError, StepError, UnsafePathError
from runnable_ci.pipeline.validation import check_relative, is_excluded
from runnable_ci.runs.model import CatalogEntry, Pack
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import make_folders
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.files import copy_and_hash, temporary
from runnable_ci.util.system import CHANGE_TIMES, is_valid_filename, mode_of, replace, set_mode

PACK_MAX_BYTES = 64 * 1024 * 1024
PACKED_FILE_MAX_BYTES = 256 * 1024
PACK_MIN_FILES = 16
_RACY_NS = 50_000_000


@contextmanager
def _step_errors(what: str) -> Iterator[None]:
    """Within it, a file that went away or cannot be read or written is an error of the step."""
    try:
        yield
    except OSError as e:
        raise StepError(f"catalog {what}: {e.filename}: {e.strerror}") from e


@dataclass(frozen=True, slots=True)
class Stored:
    """Content that is in the store now, by sha256, and the packs that were made for it."""

    sizes: Mapping[Path, tuple[str, int]]
    packs: Mapping[str, Pack]


@dataclass(slots=True)
class Catalog:
    """The files of one run: `packs` are those of its run log, and grow with it."""

    layout: Layout
    workspace: Path
    run_folder: Path
    """`.runnable/runs/RUN_ID`; a file whose place a `get` takes is kept under its `replaced/`, unless it is stored."""
    packs: dict[str, Pack] = field(default_factory=dict)
    is_tracked: Callable[[str], bool | None] = lambda _name: False
    """Whether git tracks a file of the workspace, None for unknown: it is never replaced without a word."""
    _root: Path = field(init=False)
    """The workspace without links on the way to it."""
    _recorded: frozenset[str] = frozenset()
    _members: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    _seen: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._root = self.workspace.resolve()
        self._recorded = frozenset(self.packs)
        for digest, pack in self.packs.items():
            self.add_pack(digest, pack)

    def add_pack(self, digest: str, pack: Pack) -> None:
        """Let the members of a pack be found."""
        self.packs[digest] = pack
        for member, (offset, size) in pack.members.items():
            self._members[member] = (digest, offset, size)

    # -- names

    def expand(self, patterns: Sequence[str]) -> dict[str, list[str]]:
        """For each glob the files that it matches, relative to the workspace, sorted; a folder means all files in it.

        Raises `UnsafePathError` for a match that leads out of the workspace, `StepError` for a name that is not text
        or could not be restored.
        """
        inside: dict[str, bool] = {}
        found = {
            pattern: sorted({name for name in self._matches(pattern) if self._is_file(name, inside)})
            for pattern in patterns
        }
        for name in {name for names in found.values() for name in names}:
            check_relative(name, lambda message: StepError(f"a file has {message}", hint="give it another name"))
            try:
                name.encode()
            except UnicodeEncodeError as e:
                raise StepError(f"the file name {name!a} is not UTF-8", hint="give the file another name") from e
        return found

    def _matches(self, pattern: str) -> Iterator[str]:
        # glob.iglob: Path.glob knows neither root_dir nor hidden files
        for found in glob.iglob(pattern, root_dir=self.workspace, recursive=True, include_hidden=True):  # noqa: PTH207
            match = _posix(os.path.normpath(found))
            if is_excluded(match):
                continue
            if (self.workspace / match).is_dir():
                for folder, folders, names in os.walk(self.workspace / match):
                    folders[:] = [f for f in folders if not is_excluded(f)]
                    paths = (os.path.relpath(os.path.join(folder, name), self.workspace) for name in names)  # noqa: PTH118
                    yield from map(_posix, paths)
            else:
                yield match

    def _is_file(self, name: str, inside: dict[str, bool]) -> bool:
        folder = name.rpartition("/")[0]
        if is_excluded(name) or not (self.workspace / name).is_file():
            return False
        if folder not in inside:
            inside[folder] = self._is_inside(self.workspace / folder)
        path = self.workspace / name
        if not inside[folder] or (path.is_symlink() and not self._is_inside(path)):
            raise UnsafePathError(f"`{name}` is behind a link that leads out of the workspace")
        return True

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._root)

    # -- workspace → store

    @_step_errors("put")
    def put(self, patterns: Sequence[str]) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store what the globs match; the entries, and the packs that they need and the run log may not know yet.

        Raises `StepError` for a glob that matches nothing, or a file that cannot be read.
        """
        matches = self.expand(patterns)
        for pattern, found in matches.items():
            if not found:
                raise StepError(f"catalog put `{pattern}` matches no file", hint="did the step write somewhere else?")
        names = sorted({name for found in matches.values() for name in found})
        before = {name: _fingerprint(self.workspace / name) for name in names}
        stored = self.store([(self.workspace / name, name) for name in names])
        entries = []
        packs = dict(stored.packs)
        for name in names:
            digest, size = stored.sizes[self.workspace / name]
            self._remember(name, before[name], digest)
            pack = self._members[digest][0] if digest in self._members else ""
            if pack and pack not in self._recorded:
                packs[pack] = self.packs[pack]  # a parallel step may have made it, and be killed before it is recorded
            mode = mode_of(self.workspace / name)
            entries.append(self._entry(name, digest, size, mode=mode, stage="put"))
        return entries, packs

    def store(self, files: Sequence[tuple[Path, str]]) -> Stored:
        """Store files, each with its name for a pack; large ones alone, many small ones together."""
        sizes: dict[Path, tuple[str, int]] = {}
        packs: dict[str, Pack] = {}
        small = [item for item in files if item[0].stat().st_size <= PACKED_FILE_MAX_BYTES]
        waiting = list(reversed(small)) if len(small) >= PACK_MIN_FILES else []
        together = set(waiting)
        for path, name in files:
            if (path, name) not in together:
                descriptor = self.layout.put_file(path)
                sizes[path] = (descriptor.hex, descriptor.size)
        while waiting:
            with temporary(self.layout.temporaries) as new:
                members = self._fill_pack(new.file, waiting, sizes)
                if members:
                    new.file.flush()
                    descriptor = self.layout.move_file_in(new.path)
                    packs[descriptor.hex] = Pack(size=descriptor.size, members=members)
                    self.add_pack(descriptor.hex, packs[descriptor.hex])
        return Stored(sizes, packs)

    def _fill_pack(
        self, pack: BinaryIO, waiting: list[tuple[Path, str]], sizes: dict[Path, tuple[str, int]]
    ) -> dict[str, tuple[int, int]]:
        """Write a deterministic tar of the contents that the store does not hold yet, until it is full."""
        members: dict[str, tuple[int, int]] = {}
        position = 0
        while waiting and position < PACK_MAX_BYTES:
            path, name = waiting.pop()
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            sizes[path] = (digest, len(content))
            if digest in members or self._holds(digest, len(content)):
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            header = info.tobuf(tarfile.PAX_FORMAT)
            pack.write(header)
            pack.write(content)
            pack.write(b"\0" * (-len(content) % 512))
            members[digest] = (position + len(header), len(content))
            position += len(header) + len(content) + (-len(content) % 512)
        if members:
            pack.write(b"\0" * 1024)
        return members

    def _holds(self, digest: str, size: int) -> bool:
        if digest in self._members:
            pack = self._members[digest][0]
            return self.layout.is_intact(_descriptor(pack, self.packs[pack].size))
        return self.layout.is_intact(_descriptor(digest, size))

    # -- store → anywhere

    def read(self, data_hash: str, size: int) -> Iterator[bytes]:
        """Stored content in chunks, verified as `verified` does."""
        with self._open(data_hash, size) as content:
            yield from verified(cast("BinaryIO", content), _descriptor(data_hash, size), label=self._place(data_hash))

    def _open(self, data_hash: str, size: int) -> io.RawIOBase:
        descriptor = _descriptor(data_hash, size)
        member = self._members.get(data_hash)
        if member is None or self.layout.exists(descriptor):
            return cast("io.RawIOBase", self.layout.fetch(descriptor))
        digest, offset, length = member
        if not 0 <= offset <= offset + length <= self.packs[digest].size:
            raise BlobCorruptError(f"the run log says that sha256:{data_hash} is where the pack sha256:{digest} is not")
        return _Section(self.layout.fetch(_descriptor(digest, self.packs[digest].size)), offset, length)

    def _place(self, data_hash: str) -> str:
        """Where content is, for an error message."""
        if data_hash not in self._members or self.layout.exists(_descriptor(data_hash, 0)):
            return self.layout.label
        return f"the pack sha256:{self._members[data_hash][0]} in {self.layout.label}"

    def extract(self, entry: CatalogEntry, destination: Path, *, aside: Path | None = None) -> None:
        """Write an entry's content to a file, whole and verified or not at all; what was there is moved `aside`."""
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as e:
            raise UnsafePathError(
                f"`{entry.name}` needs a folder where a file is", hint=f"move {e.filename} away"
            ) from e
        with temporary(self.layout.temporaries) as new, self._open(entry.data_hash, entry.size) as content:
            digest, size = copy_and_hash(content, new.file)
            if (digest, size) != (entry.data_hash, entry.size):
                raise BlobCorruptError(
                    f"`{entry.name}` in {self._place(entry.data_hash)} does not match its digest "
                    f"sha256:{entry.data_hash}",
                    hint="restore that blob from another copy of the store, then go on",
                )
            set_mode(new.path, 0o600 | (entry.mode & 0o777))
            if aside is not None:
                make_folders(aside.parent, within=self.layout.folder)
                replace(destination, aside)
            new.keep_as(destination, synced=False)  # after a crash of the machine it can be restored again

    def check(self, entry: CatalogEntry) -> None:
        """Raise `BlobMissingError` for an entry whose content is not in the store."""
        member = self._members.get(entry.data_hash)
        digest = member[0] if member else entry.data_hash
        if not self.layout.exists(_descriptor(digest, 0)) and not self.layout.exists(_descriptor(entry.data_hash, 0)):
            raise BlobMissingError(f"the store does not hold `{entry.name}` (sha256:{entry.data_hash})")

    # -- store → workspace

    @_step_errors("get")
    def get(self, entries: Iterable[CatalogEntry]) -> tuple[list[CatalogEntry], list[str]]:
        """Have the workspace hold these files; their `get` entries, and the names of those that were replaced.

        A file that is there already is not touched. One with other content that the store does not hold, or that git
        tracks, is moved to `replaced` first. Raises `UnsafePathError`, `BlobMissingError`, `BlobCorruptError`.
        """
        taken, replaced = [], []
        for entry in entries:
            path = self.safe_path(entry.name)
            present = self.hash_of(entry.name)
            if present is None or present != entry.data_hash:
                aside = None if present is None else self._aside(path, present)
                self.extract(entry, path, aside=aside)
                if aside is not None:
                    replaced.append(entry.name)
                self._remember(entry.name, _fingerprint(path), entry.data_hash)
            taken.append(
                self._entry(entry.name, entry.data_hash, entry.size, mode=entry.mode, stage="get", source=entry.source)
            )
        return taken, replaced

    def describe_replaced(self, name: str) -> str:
        """Return where a file is that was replaced, as `get` says."""
        tracked = ", which git tracks," if self.is_tracked(name) else ""
        return f"replaced {name}{tracked} by the run's; the other one is kept in {self.run_folder / 'replaced'}"

    @_step_errors("get")
    def inputs(self, names: Iterable[str]) -> list[CatalogEntry]:
        """`get` entries for files that no step put: recorded with their hash."""
        return [
            self._entry(name, cast("str", self.hash_of(name)), (self.workspace / name).stat().st_size, stage="get")
            for name in names
        ]

    def hash_of(self, name: str) -> str | None:
        """sha256 of a file of the workspace, None where it is not there; an unchanged file is not read twice.

        A name that leads elsewhere, in a run log of elsewhere, is not there.
        """
        path = self.workspace / name
        try:
            check_relative(name, ValueError)
            fingerprint = _fingerprint(path)
            if (seen := self._seen.get(name)) and seen[0] == fingerprint:
                return seen[1]
            with path.open("rb", buffering=0) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except IsADirectoryError as e:
            raise UnsafePathError(f"`{name}` is a folder in the workspace", hint="move it away") from e
        self._remember(name, fingerprint, digest)
        return digest

    def safe_path(self, name: str) -> Path:
        """Where a name of the run log belongs in the workspace; `UnsafePathError` if that is outside."""
        check_relative(name, lambda message: UnsafePathError(f"a file of the run log has {message}"))
        path = self.workspace / name
        if is_excluded(name) or not self._is_inside(path.parent):
            raise UnsafePathError(f"`{name}` of the run log leads out of the workspace")
        if not is_valid_filename(name):
            raise UnsafePathError(f"`{name}` of the run log can name no file on this system")
        return path

    def _aside(self, path: Path, digest: str) -> Path | None:
        """Where a file is to be kept whose place is taken; None for one that the store holds and git does not track."""
        name = path.relative_to(self.workspace).as_posix()
        if self._holds(digest, path.stat().st_size) and self.is_tracked(name) is False:
            return None
        kept = self.run_folder / "replaced" / path.relative_to(self.workspace)
        more = (kept.with_name(f"{kept.name}.{i}") for i in count(2))
        return next(place for place in chain([kept], more) if not os.path.lexists(place))

    def _remember(self, name: str, fingerprint: tuple[int, ...], digest: str) -> None:
        """Trust a file's stat from now on, unless it was changed so recently that the clock could not tell."""
        settled = CHANGE_TIMES and time.time_ns() - fingerprint[2] > _RACY_NS
        if settled and fingerprint == _fingerprint(self.workspace / name):
            self._seen[name] = (fingerprint, digest)

    def _entry(
        self, name: str, digest: str, size: int, *, stage: str, mode: int = 0o644, source: str = ""
    ) -> CatalogEntry:
        return CatalogEntry(
            name=name,
            data_hash=digest,
            catalog_relative_path=f"{self.run_folder.name}/{name}",
            stage=stage,
            size=size,
            media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
            mode=mode,
            source=source,
        )


def matches(pattern: str, name: str) -> bool:
    """Whether a glob of `catalog` means this file: it matches the file, or a folder above it."""
    return _match(PurePosixPath(pattern).parts, PurePosixPath(name).parts)


def _match(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_match(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _match(pattern[1:], name[1:])


def _posix(path: str) -> str:
    """A relative path as the run log has it."""
    return path if os.sep == "/" else path.replace(os.sep, "/")


class _Section(io.RawIOBase):
    """A part of an open file that ends where the part does."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file, self._left = file, size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(min(len(buffer), self._left))
        buffer[: len(chunk)] = chunk
        self._left -= len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()


def _descriptor(digest: str, size: int) -> Descriptor:
    return Descriptor("application/octet-stream", f"sha256:{digest}", size)


def _fingerprint(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
