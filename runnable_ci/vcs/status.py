"""What git says about a tree: its index, and what differs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from runnable_ci.errors import CodeIdentityError, NotARepositoryError
from runnable_ci.observe.unwatchable import UNWATCHED
from runnable_ci.vcs.filters import kept_by_lfs
from runnable_ci.vcs.git import COMMIT, Git, printable
from runnable_ci.vcs.hashing import content_of
from runnable_ci.vcs.location import ignores_case
from runnable_ci.vcs.objects import SUBMODULE, Item, format_of

# Into submodules we look ourselves: git would start a git there that heeds the settings which a submodule brings.
STATUS: Final = (
    *("status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=no", "--no-renames"),
    "--ignore-submodules=dirty",
)
_OF_TRACKED: Final = tuple(word.replace("untracked-files=all", "untracked-files=no") for word in STATUS)
"""The same but for untracked files: this lists no folder."""
INDEX: Final = ("ls-files", "-z", "-v", "--stage")
NAMED_MAX_FILES: Final = 20
_GIT: Final = ".git"
_SEEN: Final = frozenset({stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR})
"""The kinds of files that git knows: it passes over sockets and pipes."""
_NOTHING: Final = "000000"
_OTHERS: Final = UNWATCHED - {".runnable"}
_UNSEEN: Final = re.compile(
    b"[\\t/]((%s)/|pyvenv\\.cfg\\0)" % b"|".join(re.escape(name.encode()) for name in sorted(_OTHERS))
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that git says differs: from the commit, in the index or in the tree.

    `head` and `index` are what these have there, None for nothing. Source: git-status(1), porcelain format version 2.
    """

    path: str
    kind: str
    head: Item | None = None
    index: Item | None = None


@dataclass(frozen=True)
class Index:
    """Of the index: paths whose changes the user made git ignore (assume-unchanged, skip-worktree), submodules.

    `output` is what git said of it.
    """

    assumed: tuple[str, ...]
    skipped: tuple[str, ...]
    submodules: Mapping[str, Item]
    output: bytes = field(repr=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """All paths in it."""
        return frozenset(index_names(self.output, below=""))


def parsed_status(output: bytes) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the headers and the entries, by path, of git's answer to `STATUS`; `branch.oid` is "" before any commit.

    A path that is deleted in the index and there as an untracked file has two records: it is untracked.
    """
    headers: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    for record in output.split(b"\0")[:-1]:
        match record[:1]:
            case b"#":
                name, _, value = printable(record[2:]).partition(" ")
                headers[name] = value
            case b"1":
                _, letters, below, *about, path = os.fsdecode(record).split(" ", 8)
                head, index, _, head_id, index_id = about
                entries[path] = Entry(path, _kind(letters, below), _item(head, head_id), _item(index, index_id))
            case b"u":
                path = os.fsdecode(record).split(" ", 10)[-1]
                entries[path] = Entry(path, "unmerged")
            case b"?":
                path = os.fsdecode(record[2:])
                deleted = entries.get(path)
                entries[path] = Entry(path, "untracked", deleted.head if deleted else None)
    if not COMMIT.fullmatch(headers.get("branch.oid", "")):
        headers["branch.oid"] = ""
    return headers, entries


def _item(mode: str, found: str) -> Item | None:
    return None if mode == _NOTHING else Item(mode, found)


def _kind(letters: str, below: str) -> str:
    match letters:
        case ".A":
            return "added"
        case "D." | ".D" | "AD" | "MD" | "TD":
            return "deleted"
        case _ if letters[1] == ".":
            return "staged"
        case _ if below.startswith("S"):
            return "submodule"
        case _:
            return "modified"


def status_of(git: Git, paths: Collection[str], index: Index, settings: Mapping[str, list[str]]) -> bytes:
    """Return git's answer to `STATUS` for some paths from the root, of which none says something of others.

    git would list folders to find what is untracked, as if a step that runs had: so that is looked for here, and git
    asked only what it ignores. It is asked all where it has rules of its own: of a repository within this one, of a
    file system that does not tell case, and of what cannot be read. With `.git` among the paths the index may have
    changed.
    """
    command = (*_OF_TRACKED, "--", *paths)
    if "." not in paths and not ignores_case(settings):
        with suppress(_GitKnowsError):
            if _GIT in paths:
                status, listed = git.together(command, (*INDEX, "--", *paths))
                names = frozenset(index_names(listed, below=""))
                return status + _untracked(git, paths, names)
            return git(*command) + _untracked(git, paths, index.names)
    return git(*STATUS, "--", *paths)


class _GitKnowsError(Exception):
    """What is untracked at a path only git knows."""


def _untracked(git: Git, paths: Iterable[str], tracked: Collection[str]) -> bytes:
    """Return git's records of the untracked files at these paths and in these folders. Raises `_GitKnowsError`."""
    here = {path: is_folder for path in paths if (is_folder := _is_folder(git.folder, path)) is not None}
    asked = {path: is_folder for path, is_folder in here.items() if is_folder or path not in tracked}
    kept = _without_ignored(git, asked)
    below = [path for top in kept if asked[top] for path in _files_below(git.folder, top, asked)]
    found = {path for path in kept if not asked[path]}
    found |= {*_without_ignored(git, [path for path in below if path not in tracked])}
    return b"".join(b"? %s\0" % name for name in sorted(map(os.fsencode, found)))


def _is_folder(root: str, path: str) -> bool | None:
    """Return whether git would look into what is at a path; None where it would not see it. Raises `_GitKnowsError`."""
    names = path.split("/")
    if names[0] == _GIT:
        return None
    try:
        for count in range(1, len(names)):
            above = f"{root}/{'/'.join(names[:count])}"
            if not stat.S_ISDIR(os.lstat(above).st_mode):
                return None
            if os.path.lexists(f"{above}/{_GIT}"):
                raise _GitKnowsError
        mode = os.lstat(f"{root}/{path}").st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _GitKnowsError from error
    return stat.S_ISDIR(mode) if stat.S_IFMT(mode) in _SEEN else None


def _files_below(root: str, top: str, asked: Collection[str]) -> Iterator[str]:
    """Yield the files in a folder and those below it, but for what is asked for anyway. Raises `_GitKnowsError`."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.name == _GIT:
                        raise _GitKnowsError
                    if path in asked:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        yield path
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _GitKnowsError from error


def _without_ignored(git: Git, paths: Collection[str]) -> list[str]:
    """Return the paths that git does not ignore, whatever its index has."""
    if not paths:
        return []
    # It takes no pathspecs, and refuses where these are said to be literal: a colon at the start must not be one.
    names = b"".join(b"./%s\0" % os.fsencode(path) for path in paths)
    words = ("check-ignore", "--no-index", "--verbose", "--stdin", "-z")
    said = git(*words, environ={"GIT_LITERAL_PATHSPECS": "0"}, stdin=names, no=1).split(b"\0")
    # Records of source, line, rule and path; git before 2.26 has a path by a rule that excepts it even without them.
    ignored = {os.fsdecode(name[2:]) for rule, name in zip(said[2::4], said[3::4], strict=True) if rule[:1] != b"!"}
    return [path for path in paths if path not in ignored]


def parsed_index(output: bytes) -> Index:
    """Return the index by git's answer to `INDEX`. Source: git-ls-files(1), `-v` and `--stage`."""
    assumed: dict[str, None] = {}  # in a merge conflict a path comes several times
    skipped: dict[str, None] = {}
    submodules: dict[str, Item] = {}
    for record in output.split(b"\0")[:-1]:
        tag, is_submodule = record[:1], record[2:8] == b"160000"
        if tag == b"H" and not is_submodule:
            continue
        about, _, name = record.partition(b"\t")
        path = os.fsdecode(name)
        if is_submodule:
            submodules[path] = Item(SUBMODULE, about.split(b" ")[2].decode())
        if tag.islower():
            assumed[path] = None
        if tag in b"Ss":
            skipped[path] = None
    return Index(tuple(assumed), tuple(skipped), submodules, output)


def index_names(output: bytes, *, below: str) -> Iterator[str]:
    """Yield the paths in the index by git's answer to `INDEX`, from a folder: "" or with a slash at its end.

    In a merge conflict one comes several times.
    """
    names = (os.fsdecode(record.partition(b"\t")[2]) for record in output.split(b"\0")[:-1])
    return (name.removeprefix(below) for name in names if name.startswith(below))


def is_beyond_watching(listed: bytes, paths: Iterable[str]) -> bool:
    """Return whether git has a path, by its answer to `INDEX` or by name, where a watcher does not look.

    That is in the folders of some tools, and in a Python environment.
    """
    parts = (path.split("/") for path in paths)
    return bool(_UNSEEN.search(listed)) or any(
        names[-1] == "pyvenv.cfg" or not _OTHERS.isdisjoint(names[:-1]) for names in parts
    )


def named(changes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a text for each kind of changes (path and kind), as `modified: a.py, b.py`; untracked files come last."""
    names: dict[str, list[str]] = {}
    for path, kind in changes:
        plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)
        names.setdefault(kind, []).append(plain)
    for kind in sorted(names, key=lambda kind: (kind == "untracked", kind)):
        more = len(names[kind]) - NAMED_MAX_FILES
        shown = ", ".join(names[kind][:NAMED_MAX_FILES])
        yield f"{kind}: {shown}" + (f" and {more} more" if more > 0 else "")


class Tracked:
    """What git tracks in a folder; files are named by their paths from there."""

    def __init__(self, folder: str, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.listed: Iterable[str] | None = None
        """All of it, where that is known already."""

    def tracks(self, name: str) -> bool | None:
        """Return whether git tracks a file; None where git does not say. Some file systems do not tell case."""
        return None if self._names is None else name.casefold() in self._names

    def is_committed(self, name: str) -> bool | None:
        """Return whether a file is as its commit has it; None where that is unknown."""
        path = f"{self._folder}/{name}"
        folder, _, base = path.rpartition("/")
        try:
            git = Git(folder, self._environ)
            found = git("ls-tree", "-z", "HEAD", "--", base).split(b"\0")[0]
            mode, _, object_id = found.partition(b"\t")[0].decode().split(" ") if found else ("", "", "")
            if not found:
                return False
            content = content_of(path, format_of(object_id))
            if content.item.mode != mode or content.item.id == object_id:
                return content.item.mode == mode
            return kept_by_lfs(git, [object_id]).get(object_id) == content.sha256
        except (CodeIdentityError, OSError):
            return None

    @cached_property
    def _names(self) -> frozenset[str] | None:
        if self.listed is not None:
            return frozenset(map(str.casefold, self.listed))
        try:
            output = Git(self._folder, self._environ)("ls-files", "-z", "--recurse-submodules")
        except NotARepositoryError:
            return frozenset()
        except CodeIdentityError:
            return None
        return frozenset(os.fsdecode(output).casefold().split("\0"))


def seeing_through(git: Git, index: Index, file: str, scratch: Path) -> dict[str, str]:
    """Return environment for git at a root so that it sees through flags of the index `file` which hide changes.

    `scratch` is an empty folder.
    """
    skipped = [path for path in index.skipped if os.path.lexists(f"{git.folder}/{path}")]
    if not index.assumed and not skipped:
        return {}
    environ = {"GIT_INDEX_FILE": str(scratch / "index")}
    shutil.copy(file, scratch / "index")
    for flag, paths in (("--no-assume-unchanged", index.assumed), ("--no-skip-worktree", skipped)):
        names = b"".join(os.fsencode(path) + b"\0" for path in paths)
        git("update-index", "-z", flag, "--stdin", environ=environ, stdin=names)
    return environ
