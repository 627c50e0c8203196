"""What globs find in a folder: files, links, empty folders, and what cannot be kept.

A link to a folder is never entered on the way down, so loops end. Whether it is kept as a link is decided once all
names are known: where what it points to is found too, it stays a link; else its files are found under its own name,
as if it were a folder, so that nothing is lost that a glob names.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from runnable_ci.errors import RunnableError, StepError, UnsafePathError
from runnable_ci.pipeline.patterns import ANY_FOLDERS, literal_of
from runnable_ci.pipeline.validation import check_relative, is_excluded
from runnable_ci.runs.files.links import LINKS_MAX, Found
from runnable_ci.runs.model import FOLDER, LINK

_WILDCARDS = frozenset("*?[")
_OTHER_KINDS = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


@dataclass(slots=True)
class Tree:
    """A folder, looked through once."""

    root: Path
    keeps_links: bool = True
    """Whether links and empty folders are found as such; else only files are, through links."""
    is_strict: bool = True
    """Whether what cannot be kept is raised, and what cannot be read."""
    stays_inside: bool = True
    """Whether links that lead out of the folder are refused."""
    _real: str = field(init=False)
    """The folder without links on the way to it."""
    _found: dict[str, str] = field(default_factory=dict)
    """Name → `link`, `folder` or nothing."""
    _links: dict[str, str] = field(default_factory=dict)
    _unfit: dict[str, RunnableError] = field(default_factory=dict)
    _below: dict[str, set[str]] = field(default_factory=dict)
    """Folder → all names below it, no link being followed."""

    def __post_init__(self) -> None:
        self._real = os.path.realpath(self.root)

    def find(self, patterns: Sequence[str]) -> Found:
        """Return what globs find. Raises `UnsafePathError` for a link that leads out, `StepError` for what is unfit."""
        names = {pattern: self._names(pattern) for pattern in patterns}
        candidates = {(name, frozenset[str]()) for found in names.values() for name in found if self._is_link(name)}
        while candidates:
            every = set().union(*names.values())
            coming = set()
            for name, seen in sorted(candidates, key=lambda item: item[0]):
                new, place = self._resolve(name, seen, every)
                coming |= {(other, seen | {place}) for other in new if self._is_link(other)}
                for of_pattern in filter(lambda found: name in found, names.values()):
                    of_pattern.update(new)
                    if name not in self._found:
                        of_pattern.discard(name)
            candidates = coming
        self._drop_what_is_behind_links(names)
        for name in set().union(*names.values()):
            if problem := _name_problem(name):
                self._refuse(name, problem)
        return Found(
            {pattern: sorted(found) for pattern, found in names.items()},
            self._links,
            frozenset(name for name, kind in self._found.items() if kind == FOLDER),
            self._unfit,
        )

    # -- names

    def _names(self, pattern: str) -> set[str]:
        """Return what one glob finds, a folder's files for a folder."""
        for glob in filter(None, (literal_of(pattern), pattern)):
            found: set[str] = set()
            entered: set[str] = set()
            for hit in self._hits("", PurePosixPath(glob).parts, frozenset()):
                self._take(hit, found, entered)
            if found:
                return found
        return set()

    def _hits(self, folder: str, parts: Sequence[str], seen: frozenset[str]) -> Iterator[str]:
        """Yield the names that the parts of a glob match below a folder."""
        if not parts:
            yield folder or "."
            return
        head, *rest = parts
        if head == ANY_FOLDERS:
            yield from self._hits(folder, rest, seen)
            if rest:
                for name in self._names_in(folder):
                    if (inner := self._enter(name, seen)) is not None:
                        yield from self._hits(name, parts, inner)
            return
        if _WILDCARDS.isdisjoint(head):
            name = posixpath.join(folder, head)
            names: Iterator[str] = iter([name] if os.path.lexists(self._path(name)) else [])
        else:
            names = (name for name in self._names_in(folder) if fnmatchcase(posixpath.basename(name), head))
        for name in names:
            if not rest:
                yield name
            elif (inner := self._enter(name, seen)) is not None:
                yield from self._hits(name, rest, inner)

    def _enter(self, name: str, seen: frozenset[str]) -> frozenset[str] | None:
        """Return the folders that were entered through links, with this one if it is such; None for no folder."""
        path = self._path(name)
        if not os.path.isdir(path):  # noqa: PTH112 - one of very many
            return None
        if not self._is_link(name):
            return seen
        real = os.path.realpath(path)
        if real in seen or self._is_above(real, name) or not self._check_inside(name, real):
            return None
        return seen | {real}

    def _take(self, hit: str, found: set[str], entered: set[str]) -> None:
        """Add a name that a glob matches: a folder as all that is below it."""
        name = posixpath.normpath(hit)
        if is_excluded(name):
            return
        waiting = [name]
        while waiting:
            name = waiting.pop()
            try:
                mode = os.lstat(self._path(name)).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(mode):
                self._add(name, mode, found)
            elif name not in entered:
                entered.add(name)
                inner = list(self._names_in("" if name == "." else name))
                waiting += inner
                if self.keeps_links and not inner and name != "." and self._is_empty(name):
                    self._found[name] = FOLDER
                    found.add(name)

    def _add(self, name: str, mode: int, found: set[str]) -> None:
        if kind := _OTHER_KINDS.get(stat.S_IFMT(mode)):
            if self.keeps_links:
                hint = "remove it at the end of the step, or put the other files by their names"
                self._refuse(name, StepError(f"`{name}` is {kind}, which cannot be stored", hint=hint))
            return
        if not stat.S_ISLNK(mode):
            self._found[name] = ""
        found.add(name)

    def _names_in(self, folder: str) -> Iterator[str]:
        try:
            names = sorted(os.listdir(self._path(folder)))  # noqa: PTH208 - one of very many
        except FileNotFoundError:  # it was removed just now
            return
        except OSError:
            if self.is_strict and self.keeps_links:
                raise
            return
        yield from (posixpath.join(folder, name) for name in names if not is_excluded(name))

    def _is_empty(self, name: str) -> bool:
        with suppress(OSError):
            return not os.listdir(self._path(name))  # noqa: PTH208 - one of very many
        return False

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _is_link(self, name: str) -> bool:
        return os.path.islink(self._path(name))  # noqa: PTH114 - one of very many

    # -- links

    def _resolve(self, name: str, seen: frozenset[str], every: set[str]) -> tuple[set[str], str]:
        """Decide what a link is: kept, a file, or a folder whose files are returned; and the place it leads to."""
        path = self._path(name)
        real = os.path.realpath(path)
        if not self._check_inside(name, real):
            return set(), real
        is_folder = os.path.isdir(path)  # noqa: PTH112 - one of very many
        is_broken = not os.path.exists(path)  # noqa: PTH110
        is_loop = is_folder and (real in seen or self._is_above(real, name))
        place = self._place(name, None if is_broken else real)
        if self.keeps_links and place and (is_broken or is_loop or self._is_found(place, every, is_folder=is_folder)):
            self._found[name], self._links[name] = LINK, link_text(self.root, name)
        elif is_folder and not is_loop:
            found: set[str] = set()
            for inner in self._names_in(name):
                self._take(inner, found, set())
            return found, real
        elif not is_folder and not is_broken:
            self._add(name, os.stat(path).st_mode, set())  # noqa: PTH116
        elif self.keeps_links and is_broken:
            self._refuse(name, StepError(f"`{name}` is a broken link that points outside the workspace"))
        return set(), real

    def _check_inside(self, name: str, real: str) -> bool:
        """Return whether a link leads to a place of the folder that may be read."""
        inside = os.path.relpath(real, self._real)
        if name.startswith("../") or not self.stays_inside:
            return not is_excluded(inside)
        problem = "that points outside the workspace" if inside.split("/")[0] == os.pardir else ""
        problem = problem or ("into a repository or a store" if is_excluded(inside) else "")
        if problem:
            hint = "copy what it points to into the workspace, or remove the link"
            self._refuse(name, UnsafePathError(f"`{name}` is behind a link {problem}", hint=hint))
        return not problem

    def _place(self, name: str, real: str | None) -> str:
        """Return the place to which a link points, as the name of another one; empty where there is no such name.

        Its text is taken as it stands, which is right only where that leads to the `real` place too.
        """
        place = link_place(self.root, name)
        is_same = real is None or os.path.realpath(self._path(place)) == real
        return place if is_same and place.split("/")[0] != ".." and not is_excluded(place) else ""

    def _is_found(self, place: str, every: set[str], *, is_folder: bool) -> bool:
        """Return whether all that a place has is found too, and each link on the way there."""
        for _ in range(LINKS_MAX):
            above = [str(parent) for parent in reversed(PurePosixPath(place).parents)]
            link = next((parent for parent in above if self._is_link(parent)), None)
            if link is None:
                break
            if link not in every:
                return False
            place = posixpath.normpath(posixpath.join(link_place(self.root, link), posixpath.relpath(place, link)))
        if not is_folder or self._is_link(place):
            return place in every
        if place not in self._below:
            below: set[str] = set()
            inner = Tree(self.root, is_strict=False)
            inner._take(place, below, set())
            self._below[place] = below
        return bool(self._below[place]) and self._below[place] <= every

    def _is_above(self, real: str, name: str) -> bool:
        """Return whether a folder is one in which a name lies, be it through links."""
        above = (os.path.realpath(self._path(str(parent))) for parent in PurePosixPath(name).parents)
        return any(f"{folder}/".startswith(f"{real}/") for folder in above)

    def _drop_what_is_behind_links(self, names: dict[str, set[str]]) -> None:
        """Leave out what another glob found through a link that is kept: it is found where it is."""
        if not self._links:
            return
        for found in names.values():
            for name in list(found):
                behind = [str(parent) for parent in PurePosixPath(name).parents if str(parent) in self._links]
                if behind:
                    found.discard(name)
                    found.add(behind[-1])

    def _refuse(self, name: str, problem: RunnableError) -> None:
        if self.is_strict:
            raise problem
        self._unfit[name] = problem


def link_place(root: Path, name: str) -> str:
    """Return the place to which a link points, from the root, by its text alone."""
    target = os.readlink(root / name)  # noqa: PTH115 - as it is written
    if target.startswith("/"):
        is_spelled_so = f"{target}/".startswith(f"{root}/")
        return os.path.relpath(target, root if is_spelled_so else os.path.realpath(root))
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def link_text(root: Path, name: str) -> str:
    """Return a link's target as the catalog keeps it: from its own folder, `..` only at the beginning."""
    return posixpath.relpath(link_place(root, name), posixpath.dirname(name) or ".")


def _name_problem(name: str) -> RunnableError | None:
    """Return why a name cannot be kept: it is not text, or could not be restored."""

    def error(message: str) -> RunnableError:
        return StepError(f"a file has {message}", hint="give it another name")

    try:
        if not name.startswith("../"):
            check_relative(name, error)
        name.encode()
    except StepError as e:
        return e
    except UnicodeEncodeError:
        return StepError(f"the file name {name!a} is not UTF-8", hint="give the file another name")
    return None
