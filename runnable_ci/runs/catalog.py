"""Files of the workspace ↔ content of the store: `put`, and `get` of what was put.

What it writes into the workspace is noted in the store's index of products.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from stat import S_IMODE
from typing import BinaryIO, NamedTuple, cast

from runnable_ci.errors import BlobCorruptError, RunnableError, StepError, UnsafePathError
from runnable_ci.observe.hash_cache import FILE, HashCache
from runnable_ci.runs.model import CatalogEntry, Pack
from runnable_ci.runs.packs import PACK_MIN_FILES, PACKED_FILE_MAX_BYTES, PackIndex, PackWriter, Section, open_stored
from runnable_ci.runs.products.index import Product, ProductsIndex, StoredContent
from runnable_ci.runs.workspace import Workspace
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import make_folders
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.files import copy_and_hash, fingerprint, temporary, write_whole


def _media_type(name: str) -> str:
    import mimetypes  # most steps store no file

    return mimetypes.guess_type(name)[0] or "application/octet-stream"


@contextmanager
def step_errors(what: str) -> Iterator[None]:
    """Turn a file in the block that vanished or cannot be read or written into an error of the step."""
    try:
        yield
    except OSError as e:
        raise StepError(f"catalog {what}: {e.filename}: {e.strerror}") from e


class StoredFiles(NamedTuple):
    """StoredContent that is in the store now, by sha256, and the packs that were made for it."""

    sizes: Mapping[Path, tuple[str, int]]
    packs: Mapping[str, Pack]


@dataclass(slots=True, eq=False, repr=False)
class Catalog:
    """The files of one run; `packs` are those that its run log named when the catalog was opened."""

    layout: Layout
    workspace: Path
    run_folder: Path
    """`.runnable/runs/RUN_ID`; a file whose place a `get` takes is kept under its `replaced/`, unless it is stored."""
    packs: Mapping[str, Pack] = field(default_factory=dict)
    is_tracked: Callable[[str], bool | None] = lambda _name: False
    """Whether git tracks a file of the workspace, None for unknown: it is never replaced without a word."""
    is_committed: Callable[[str], bool | None] = lambda _name: True
    """Whether a file that git tracks is as its commit has it, None for unknown."""
    index: ProductsIndex | None = None
    """Which files of the workspace steps made; the store's own index where none is given."""
    files: Workspace = field(init=False)
    """The workspace's files by their names."""
    products: ProductsIndex = field(init=False)
    """Which of them steps made."""
    _index: PackIndex = field(init=False)

    def __post_init__(self) -> None:
        self.files = Workspace(self.workspace, HashCache(self.layout.folder / FILE))
        self.products = self.index or ProductsIndex(self.layout)
        self._index = PackIndex(self.packs)

    # -- workspace → store

    @step_errors("put")
    def put(self, names: Sequence[str], *, stage: str = "put") -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store these files; their entries, and the packs that they need and the run log may not know yet.

        Raises `StepError` for a file that cannot be read.
        """
        before = {name: fingerprint(self.workspace / name) for name in names}
        paths = {name: self.workspace / name for name in names}
        entries, packs = self.store_as(paths, stage=stage)
        for entry in entries:
            self.files.remember(entry.name, before[entry.name], entry.data_hash)
        return entries, packs

    def store_as(self, paths: Mapping[str, Path], *, stage: str) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store files under names of the workspace, wherever they are, as `put` does."""
        stored = self.store([(path, name) for name, path in paths.items()])
        entries = []
        packs = dict(stored.packs)
        for name, path in paths.items():
            digest, size = stored.sizes[path]
            if digest in self._index:
                pack_digest, pack = self._index[digest]
                # A parallel step may have made it, and be killed before that is recorded.
                if pack_digest not in self.packs:
                    packs[pack_digest] = pack
            entries.append(self._entry(name, digest, size, mode=S_IMODE(path.stat().st_mode), stage=stage))
        return entries, packs

    def store(self, files: Sequence[tuple[Path, str]]) -> StoredFiles:
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
                writer = PackWriter(new.file)
                self._fill(writer, waiting, sizes)
                if writer.members:
                    writer.end()
                    descriptor = self.layout.move_file_in(new.path)
                    pack = Pack(size=descriptor.size, members=writer.members)
                    packs[descriptor.hex] = pack
                    self._index.add(descriptor.hex, pack)
        return StoredFiles(sizes, packs)

    def _fill(self, pack: PackWriter, waiting: list[tuple[Path, str]], sizes: dict[Path, tuple[str, int]]) -> None:
        """Write the contents that the store does not hold yet, the last one first, until the pack is full."""
        while waiting and not pack.is_full():
            path, name = waiting.pop()
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            sizes[path] = (digest, len(content))
            if digest not in pack.members and not self._holds(digest, len(content)):
                pack.add(name, digest, content)

    def _holds(self, digest: str, size: int) -> bool:
        return self.layout.is_intact(self._index.blob_of(digest, size))

    # -- store → anywhere

    def read(self, data_hash: str, size: int) -> Iterator[bytes]:
        """Yield stored content in chunks, verified as `verified` does."""
        descriptor = Descriptor.of_hash(data_hash, size)
        with self._open(descriptor) as content:
            yield from verified(cast("BinaryIO", content), descriptor, label=self._place(descriptor))

    def _open(self, content: Descriptor) -> io.RawIOBase:
        if not self._is_packed(content):
            return cast("io.RawIOBase", self.layout.fetch(content))
        offset, size = self._index.section(content.hex)
        return Section(self.layout.fetch(self._index.blob_of(content.hex, size)), offset, size)

    def _is_packed(self, content: Descriptor) -> bool:
        """Return whether content is read from a pack: the store may hold it alone too, from another run."""
        return content.hex in self._index and not self.layout.exists(content)

    def _place(self, content: Descriptor) -> str:
        """Return where content is, for an error message."""
        if not self._is_packed(content):
            return self.layout.label
        return f"the pack {self._index.blob_of(content.hex, content.size).digest} in {self.layout.label}"

    def extract(self, entry: CatalogEntry, destination: Path, *, aside: Path | None = None) -> None:
        """Write an entry's content to a file, whole and verified or not at all; what was there is moved `aside`."""
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as e:
            raise UnsafePathError(
                f"`{entry.name}` needs a folder, but a file is in the way", hint=f"move {e.filename} away"
            ) from e
        stored = Descriptor.of_hash(entry.data_hash, entry.size)
        with temporary(self.layout.temporaries) as new, self._open(stored) as content:
            digest, size = copy_and_hash(content, new.file)
            if (digest, size) != (stored.hex, stored.size):
                raise BlobCorruptError(
                    f"`{entry.name}` in {self._place(stored)} does not match its digest {stored.digest}",
                    hint="restore that blob from another copy of the store, then try again",
                )
            new.path.chmod(0o600 | (entry.mode & 0o777))
            if aside is not None:
                make_folders(aside.parent, within=self.layout.folder)
                destination.replace(aside)
            new.keep_as(destination, synced=False)  # after a crash of the machine it can be restored again

    # -- store → workspace

    @step_errors("get")
    def get(self, entries: Iterable[CatalogEntry]) -> tuple[list[CatalogEntry], list[str]]:
        """Restore these files into the workspace; return their `get` entries, and the names of replaced files.

        A file that is there already is not touched. One with other content that the store does not hold, or that git
        tracks, is moved to `replaced` first. Raises `UnsafePathError`, `BlobMissingError`, `BlobCorruptError`.
        """
        taken, replaced, written = [], [], []
        for entry in entries:
            path = self.files.safe_path(entry.name)
            present = self.hash_of(entry.name)
            if present is None or present != entry.data_hash:
                aside = None if present is None else self._aside(path, present)
                self.extract(entry, path, aside=aside)
                if aside is not None:
                    replaced.append(entry.name)
                self.files.remember(entry.name, fingerprint(path), entry.data_hash)
                if entry.source:
                    written.append(self._product(entry))
            taken.append(
                self._entry(entry.name, entry.data_hash, entry.size, mode=entry.mode, stage="get", source=entry.source)
            )
        self.products.record(written)
        return taken, replaced

    def remember_hashes(self) -> None:
        """Let later invocations know what was hashed; where that cannot be written they hash again."""
        with suppress(OSError, RunnableError):
            self.files.hashes.save(partial(write_whole, through=self.layout.temporaries))

    def hash_of(self, name: str) -> str | None:
        """Return the sha256 of a file of the workspace, None where it is not there.

        One that is as the index of products has seen it is not read.
        """
        return self.products.hash_seen(name, self.workspace / name) or self.files.hash_of(name)

    def content_of(self, entry: CatalogEntry) -> StoredContent:
        """Return how the content of an entry of this run is found without the run's log."""
        return self._index.content(entry.data_hash, entry.size, entry.mode)

    def _product(self, entry: CatalogEntry) -> Product:
        """Return a file of this run that was restored, as the index has it."""
        before = self.products.lookup(entry.name)
        return Product(
            path=entry.name,
            content=self.content_of(entry),
            step=entry.source,
            run=self.run_folder.name,
            made_by=entry.made_by or f"{self.run_folder.name}/{entry.source}",
            was=before.was if before else None,
            folder=before.folder if before else "",
        )

    def holds(self, content: StoredContent) -> bool:
        """Return whether the store has the blob of a content; its bytes are not looked at."""
        return self.layout.exists(Descriptor.of_hash(content.blob, 0))

    def restore(self, name: str, content: StoredContent) -> None:
        """Write content of any run to a name of the workspace, whole and verified or not at all."""
        path = self.files.safe_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(self.layout.temporaries) as new, open_stored(self.layout, content) as stored:
            if copy_and_hash(stored, new.file) != (content.sha256, content.size):
                raise BlobCorruptError(f"`{name}` in {self.layout.label} does not match sha256:{content.sha256}")
            new.path.chmod(0o600 | content.mode)
            new.keep_as(path, synced=False)

    def describe_replaced(self, name: str) -> str:
        """Return where a file is that was replaced, as `get` says."""
        tracked = ", which git tracks," if self.is_tracked(name) else ""
        return f"replaced {name}{tracked} by the run's version; yours was moved to {self.run_folder / 'replaced'}"

    @step_errors("get")
    def inputs(self, names: Iterable[str]) -> list[CatalogEntry]:
        """Return `get` entries for files that no step put: recorded with their hash."""
        return [
            self._entry(name, cast("str", self.hash_of(name)), (self.workspace / name).stat().st_size, stage="get")
            for name in names
        ]

    def _aside(self, path: Path, digest: str) -> Path | None:
        """Return where a file is to be kept whose place is taken.

        None for one that the store holds and git does not track.
        """
        name = path.relative_to(self.workspace).as_posix()
        if self._holds(digest, path.stat().st_size) and self.is_tracked(name) is False:
            return None
        kept = self.run_folder / "replaced" / path.relative_to(self.workspace)
        more = (kept.with_name(f"{kept.name}.{i}") for i in count(2))
        return next(place for place in chain([kept], more) if not os.path.lexists(place))

    def _entry(
        self, name: str, digest: str, size: int, *, stage: str, mode: int = 0o644, source: str = ""
    ) -> CatalogEntry:
        return CatalogEntry(
            name=name,
            data_hash=digest,
            catalog_relative_path=f"{self.run_folder.name}/{name}",
            stage=stage,
            size=size,
            media_type=_media_type(name),
            mode=mode,
            source=source,
        )
