"""The contents of a step's checkpoints until the run is sealed: files by their sha256 in a folder of the run.

They are not among the store's blobs, since each new generation makes some of them needless at once, and who removes
content from a store must know that no other run has it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.checkpoints.newest import newest_checkpoints
from runnable_ci.runs.events import PackStored
from runnable_ci.runs.files.checkpoint_model import CheckpointFile
from runnable_ci.runs.files.packs import PACKED_FILE_MAX_BYTES, PackIndex
from runnable_ci.runs.files.placing import place_without_content, set_mode_and_time
from runnable_ci.runs.model import LINK, RunLog
from runnable_ci.runs.paths import CHECKPOINTS
from runnable_ci.store.plain import make_folders
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.files import copy_and_hash, fingerprint_of, open_nofollow, remove_folder, sync_file, temporary


class KeptFiles:
    """The contents of the checkpoints of one step in one run."""

    def __init__(self, catalog: Catalog, step: str) -> None:
        self._catalog = catalog
        self.folder = catalog.run_folder / CHECKPOINTS / step
        self._new: list[Path] = []

    def keep(self, file: Path, seen: tuple[int, ...]) -> CheckpointFile | None:
        """Copy a file; None where it is not any more as it was `seen`. Raises `OSError`, `StoreError`."""
        make_folders(self.folder, within=self._catalog.layout.folder)
        with file.open("rb", buffering=0) as opened, temporary(self._catalog.layout.temporaries) as new:
            before = os.fstat(opened.fileno())
            if fingerprint_of(before) != seen:
                return None
            digest, size = copy_and_hash(opened, new.file)
            if fingerprint_of(os.fstat(opened.fileno())) != seen:
                return None
            if not (self.folder / digest).exists():
                new.keep_as(self.folder / digest, synced=False)
                self._new.append(self.folder / digest)
        return CheckpointFile(data_hash=digest, size=size, mode=before.st_mode & 0o777, mtime_ns=before.st_mtime_ns)

    def sync(self) -> None:
        """Return when what was copied would survive a crash of the machine; to copy must not wait for that."""
        while self._new:
            if (path := self._new.pop()).exists():
                sync_file(path)

    def place_of(self, file: CheckpointFile) -> Path:
        """Return where a content is, if it is not in the store. Raises `BlobCorruptError` for what is no digest."""
        return self.folder / Descriptor.of_hash(file.data_hash, file.size).hex

    def forget_all_but(self, digests: Collection[str]) -> None:
        """Remove what no generation needs any more."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name not in digests:
                    path.unlink()

    def missing(self, files: Mapping[str, CheckpointFile]) -> list[str]:
        """Return the names of files whose content is neither here nor in the store."""
        return [name for name, file in files.items() if not file.kind and not self._is_there(file)]

    def _is_there(self, file: CheckpointFile) -> bool:
        if self.place_of(file).exists():
            return True
        return self._catalog.layout.exists(PackIndex(self._catalog.packs).blob_of(file.data_hash, file.size))

    def restore(self, name: str, file: CheckpointFile) -> None:
        """Write a file into the workspace, whole and verified or not at all.

        Raises `UnsafePathError`, `BlobMissingError`, `BlobCorruptError`, `OSError`.
        """
        files, target = self._catalog.files, file.target
        path = files.safe_link(name, target) if file.kind == LINK else files.safe_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.kind == LINK:
            place_without_content(path, LINK, target, mode=file.mode, mtime_ns=file.mtime_ns)
            return
        with temporary(self._catalog.layout.temporaries) as new:
            for chunk in self._read(file):
                new.file.write(chunk)
            new.file.flush()
            set_mode_and_time(new.path, file.mode, file.mtime_ns)
            new.keep_as(path, synced=False)

    def _read(self, file: CheckpointFile) -> Iterator[bytes]:
        place = self.place_of(file)
        if not place.exists():
            yield from self._catalog.read(file.data_hash, file.size)
            return
        with open(place, "rb", buffering=0, opener=open_nofollow) as kept:
            content = Descriptor.of_hash(file.data_hash, file.size)
            yield from verified(cast("BinaryIO", kept), content, label=str(self.folder))


def adopt(catalog: Catalog, log: RunLog) -> list[PackStored]:
    """Move into the store what the checkpoints need that count; what is to be recorded of it."""
    small: dict[Path, str] = {}
    for step, found in newest_checkpoints(log).items():
        kept = KeptFiles(catalog, step)
        for name, file in found.checkpoint.files.items():
            path = kept.place_of(file)
            if file.kind or path in small or not path.exists():
                continue
            if path.stat().st_size <= PACKED_FILE_MAX_BYTES:
                small[path] = f"checkpoints/{name}"
            else:
                catalog.layout.move_file_in(path, digest=f"sha256:{file.data_hash}")
    packs = catalog.store([*small.items()]).packs
    return [PackStored(digest=digest, pack=pack) for digest, pack in packs.items()]


def remove(catalog: Catalog, step: str = "") -> None:
    """Remove the contents that are not in the store: of a step, or of all."""
    folder = catalog.run_folder / CHECKPOINTS
    remove_folder(folder / step if step else folder, through=catalog.layout.temporaries)
