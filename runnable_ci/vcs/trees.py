"""What git says of commits, as far as it is asked for, and trees that differ from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from runnable_ci.errors import CodeIdentityError
from runnable_ci.vcs.git import PATHS_PER_CALL, Git, printable
from runnable_ci.vcs.location import tree_of
from runnable_ci.vcs.objects import Item, Listing, Objects, changed_tree, folders_of


class CommitFacts:
    """Facts of a repository's commits. Each raises `CodeIdentityError` where git does not say."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def note_tree(self, commit: str, tree: str) -> None:
        """Take the id of a commit's tree from elsewhere."""
        self._known[commit, tree_of(commit)] = tree

    def tree(self, git: Git, commit: str) -> str:
        """Return the id of the commit's tree."""
        return self._ask(git, commit, "rev-parse", "--verify", tree_of(commit))

    def tags(self, git: Git, commit: str) -> str:
        """Return the commit's tags, else that HEAD is detached."""
        asked = ("for-each-ref", f"--points-at={commit}", "--format=%(refname:lstrip=2)", "refs/tags")
        return ", ".join(self._ask(git, commit, *asked).split()) or "HEAD detached"

    def is_published(self, git: Git, commit: str) -> bool:
        """Return whether a branch of a remote has the commit, as far as this clone knows."""
        if git.environ.get("GITHUB_SHA") == commit:  # a job's checkout may have no branch of the remote
            return True
        asked = ("for-each-ref", "--count=1", f"--contains={commit}", "--format=%(refname)", "refs/remotes")
        try:
            return bool(self._ask(git, commit, *asked))
        except CodeIdentityError:  # commits are missing: that says nothing
            return True

    def _ask(self, git: Git, commit: str, *asked: str) -> str:
        if (commit, asked[-1]) not in self._known:
            self._known[commit, asked[-1]] = printable(git(*asked)).strip()
        return self._known[commit, asked[-1]]


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
