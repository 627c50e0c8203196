"""Files of the workspace ↔ content of the store: `put`, and `get` of what was put.

What it writes into the workspace is noted in the store's index of products.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG
from typing import Any, BinaryIO, NamedTuple, cast

from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunnableError, StepError, UnsafePathError
from runnable_ci.observe.hash_cache import FILE, HashCache
from runnable_ci.runs.files.links import NOTHING, Found, check_entries
from runnable_ci.runs.files.packs import (
    PACK_MIN_FILES,
    PACKED_FILE_MAX_BYTES,
    PackIndex,
    PackWriter,
    Section,
    open_stored,
)
from runnable_ci.runs.files.workspace import Workspace
from runnable_ci.runs.model import LINK, CatalogEntry, Pack
from runnable_ci.runs.products.index import Product, ProductsIndex, StoredContent
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import make_folders
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.files import copy_and_hash, fingerprint, is_sparse, temporary, write_whole

_ENTRY_FIELDS = frozenset({"mode", "kind", "target", "mtime_ns", "sparse", "stored"})


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

    def know(self, packs: Mapping[str, Pack]) -> None:
        """Find the contents of packs that another run made, too."""
        for digest, pack in packs.items():
            self._index.add(digest, pack)

    def packs_with(self, contents: Iterable[str]) -> dict[str, Pack]:
        """Return the packs that have these contents, by their sha256."""
        return dict(self._index[digest] for digest in contents if digest in self._index)

    # -- workspace → store

    @step_errors("put")
    def put(
        self, names: Sequence[str], *, found: Found = NOTHING, unstored: Collection[str] = (), stage: str = "put"
    ) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store these files; their entries, and the packs that they need and the run log may not know yet.

        `found` says which are links and empty folders; of the `unstored` ones only the hash is recorded. Raises
        `StepError` for a file that cannot be read.
        """
        paths = {name: self.workspace / name for name in names}
        before = {name: fingerprint(path) for name, path in paths.items() if not found.kind_of(name)}
        entries, packs = self.store_as(paths, found=found, unstored=unstored, stage=stage)
        for entry in entries:
            if entry.has_content:
                self.files.remember(entry.name, before[entry.name], entry.data_hash)
        return entries, packs

    def store_as(
        self, paths: Mapping[str, Path], *, found: Found = NOTHING, unstored: Collection[str] = (), stage: str
    ) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store files under names of the workspace, wherever they are, as `put` does."""
        stored = self.store([(path, n) for n, path in paths.items() if not found.kind_of(n) and n not in unstored])
        entries = []
        packs = dict(stored.packs)
        for name, path in paths.items():
            at = path.stat(follow_symlinks=name not in found.links)
            known: dict[str, Any] = {"mode": S_IMODE(at.st_mode), "mtime_ns": at.st_mtime_ns}
            if kind := found.kind_of(name):
                target = found.links.get(name, "")
                known |= {"kind": kind, "target": target}
                digest, size = hashlib.sha256(target.encode()).hexdigest(), len(target.encode())
            elif name in unstored:
                digest, size = self.files.hash_at(path, name), at.st_size
                known |= {"stored": False}
            else:
                digest, size = stored.sizes[path]
                known |= {"sparse": is_sparse(at)}
                if digest in self._index:
                    pack_digest, pack = self._index[digest]
                    # A parallel step may have made it, and be killed before that is recorded.
                    if pack_digest not in self.packs:
                        packs[pack_digest] = pack
            entries.append(self._entry(name, digest, size, stage=stage, **known))
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
        from runnable_ci.runs.files.placing import place_without_content, set_mode_and_time

        if aside is not None:
            make_folders(aside.parent, within=self.layout.folder)
        if entry.kind:
            if aside is not None:
                destination.replace(aside)
            place_without_content(destination, entry.kind, entry.target, mode=entry.mode, mtime_ns=entry.mtime_ns)
            return
        if not entry.stored:
            raise BlobMissingError(
                f"`{entry.name}` was not stored, only its hash: its `put` has store = false",
                hint="the step that made it must run again",
            )
        stored = Descriptor.of_hash(entry.data_hash, entry.size)
        with temporary(self.layout.temporaries) as new, self._open(stored) as content:
            digest, size = copy_and_hash(content, new.file, sparse=entry.sparse)
            if (digest, size) != (stored.hex, stored.size):
                raise BlobCorruptError(
                    f"`{entry.name}` in {self._place(stored)} does not match its digest {stored.digest}",
                    hint="restore that blob from another copy of the store, then try again",
                )
            new.file.flush()  # else it is written once more
            set_mode_and_time(new.path, entry.mode, entry.mtime_ns)
            if aside is not None:
                destination.replace(aside)
            new.keep_as(destination, synced=False)  # after a crash of the machine it can be restored again

    # -- store → workspace

    @step_errors("get")
    def get(self, entries: Iterable[CatalogEntry]) -> tuple[list[CatalogEntry], list[str]]:
        """Restore these files into the workspace; return their `get` entries, and the names of replaced files.

        A file that is there already is not touched. One with other content that the store does not hold, or that git
        tracks, is moved to `replaced` first. Raises `UnsafePathError`, `BlobMissingError`, `BlobCorruptError`.
        """
        wanted = list(entries)
        check_entries(wanted, UnsafePathError)
        taken, replaced, written = [], [], []
        for entry in wanted:
            path = self.files.safe_path(entry.name)
            if not self.is_there(entry):
                if entry.kind == LINK:
                    self.files.safe_link(entry.name, entry.target)
                aside = self._aside(path, entry)
                self.extract(entry, path, aside=aside)
                if aside is not None:
                    replaced.append(entry.name)
                if entry.has_content:
                    self.files.remember(entry.name, fingerprint(path), entry.data_hash)
                if entry.source:
                    written.append(self._product(entry))
            known = entry.model_dump(include={"source", *_ENTRY_FIELDS} - {"mtime_ns", "sparse"})
            taken.append(self._entry(entry.name, entry.data_hash, entry.size, stage="get", **known))
        self.products.record(written)
        return taken, replaced

    def is_there(self, entry: CatalogEntry | StoredContent, name: str = "") -> bool:
        """Return whether the workspace has a file as it is stored; when it was written does not count."""
        name = entry.name if isinstance(entry, CatalogEntry) else name
        digest = entry.data_hash if isinstance(entry, CatalogEntry) else entry.sha256
        return self.hash_of(name, entry.kind) == digest

    def remember_hashes(self) -> None:
        """Let later invocations know what was hashed; where that cannot be written they hash again."""
        with suppress(OSError, RunnableError):
            self.files.hashes.save(partial(write_whole, through=self.layout.temporaries))

    def hash_of(self, name: str, kind: str = "") -> str | None:
        """Return the sha256 of a file of the workspace, None where none of that kind is there.

        One that is as the index of products has seen it is not read.
        """
        if kind:
            return self.files.hash_of_kind(name, kind)
        return self.products.hash_seen(name, self.workspace / name) or self.files.hash_of(name)

    def hash_now(self, name: str, kind: str) -> str | None:
        """Return the sha256 of what is in the place of something of that kind, be it a file now."""
        return (kind and self.hash_of(name, kind)) or self.hash_of(name)

    def entry_of(self, name: str, content: StoredContent, *, stage: str) -> CatalogEntry:
        """Return the entry of a content that is stored already."""
        known = asdict(content)
        return self._entry(
            name, content.sha256, content.size, stage=stage, **{key: known[key] for key in _ENTRY_FIELDS}
        )

    def content_of(self, entry: CatalogEntry) -> StoredContent:
        """Return how the content of an entry of this run is found without the run's log."""
        return self._index.content(entry)

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
        """Return whether all is there to restore a content; its bytes are not looked at."""
        if content.kind:
            return True
        return content.stored and self.layout.exists(Descriptor.of_hash(content.blob, 0))

    def restore(self, name: str, content: StoredContent) -> None:
        """Write content of any run to a name of the workspace, whole and verified or not at all."""
        from runnable_ci.runs.files.placing import place_without_content, set_mode_and_time

        is_link = content.kind == LINK
        path = self.files.safe_link(name, content.target) if is_link else self.files.safe_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.kind:
            place_without_content(path, content.kind, content.target, mode=content.mode, mtime_ns=content.mtime_ns)
            return
        with temporary(self.layout.temporaries) as new, open_stored(self.layout, content) as stored:
            if copy_and_hash(stored, new.file, sparse=content.sparse) != (content.sha256, content.size):
                raise BlobCorruptError(f"`{name}` in {self.layout.label} does not match sha256:{content.sha256}")
            new.file.flush()  # else it is written once more
            set_mode_and_time(new.path, content.mode, content.mtime_ns)
            new.keep_as(path, synced=False)

    def describe_replaced(self, name: str) -> str:
        """Return where a file is that was replaced, as `get` says."""
        tracked = ", which git tracks," if self.is_tracked(name) else ""
        return f"replaced {name}{tracked} by the run's version; yours was moved to {self.run_folder / 'replaced'}"

    @step_errors("get")
    def inputs(self, names: Iterable[str]) -> list[CatalogEntry]:
        """Return `get` entries for files that no step put: recorded with their hash."""
        return [
            self._entry(
                name, cast("str", self.hash_of_input(name)), (self.workspace / name).stat().st_size, stage="get"
            )
            for name in names
        ]

    def hash_of_input(self, name: str) -> str | None:
        """Return the sha256 of a file that a step's `get` names, also of one above the workspace."""
        return self.files.hash_above(name) if name.startswith("../") else self.hash_of(name)

    def _aside(self, path: Path, entry: CatalogEntry) -> Path | None:
        """Return where a file is to be kept whose place is taken.

        None where there is none, and for one that the store holds and git does not track.
        """
        try:
            at = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if S_ISDIR(at.st_mode):
            try:
                path.rmdir()
            except OSError as e:
                raise UnsafePathError(f"`{entry.name}` is a folder in the workspace", hint="move it away") from e
            return None
        name = path.relative_to(self.workspace).as_posix()
        kind = LINK if S_ISLNK(at.st_mode) else ""
        digest = self.hash_of(name, kind) if kind or S_ISREG(at.st_mode) else None
        is_held = bool(self.products.lookup(name, digest, kind=LINK)) if kind else self._holds(digest or "", at.st_size)
        if digest and is_held and self.is_tracked(name) is False:
            return None
        kept = self.run_folder / "replaced"
        folders = chain([kept], (kept / f"again.{i}" for i in count(2)))
        return next(place for folder in folders if not os.path.lexists(place := folder / name))

    def _entry(self, name: str, digest: str, size: int, *, stage: str, **known: Any) -> CatalogEntry:
        return CatalogEntry(
            name=name,
            data_hash=digest,
            catalog_relative_path=f"{self.run_folder.name}/{name}",
            stage=stage,
            size=size,
            media_type=_media_type(name),
            **known,
        )
