"""The folders of a commit, as far as they are asked for, and trees that differ from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from runnable_ci.vcs.git import PATHS_PER_CALL, Git
from runnable_ci.vcs.objects import Item, Listing, Objects, changed_tree, folders_of


class Trees:
    """What one commit has in its folders: each is listed once."""

    def __init__(self) -> None:
        self._commit = ""
        self._listings: dict[str, dict[str, Item]] = {}

    def changed(self, git: Git, commit: str, objects: Objects, changes: Mapping[str, Item | None]) -> str:
        """Return the id of the commit's tree with these changes, after its new trees were added to the objects.

        Without a commit it is a tree of the changes alone. Raises `CodeIdentityError` where git lacks a tree.
        """
        if commit != self._commit:
            self._commit, self._listings = commit, {}
        if commit:
            self._list(git, folders_of(changes) - self._listings.keys())
        return changed_tree(objects, self._listing, changes)

    def _listing(self, folder: str) -> Listing:
        return self._listings.get(folder, {})

    def _list(self, git: Git, folders: set[str]) -> None:
        found: dict[str, dict[str, Item]] = {folder: {} for folder in folders}
        for names in _asked(sorted(folders)):
            for record in git("ls-tree", "-z", self._commit, "--", *names).split(b"\0")[:-1]:
                about, _, path = record.partition(b"\t")
                mode, _, item = about.decode().split(" ")
                folder, _, name = os.fsdecode(path).rpartition("/")
                if folder in found:
                    found[folder][name] = Item(mode, item)
        self._listings |= found


def _asked(folders: Iterable[str]) -> Iterator[list[str]]:
    """Yield what `ls-tree` is asked for: the root alone, then as many folders at once as a command line takes."""
    waiting = list[str]()
    for folder in folders:
        if not folder:
            yield []
            continue
        waiting.append(f"{folder}/")
        if len(waiting) == PATHS_PER_CALL:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
