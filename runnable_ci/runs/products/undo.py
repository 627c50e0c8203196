"""Files of the workspace moved out of it and back: what steps made is set aside, and never deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.model import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import CatalogEntry, Pack
from runnable_ci.runs.products.baseline import Baseline
from runnable_ci.store.plain import make_folders
from runnable_ci.util.text import listed

Say = Callable[[str], None]


@dataclass(slots=True)
class AsideFolder:
    """A folder of the store into which files of the workspace are moved, each under its name there.

    What is true of all files of a folder is looked at once: there may be tens of thousands.
    """

    catalog: Catalog
    folder: Path
    _ready: set[str] = field(default_factory=set)
    """Folders, by their names in the workspace, that are safe there and made here."""

    def move(self, name: str) -> Path:
        """Move a file; its place now. Of a link within the workspace the content is copied, and it stays."""
        place = self._place_of(name)
        path = f"{self.catalog.workspace}/{name}"
        if os.path.islink(path) and self.catalog.files.is_inside(Path(path)):  # noqa: PTH114 - one of very many
            shutil.copy2(path, place)
        else:
            shutil.move(path, place)
        return Path(place)

    def add_copy(self, name: str, file: Path) -> None:
        """Add a copy of what a file of the workspace was."""
        shutil.copy2(file, self._place_of(name))

    def _place_of(self, name: str) -> str:
        """Return a free place for a file, whose folder is there."""
        parent = name.rpartition("/")[0]
        if parent not in self._ready:
            self.catalog.files.safe_path(name)
            make_folders(self.folder / parent, within=self.catalog.layout.folder)
            self._ready.add(parent)
        wanted = f"{self.folder}/{name}"
        others = (f"{wanted}.{i}" for i in count(2))
        return next(place for place in chain([wanted], others) if not os.path.lexists(place))


def remove_empty_folders(workspace: Path, folder_of: Mapping[str, str]) -> None:
    """Remove the folders that are empty now, from those of these files up to the one that was there before them."""
    gone = {
        parent: above
        for name, above in folder_of.items()
        for parent in map(str, PurePosixPath(name).parents)
        if parent != "." and parent != above and not above.startswith(f"{parent}/")
    }
    for parent in sorted(gone, key=len, reverse=True):
        with suppress(OSError):  # something else is in it
            (workspace / parent).rmdir()


def move_back(catalog: Catalog, name: str, place: Path) -> None:
    """Move a file to where it was in the workspace, unless another file has its place."""
    path = catalog.files.safe_path(name)
    product = catalog.products.lookup(name)
    was = product.was.sha256 if product and product.was else None
    with suppress(OSError):  # a folder is a file now, say: the store has the content
        if not os.path.lexists(path) or (was and catalog.hash_of(name) == was):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(place, path)


@dataclass(frozen=True, slots=True)
class Undone:
    """What was done about an attempt that did not succeed."""

    moved: Sequence[str]
    """The files that were moved away, those first that were written last."""
    entries: list[CatalogEntry] = field(default_factory=list)
    """What it made, as it is stored."""
    packs: dict[str, Pack] = field(default_factory=dict)


def undo(catalog: Catalog, before: Baseline, step: Step, place: Path, say: Say) -> Undone:
    """Move what an attempt made to `place`, restore what it changed, and store what it made."""
    names = set(before.files)
    for pattern in step.put:
        with suppress(RunnableError):  # what leads out of the workspace is left alone
            names.update(catalog.files.expand([pattern])[pattern])
    written = sorted(name for name in names if before.is_written(name) and not _is_same(catalog, before, name))
    aside = AsideFolder(catalog, place)
    moved: dict[str, int] = {}
    for name in written:
        if (catalog.workspace / name).is_file():
            try:
                changed_ns = (catalog.workspace / name).lstat().st_ctime_ns
                aside.move(name)
                moved[name] = changed_ns
            except (OSError, RunnableError) as e:
                say(f"{name}, which `{step.name}` wrote and did not finish, cannot be moved away: {e}")
    remove_empty_folders(catalog.workspace, {name: before.folder_of(name) for name in written})
    restored = [name for name in written if name in before.files and _restore(catalog, before, name, say)]
    if restored:
        were = "it was" if len(restored) == 1 else "they were"
        say(f"restored {listed(restored)} as {were} before the attempt")
    newest_first = sorted(moved, key=lambda name: -moved[name])
    try:
        return Undone(newest_first, *_store_failed(catalog, place))
    except (OSError, RunnableError) as e:
        say(f"what `{step.name}` made is in {place}, and could not be stored: {e}")
        return Undone(newest_first)


def _is_same(catalog: Catalog, before: Baseline, name: str) -> bool:
    """Return whether a file has the content that it had: it was written as it was, or restored already."""
    return name in before.files and catalog.hash_of(name) == before.files[name].content.sha256


def _store_failed(catalog: Catalog, place: Path) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    """Store all files of a folder as what a failed attempt made: entries, and packs."""
    found = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return catalog.store_as({path.relative_to(place).as_posix(): path for path in found}, stage="failed")


def _restore(catalog: Catalog, before: Baseline, name: str, say: Say) -> bool:
    file = before.files[name]
    try:
        if file.copy:
            path = catalog.files.safe_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(before.folder / file.copy, path)
        else:
            catalog.restore(name, file.content)
    except (OSError, RunnableError) as e:
        say(f"{name} could not be restored as it was before the attempt: {e}")
        return False
    return True
