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
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.tree import Tree, link_text
from runnable_ci.runs.model import FOLDER, LINK, CatalogEntry, Pack
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

    def move(self, name: str, kind: str = "") -> Path:
        """Move a file, a link or an empty folder; its place now.

        Of a file that is read through a link the content is copied, and the link stays; so does a file that is behind a
        link to a folder, where that was made later: then it need not be the step's own.
        """
        path, place = f"{self.catalog.workspace}/{name}", self._place_of(name)
        is_link = os.path.islink(path)  # noqa: PTH114 - one of very many
        if kind == LINK and is_link:
            Path(place).symlink_to(link_text(self.catalog.workspace, name))
            Path(path).unlink()
        elif kind == FOLDER:
            Path(path).rmdir()
            Path(place).mkdir()
        elif (is_link and self.catalog.files.is_inside(Path(path))) or self._is_lent(name):
            shutil.copy2(path, place)
        else:
            shutil.move(path, place)
        return Path(place)

    def add_copy(self, name: str, file: Path) -> None:
        """Add a copy of what a file of the workspace was."""
        shutil.copy2(file, self._place_of(name))

    def _place_of(self, name: str) -> str:
        """Return a free place for a file, whose folder is there."""
        # In another folder where it is taken: a name may have no room for a number.
        folders = chain([str(self.folder)], (f"{self.folder}.{i}" for i in count(2)))
        place = next(place for folder in folders if not os.path.lexists(place := f"{folder}/{name}"))
        parent = place.rpartition("/")[0]
        if parent not in self._ready:
            self.catalog.files.safe_path(name)
            make_folders(Path(parent), within=self.catalog.layout.folder)
            self._ready.add(parent)
        return place

    def _is_lent(self, name: str) -> bool:
        """Return whether a file is behind a link that was made after the file was written."""
        above = (self.catalog.workspace / parent for parent in PurePosixPath(name).parents)
        links = [folder.lstat().st_ctime_ns for folder in above if folder.is_symlink()]
        return bool(links) and max(links) > (self.catalog.workspace / name).lstat().st_ctime_ns


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


def move_back(catalog: Catalog, files: Mapping[str, Path]) -> None:
    """Move files to where they were in the workspace, unless another file has the place of one.

    The index has them as what was made last, however much was made meanwhile by attempts that did not succeed.
    """
    back = []
    for name, place in files.items():
        path = catalog.files.safe_path(name)
        last = catalog.products.lookup(name)
        was = last.was.sha256 if last and last.was else None
        with suppress(OSError):  # a folder is a file now, say: the store has the content
            if not os.path.lexists(path) or (was and catalog.hash_of(name) == was):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(place, path)
                digest = catalog.hash_of(name, LINK if path.is_symlink() else "")
                back.append(catalog.products.lookup(name, digest) if digest else None)
    catalog.products.record(filter(None, back))


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
    found = catalog.files.find(step.put, is_strict=False)
    for name, problem in found.unfit.items():
        say(f"{name} is left alone: {problem}")
    names = found.all_names().union(before.files) - found.unfit.keys()
    written = sorted(name for name in names if before.is_written(name) and not _is_same(catalog, before, name))
    aside = AsideFolder(catalog, place)
    moved: dict[str, int] = {}
    for name in written:
        if os.path.lexists(catalog.workspace / name) and not _is_filled(catalog.workspace / name):
            try:
                changed_ns = (catalog.workspace / name).lstat().st_ctime_ns
                aside.move(name, found.kind_of(name))
                moved[name] = changed_ns
            except (OSError, RunnableError) as e:
                say(f"{name}, which `{step.shown}` wrote and did not finish, cannot be moved away: {e}")
    remove_empty_folders(catalog.workspace, {name: before.folder_of(name) for name in written})
    restored = [name for name in written if name in before.files and _restore(catalog, before, name, say)]
    if restored:
        were = "it was" if len(restored) == 1 else "they were"
        say(f"restored {listed(restored)} as {were} before the attempt")
    newest_first = sorted(moved, key=lambda name: -moved[name])
    try:
        return Undone(newest_first, *_store_failed(catalog, place, step))
    except (OSError, RunnableError) as e:
        say(f"what `{step.shown}` made is in {place}, and could not be stored: {e}")
        return Undone(newest_first)


def _is_filled(path: Path) -> bool:
    """Return whether there is a folder which is not empty."""
    return path.is_dir() and not path.is_symlink() and any(path.iterdir())


def _is_same(catalog: Catalog, before: Baseline, name: str) -> bool:
    """Return whether a file has the content that it had: it was written as it was, or restored already."""
    return name in before.files and catalog.is_there(before.files[name].content, name)


def _store_failed(catalog: Catalog, place: Path, step: Step) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    """Store all files of a folder as what a failed attempt made: entries, and packs."""
    found = Tree(place, is_strict=False).find(["**"])
    names = sorted(found.all_names() - found.unfit.keys())
    unstored = step.unstored_among(names)
    return catalog.store_as({n: place / n for n in names}, found=found, unstored=unstored, stage="failed")


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
