"""Small content of registries by its digest: what cannot change need not be fetched twice."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runnable_ci.errors import BlobCorruptError
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.files import open_nofollow

FOLDER = "seen"
CONTENT_MAX_BYTES = 1024 * 1024
CACHE_MAX_BYTES = 64 * 1024 * 1024


class ContentCache:
    """A folder of a store beside its own content. Nothing in it is believed, and nothing missed that is gone.

    So its files are written in place and not waited for: half of one does not match its digest.
    """

    def __init__(self, layout: Layout) -> None:
        """Raise `StoreError` where a link is in the way."""
        self._folder = layout.own_folder(FOLDER)

    @classmethod
    def of(cls, layout: Layout | None) -> ContentCache | None:
        """Return the cache of a store; None where there is no store, as looking at a registry makes none."""
        return cls(layout) if layout is not None and (layout.folder / "index.json").exists() else None

    def read(self, descriptor: Descriptor) -> bytes | None:
        """Return content, verified; None where it is not there, or damaged."""
        path = self._path(descriptor)
        try:
            with open(path, "rb", opener=open_nofollow) as file:
                return b"".join(verified(file, descriptor, label=str(self._folder)))
        except OSError:
            return None
        except BlobCorruptError:
            path.unlink(missing_ok=True)
            return None

    def keep(self, descriptor: Descriptor, content: bytes, *, at_most: int = CONTENT_MAX_BYTES) -> None:
        """Keep verified content, if it is small; where the disk does not take it, it is fetched again."""
        if descriptor.size > at_most:
            return
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            with open(self._path(descriptor), "wb", opener=open_nofollow) as file:
                file.write(content)

    def trim(self, at_most: int = CACHE_MAX_BYTES) -> None:
        """Remove what was kept first, until the rest is at most three quarters of `at_most`, where it is more."""
        with suppress(OSError), os.scandir(self._folder) as entries:
            stats = [(entry.stat(follow_symlinks=False), Path(entry.path)) for entry in entries]
            total = sum(stat.st_size for stat, _ in stats)
            goal = total if total <= at_most else at_most * 3 // 4
            for stat, path in sorted(stats, key=lambda found: found[0].st_mtime_ns):
                if total <= goal:
                    return
                path.unlink(missing_ok=True)
                total -= stat.st_size

    def _path(self, descriptor: Descriptor) -> Path:
        return self._folder / descriptor.hex
