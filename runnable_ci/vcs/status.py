"""What git prints about a tree, as values; and what these say, as text and as a digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from runnable_ci.vcs.git import printable

STATUS: Final = (
    *("status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=matching", "--no-renames"),
    "--ignore-submodules=none",
)
INDEX: Final = ("ls-files", "-z", "-v", "--stage")
NAMED_MAX_FILES: Final = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that differs from the commit. Source: git-status(1), porcelain format version 2.

    `index` and `tree` are git's letters (`M`, `A`, `D` …, `.` for the same); `modes` of HEAD, index and file;
    `blobs` of HEAD and index. `content` tells contents apart: a sha256 (of a submodule its state's digest), "" where
    there is none, a text with spaces for what is too large to hash.
    """

    path: str
    kind: str
    index: str = "."
    tree: str = "."
    modes: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    content: str = ""

    @property
    def name(self) -> str:
        """The path as text that can be printed as JSON, whatever bytes it has."""
        return printable(os.fsencode(self.path))

    @property
    def unhashed(self) -> bool:
        """Whether the content is too large to hash."""
        return " " in self.content


@dataclass(frozen=True, slots=True)
class Index:
    """The tracked paths, and those whose changes the user made git ignore (assume-unchanged, skip-worktree)."""

    paths: frozenset[str]
    assumed: tuple[str, ...]
    skipped: tuple[str, ...]
    submodules: bool


def parsed_status(output: bytes) -> tuple[dict[str, str], list[Entry]]:
    """Return the headers and entries of git's answer to `STATUS`; ignored paths are entries too."""
    headers: dict[str, str] = {}
    entries = []
    for record in output.split(b"\0")[:-1]:
        match record[:1]:
            case b"#":
                name, _, value = printable(record[2:]).partition(" ")
                headers[name] = value
            case b"1":
                _, letters, below, head, index, tree, *blobs, path = os.fsdecode(record).split(" ", 8)
                kind = _kind(letters, below)
                entries.append(Entry(path, kind, letters[0], letters[1], (head, index, tree), tuple(blobs)))
            case b"u":
                _, letters, _, *modes, first, second, third, path = os.fsdecode(record).split(" ", 10)
                blobs = [first, second, third]
                entries.append(Entry(path, "unmerged", letters[0], letters[1], tuple(modes), tuple(blobs)))
            case b"?":
                entries.append(Entry(os.fsdecode(record[2:]), "untracked"))
            case b"!":
                entries.append(Entry(os.fsdecode(record[2:]), "ignored"))
    return headers, entries


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


def parsed_index(output: bytes) -> Index:
    """Return the index by git's answer to `INDEX`. Source: git-ls-files(1), `-v` and `--stage`."""
    tags: dict[str, bytes] = {}  # in a merge conflict a path comes several times
    submodules = False
    for item in output.split(b"\0")[:-1]:
        about, _, path = item.partition(b"\t")
        tags[os.fsdecode(path)] = about[:1]
        submodules |= about[2:8] == b"160000"
    return Index(
        paths=frozenset(tags),
        assumed=tuple(path for path, tag in tags.items() if tag.islower()),
        skipped=tuple(path for path, tag in tags.items() if tag in b"Ss"),
        submodules=submodules,
    )


def named(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a text for each kind of entries, as `modified: a.py, b.py`; untracked files come last."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in entry.name)
        names.setdefault(entry.kind, []).append(plain)
    for kind in sorted(names, key=lambda kind: (kind == "untracked", kind)):
        more = len(names[kind]) - NAMED_MAX_FILES
        shown = ", ".join(names[kind][:NAMED_MAX_FILES])
        yield f"{kind}: {shown}" + (f" and {more} more" if more > 0 else "")


def digest(commit: str, entries: Iterable[Entry]) -> str:
    """Return a digest that is equal for an equal commit and equal entries in equal order."""
    found = hashlib.sha256(commit.encode() + b"\0")
    for entry in entries:
        parts = (entry.kind, entry.index, entry.tree, *(" ".join(part) for part in (entry.modes, entry.blobs)))
        found.update(b"\0".join(os.fsencode(part) for part in (*parts, entry.content, entry.path, "")))
    return found.hexdigest()
