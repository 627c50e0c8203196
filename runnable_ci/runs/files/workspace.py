"""Files of the workspace by their names in the run log: which a glob matches, which are safe to write, their hashes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runnable_ci.errors import UnsafePathError
from runnable_ci.observe.hash_cache import SIZE_MIN, HashCache
from runnable_ci.pipeline.validation import check_relative, is_excluded
from runnable_ci.runs.files.links import Found, check_target
from runnable_ci.runs.model import FOLDER, LINK
from runnable_ci.util.files import fingerprint, fingerprint_of
from runnable_ci.vcs.git_files import repository_root

_RACY_NS = 50_000_000
"""A file that changed this recently may change again without a new time: clocks of file systems tick every few ms."""

if TYPE_CHECKING:
    from runnable_ci.runs.files.tree import Tree


class UnhashedFile(NamedTuple):
    """A file that is open since it had this fingerprint: it is still that one when its name has another."""

    name: str
    file: FileIO
    seen: tuple[int, ...]


class Workspace:
    """The folder in which steps run. A name is relative to it, with forward slashes."""

    def __init__(self, path: Path, hashes: HashCache | None = None) -> None:
        self.path = path
        self.hashes = hashes or HashCache()
        """Of earlier invocations."""
        self._root = path.resolve()
        """The workspace without links on the way to it."""
        self._hashes: dict[str, tuple[tuple[int, ...], str]] = {}

    def find(self, patterns: Sequence[str], *, is_strict: bool = True) -> Found:
        """Return what globs find, as it is kept; a folder means all that is in it.

        Raises `UnsafePathError` for a match that leads out of the workspace, `StepError` for what cannot be kept (a
        name that is not text or could not be restored, a socket, a pipe, a device), unless `is_strict` is not set.
        """
        return self._tree(is_strict=is_strict).find(patterns)

    def expand(self, patterns: Sequence[str]) -> dict[str, list[str]]:
        """Return for each glob the names of the files that it matches, also those behind links, sorted.

        Raises `UnsafePathError` for a match that leads out of the workspace, `StepError` for a name that is not text
        or could not be restored.
        """
        return self._tree(keeps_links=False).find(patterns).names

    def readable(self, patterns: Sequence[str]) -> set[str]:
        """Return the names of all files that globs match, also behind links that point out of the workspace."""
        tree = self._tree(keeps_links=False, is_strict=False, stays_inside=False)
        return tree.find(patterns).all_names()

    def _tree(self, *, keeps_links: bool = True, is_strict: bool = True, stays_inside: bool = True) -> Tree:
        from runnable_ci.runs.files.tree import Tree  # where nothing is looked for it is not needed

        return Tree(self.path, keeps_links=keeps_links, is_strict=is_strict, stays_inside=stays_inside)

    def is_inside(self, path: Path) -> bool:
        """Return whether a path leads to a place in the workspace, through all links."""
        return path.resolve().is_relative_to(self._root)

    def safe_path(self, name: str) -> Path:
        """Return where a name of the run log belongs in the workspace; `UnsafePathError` if that is outside."""
        check_relative(name, lambda message: UnsafePathError(f"a file of the run log has {message}"))
        path = self.path / name
        # Links of the user may be on the way, as long as they stay in here and out of the repository's own folder.
        folder = os.path.relpath(path.parent.resolve(), self._root)
        if is_excluded(name) or is_excluded(folder) or folder.split("/")[0] == os.pardir:
            raise UnsafePathError(
                f"`{name}` of the run log points outside the workspace, or into a repository's own folder"
            )
        return path

    def safe_link(self, name: str, target: str) -> Path:
        """Return where a link of the run log belongs; `UnsafePathError` if that, or its target, is outside."""
        check_target(name, target, UnsafePathError)
        path = self.safe_path(name)
        # Beside a link of the user it would point somewhere else.
        if path.parent.resolve() != Path(os.path.normpath(self._root / name)).parent:
            raise UnsafePathError(f"`{name}` of the run log is a link, and its folder is behind another one")
        if not self.is_inside(path.parent / target) or is_excluded(
            os.path.relpath((path.parent / target).resolve(), self._root)
        ):
            raise UnsafePathError(f"`{name}` of the run log is a link that points outside the workspace")
        return path

    def hash_of_loaded(self, name: str, seen: tuple[int, int]) -> str:
        """Return sha256 of a module's file, empty where it is not any more the one that was loaded."""
        try:
            stat = (self.path / name).stat()
        except OSError:
            return ""
        return self.hash_of(name) or "" if (stat.st_mtime_ns, stat.st_size) == seen else ""

    def hash_of(self, name: str) -> str | None:
        """Return the sha256 of a file, None where it is not there; an unchanged file is not read twice.

        A name that leads elsewhere, in a run log of elsewhere, is not there.
        """
        path = self.path / name
        try:
            check_relative(name, ValueError)
            return self._hash(name, path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        except IsADirectoryError as e:
            raise UnsafePathError(f"`{name}` is a folder in the workspace", hint="move it away") from e

    def hash_above(self, name: str) -> str | None:
        """Return the sha256 of a file above the workspace, None where it is not there."""
        try:
            return self._hash(name, self.path / name)
        except OSError:
            return None

    def hash_of_kind(self, name: str, kind: str) -> str | None:
        """Return the sha256 of a link's target, or of nothing for a folder; None where none of that kind is there."""
        with suppress(ValueError, OSError):
            check_relative(name, ValueError)
            path = self.path / name
            if kind == LINK and path.is_symlink():
                from runnable_ci.runs.files.tree import link_text

                return hashlib.sha256(link_text(self.path, name).encode()).hexdigest()
            if kind == FOLDER and path.is_dir() and not path.is_symlink():
                return hashlib.sha256(b"").hexdigest()
        return None

    def hash_at(self, path: Path, name: str) -> str:
        """Return the sha256 of a file that is, or was, the one of a name; it is not read if it did not change."""
        if path == self.path / name:
            return self._hash(name, path)
        with FileIO(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _hash(self, name: str, path: Path) -> str:
        seen = fingerprint(path)
        if not path.is_file() and not path.is_dir():  # to open a pipe would wait for its other end
            raise FileNotFoundError(path)
        if known := self._known(name, seen):
            return known
        with FileIO(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.remember(name, seen, digest)
        return digest

    def _known(self, name: str, seen: tuple[int, ...]) -> str | None:
        known = self._hashes.get(name)
        return known[1] if known and known[0] == seen else self.hashes.get(name, seen)

    def open_unhashed(self, name: str, *, since_ns: int) -> UnhashedFile | None:
        """Open a file to be hashed later, for which that takes time; None for others.

        Also where it was changed after `since_ns`, or so recently that another change might not be seen.
        """
        path = self.path / name
        try:
            check_relative(name, ValueError)
            seen = fingerprint(path)
            if seen[1] < SIZE_MIN or seen[3] > min(since_ns, time.time_ns() - _RACY_NS) or self._known(name, seen):
                return None
            return UnhashedFile(name, FileIO(path), seen)
        except (OSError, ValueError):
            return None

    def hash_opened(self, unhashed: UnhashedFile) -> str | None:
        """Return the sha256 of a file as it was when it was opened, and close it; None where it has changed since."""
        with unhashed.file as file:
            try:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                is_same = fingerprint_of(os.fstat(file.fileno())) == unhashed.seen
            except OSError:
                return None
        if not is_same:
            return None
        with suppress(OSError):  # its name may be gone
            self.remember(unhashed.name, unhashed.seen, digest)
        return digest

    @cached_property
    def _repository(self) -> Path | None:
        root = repository_root(self.path)
        return root and root.resolve()

    def hash_of_read(self, name: str) -> str | None:
        """Return the same for what a step read: also a file of the repository around, as `../shared/x.sql`."""
        if not name.startswith(f"{os.pardir}/"):
            return self.hash_of(name)
        path = (self.path / name).resolve()
        if self._repository is None or not path.is_relative_to(self._repository) or not path.is_file():
            return None
        return self._hash(name, self.path / name)

    def remember(self, name: str, seen: tuple[int, ...], digest: str) -> None:
        """Treat a file as unchanged as long as its `fingerprint` is the one that was `seen` before it was read.

        One that was changed just before may be changed again at what is the same time to the file system's clock.
        """
        changed_ns = seen[3]
        if time.time_ns() - changed_ns > _RACY_NS and seen == fingerprint(self.path / name):
            self._hashes[name] = (seen, digest)
            self.hashes.put(name, seen, digest)

    def settled(self, name: str, digest: str) -> tuple[int, ...] | None:
        """Return the fingerprint by which a file is known to have this content, None where it may yet change unseen."""
        known = self._hashes.get(name)
        return known[0] if known and known[1] == digest else None
