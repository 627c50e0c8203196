"""A work tree at one moment, as values: the commit, and each path that differs from it. Pure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from runnable_ci.vcs.git import printable
from runnable_ci.vcs.hashing import Content
from runnable_ci.vcs.objects import SUBMODULE, Item


class Difference(NamedTuple):
    """A path of the work tree that is not as in the commit."""

    path: str
    kind: str
    content: Content | None
    """What is there; None where nothing is, where it is a submodule, or where that is not known."""
    item: Item | None
    """What a tree has for it; None takes it away."""
    unknown: str = ""
    """Why it is not known what it is, or whether it differs."""

    head: Item | None = None
    """What the commit has for it, where a step may have made what is there."""

    @property
    def name(self) -> str:
        """Return the path as text that can be printed as JSON, whatever bytes it has."""
        return printable(os.fsencode(self.path))

    @property
    def digest(self) -> str:
        """Return the sha256 of the content; of a submodule its commit, of anything else nothing."""
        is_submodule = self.item is not None and self.item.mode == SUBMODULE
        return self.content.sha256 if self.content else self.item.id if self.item and is_submodule else ""


class WorkTree(NamedTuple):
    """The code as it was at one moment.

    `commit`: hex digits, "" where there is none. `ref`: the branch, else the tags of the commit, else "HEAD detached".
    `url`: of the remote, without credentials. `dependable`: nothing differs from the commit.
    `message`: what differs, or why that is unknown. `changes`: path from the repository's root → (kind, sha256 of the
    content now, "" where it is gone, a folder or not known; for a submodule its commit); those in submodules are
    among them, and bytes of a name that are not UTF-8 are written `\\xNN`.
    `tree`: git's id of a tree that holds just these bytes, "" where it is not known. `unknown`: path → what is not
    known of it. `unpublished`: no branch of a remote is known to have the commit.
    """

    commit: str = ""
    ref: str = ""
    url: str = ""
    dependable: bool = False
    message: str = ""
    changes: Mapping[str, tuple[str, str]] = MappingProxyType({})
    tree: str = ""
    unknown: Mapping[str, str] = MappingProxyType({})
    unpublished: bool = False

    @property
    def key(self) -> str:
        """Return what is equal for equal code on an equal commit: the tree's id, and a digest of what differs."""
        if not self.changes and not self.unknown:
            return self.tree or self.commit
        found = hashlib.sha256(self.commit.encode())
        for table in (sorted(self.changes.items()), sorted(self.unknown.items())):
            found.update(repr(table).encode())
        return f"{self.tree or 'unknown'}.{found.hexdigest()[:12]}"
