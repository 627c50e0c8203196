"""What git prints about a tree, as values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from runnable_ci.vcs.git import printable
from runnable_ci.vcs.objects import SUBMODULE, Item

# Into submodules we look ourselves: git would start a git there that heeds the settings which a submodule brings.
STATUS: Final = (
    *("status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=no", "--no-renames"),
    "--ignore-submodules=dirty",
)
INDEX: Final = ("ls-files", "-z", "-v", "--stage")
NAMED_MAX_FILES: Final = 20
_NOTHING: Final = "000000"


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that git says differs: from the commit, in the index or in the tree.

    `head` and `index` are what these have there, None for nothing. Source: git-status(1), porcelain format version 2.
    """

    path: str
    kind: str
    head: Item | None = None
    index: Item | None = None


class Index(NamedTuple):
    """Of the index: paths whose changes the user made git ignore (assume-unchanged, skip-worktree), submodules."""

    assumed: tuple[str, ...]
    skipped: tuple[str, ...]
    submodules: Mapping[str, Item]


def parsed_status(output: bytes) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the headers and the entries, by path, of git's answer to `STATUS`.

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
    return Index(tuple(assumed), tuple(skipped), submodules)


def index_names(output: bytes) -> Iterator[str]:
    """Yield the paths in the index by git's answer to `INDEX`; in a merge conflict one comes several times."""
    return (os.fsdecode(record.partition(b"\t")[2]) for record in output.split(b"\0")[:-1])


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
