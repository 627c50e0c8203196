"""git's objects as values: their ids, and the trees and commits that name a state of the code. Pure.

Source: git, gitformat-pack and "Git Internals - Git Objects" of the Pro Git book.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

Format = Literal["sha1", "sha256"]
Kind = Literal["commit", "tree", "blob"]
FOLDER: Final = "040000"
SUBMODULE: Final = "160000"
LINK: Final = "120000"
# The same for everybody and for ever: equal code on an equal commit is an equal commit.
_SIGNATURE: Final = b"runnable-ci <runnable-ci@localhost> 0 +0000"
_MESSAGE: Final = b"The code of a run\n"


class Item(NamedTuple):
    """What a tree has under a name: git's mode, six digits, and the id of the object."""

    mode: str
    id: str


Listing = Mapping[str, Item]
"""A folder of a tree, by names."""


class ObjectHash(Protocol):
    """A hash to which an object's content is added."""

    def update(self, content: bytes, /) -> None:
        """Add more of the content."""

    def hexdigest(self) -> str:
        """Return the id of the object, once all of it was added."""
        ...


def new_hash(kind: Kind, size: int, form: Format) -> ObjectHash:
    """Return the hash of an object whose content is still to be added to it."""
    start = f"{kind} {size}\0".encode()
    return hashlib.sha1(start, usedforsecurity=False) if form == "sha1" else hashlib.sha256(start)


def object_id(kind: Kind, content: bytes, form: Format) -> str:
    """Return the id of an object."""
    found = new_hash(kind, len(content), form)
    found.update(content)
    return found.hexdigest()


def format_of(commit: str) -> Format:
    """Return which ids a repository has, by one of them."""
    return "sha256" if len(commit) == 64 else "sha1"


@dataclass(slots=True)
class Objects:
    """New objects: id → kind and content."""

    form: Format
    made: dict[str, tuple[Kind, bytes]] = field(default_factory=dict)

    def add(self, kind: Kind, content: bytes) -> str:
        """Return the id of an object that is one of these now."""
        found = object_id(kind, content, self.form)
        self.made[found] = (kind, content)
        return found

    def add_tree(self, listing: Listing) -> str:
        """Return the id of a tree, in git's order: by bytes, where a folder's name ends with a slash."""
        named = [(os.fsencode(name) + (b"/" if item.mode == FOLDER else b""), item) for name, item in listing.items()]
        lines = (
            item.mode.lstrip("0").encode() + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(item.id)
            for name, item in sorted(named)
        )
        return self.add("tree", b"".join(lines))

    def add_commit(self, tree: str, parent: str) -> str:
        """Return the id of the commit of a tree, on a commit or, where that is empty, on none."""
        lines = [b"tree " + tree.encode(), *([b"parent " + parent.encode()] if parent else [])]
        lines += [b"author " + _SIGNATURE, b"committer " + _SIGNATURE, b"", _MESSAGE]
        return self.add("commit", b"\n".join(lines))


def folders_of(paths: Iterable[str]) -> set[str]:
    """Return all folders that these paths are in, `""` for the root."""
    found = {""}
    for path in paths:
        while (path := path.rpartition("/")[0]) not in found:
            found.add(path)
    return found


def changed_tree(objects: Objects, listed: Callable[[str], Listing], changes: Mapping[str, Item | None]) -> str:
    """Return the id of a tree that differs from another one by these paths; None takes a path away.

    `listed` has the other one's folders. A folder in which nothing is left goes, as git has no empty ones.
    """
    root = Item(FOLDER, objects.add_tree(_changed(objects, listed, "", changes)))
    return root.id


def _changed(
    objects: Objects, listed: Callable[[str], Listing], folder: str, changes: Mapping[str, Item | None]
) -> dict[str, Item]:
    found = dict(listed(folder))
    below: dict[str, dict[str, Item | None]] = {}
    for path, item in changes.items():
        name, slash, rest = path.partition("/")
        if slash:
            below.setdefault(name, {})[rest] = item
        elif item is None:
            found.pop(name, None)
        else:
            found[name] = item
    for name, inner in below.items():
        there = found.get(name)
        if there is not None and there.mode != FOLDER:
            if not any(inner.values()):  # a file took the folder's place
                continue
            del found[name]
        path = f"{folder}/{name}" if folder else name
        if listing := _changed(objects, listed, path, inner):
            found[name] = Item(FOLDER, objects.add_tree(listing))
        else:
            found.pop(name, None)
    return found
