"""Which code runs: the commit, and all in the work tree that differs from it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from runnable_ci.errors import CodeIdentityError, NotARepositoryError
from runnable_ci.util.clock import now
from runnable_ci.vcs.filters import Filters, switched_off
from runnable_ci.vcs.git import PATHS_PER_CALL, Git, printable
from runnable_ci.vcs.hashing import Contents
from runnable_ci.vcs.location import LOCATION, SETTINGS, Location, parsed_location, parsed_settings, remote_url
from runnable_ci.vcs.objects import SUBMODULE, Format, Item, Objects
from runnable_ci.vcs.status import (
    INDEX,
    STATUS,
    Entry,
    Index,
    Tracked,
    index_names,
    is_beyond_watching,
    named,
    parsed_index,
    parsed_status,
    seeing_through,
    status_of,
)
from runnable_ci.vcs.trees import CommitFacts, Trees
from runnable_ci.vcs.work_tree import Difference, WorkTree

HASHED_MAX_BYTES: Final = 4 * 1024**3
CACHE_FOLDERS: Final = frozenset({".runnable", "__pycache__"})
_GIT: Final = ".git"
_RULES: Final = frozenset({_GIT, ".gitignore", ".gitattributes", ".gitmodules"})
"""Names of what decides about other paths."""


@dataclass(slots=True)
class _Basis:
    """What a look at all found, on which looks at some paths build."""

    commit: str
    branch: str
    settings: Mapping[str, list[str]]
    index: Index
    is_hidden: bool
    is_blind: bool
    """Whether some paths must be looked at whatever a watcher says."""
    found: dict[str, Difference]
    """Path → what is different there, also what steps made."""


class Code:
    """The code that a pipeline in `folder` runs with: all of the repository around it.

    `is_generated(path, sha256)`, for a posix path from `folder`, says whether a step made the file with that content:
    such files, `.runnable/` and bytecode caches never count as a change. One that a step changed in place does if the
    user had changed it before, as `hides_change(path, sha256, head)` says: the commit has `head` there.
    `hash_made(path)` gives the sha256 of a file that a step made, where that takes less time than to ask git.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str],
        is_generated: Callable[[str, str], bool] = lambda _path, _sha256: False,
        hides_change: Callable[[str, str, Item | None], bool] = lambda _path, _sha256, _head: False,
        hash_made: Callable[[str], str | None] = lambda _path: None,
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._environ = environ
        self._is_generated = is_generated
        self._hides_change = hides_change
        self._hash_made = hash_made
        self.tracked = Tracked(self._folder, environ)
        self._place = Location(self._folder)
        self._settings: dict[str, list[str]] | None = None
        self._is_found = False
        """Whether place and settings were read since the last look: the next one takes them."""
        self._contents = Contents()
        self._facts = CommitFacts()
        self._trees = Trees()
        self._submodules: dict[str, Code] = {}
        self._basis: _Basis | None = None
        self._is_nowhere = False
        self.last = WorkTree(message="not looked at")
        """What the last look gave."""
        self.differences: tuple[Difference, ...] = ()
        """What that found, sorted by path."""
        self.seen_at = ""
        """When it began, as the run log has times."""

    def state(self) -> WorkTree:
        """Return the code as the last look found it; looks where there was none."""
        return self.last if self.seen_at else self.look()

    def look(self) -> WorkTree:
        """Return the code as it is now. Never raises for what git says: `message` says why it is unknown."""
        self.seen_at = now()
        self._basis, self._is_nowhere = None, False
        try:
            self.last = self._seen()
        except CodeIdentityError as error:
            self._is_nowhere = isinstance(error, NotARepositoryError)
            self.differences = ()
            self.last = WorkTree(commit=self._commit_alone(error), message=error.message)
        return self.last

    def look_again(self, changed: Collection[str] | None) -> WorkTree:
        """Return the code as it is now, where only these paths from the folder may have changed since the last look.

        None: all of it may. A path may be a folder's.
        """
        basis = self._basis
        if changed is not None and self._is_nowhere and not any(_GIT in path.split("/") for path in changed):
            return self.last
        if changed is None or basis is None or basis.is_blind:
            return self.look()
        paths = {posixpath.normpath(f"{self.prefix}{path}") for path in changed}
        paths = {path for path in paths if not is_cache(path) and not path.startswith("../")}
        if len(paths) > PATHS_PER_CALL or any(self._decides(path) for path in paths):
            return self.look()
        began = now()
        asked = [path for path in sorted(paths) if path in basis.found or not self._is_as_made(path)]
        if self._place.common_folder != f"{self._place.root}/{_GIT}":
            asked.append(_GIT)  # another work tree may move the branch: a watcher here does not see that
        try:
            if asked and not self._update(basis, asked):
                return self.look()
            if asked or self._differences_of(basis) != self.differences:
                self.last = self._described(basis)
        except CodeIdentityError:
            return self.look()
        self.seen_at = began
        return self.last

    def forget(self) -> None:
        """Have the next `state` look again: something else than a step changed files."""
        self.seen_at = ""

    @property
    def git(self) -> Git:
        """git at the root of the repository that the last look found."""
        return Git(self._place.root, self._environ)

    @property
    def form(self) -> Format:
        """Return which ids the repository's objects have."""
        return self._place.form

    @property
    def prefix(self) -> str:
        """Return the way from that root to the folder: "" or a path that ends with a slash."""
        return self._place.prefix

    def path_within(self, path: str) -> str:
        """Return a path from that root as one from the folder."""
        return path.removeprefix(self.prefix) if path.startswith(self.prefix) else posixpath.relpath(path, self.prefix)

    def submodule(self, path: str) -> Code:
        """Return the code of the submodule at a path from the root."""
        if path not in self._submodules:
            folder = Path(self._place.root, path)
            self._submodules[path] = Code(
                folder,
                # Where its `.git` is none, git would look further up, and find the repository that it is in.
                environ={**self._environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
                is_generated=lambda below, sha256: self.was_made(f"{path}/{below}", sha256),
                hides_change=lambda below, sha256, head: self._is_hiding(f"{path}/{below}", sha256, head),
            )
        return self._submodules[path]

    def tree_with(self, objects: Objects, changes: Mapping[str, Item | None]) -> str:
        """Return the id of the commit's tree with these changes. Raises `CodeIdentityError` where that is not here."""
        return self._trees.changed(self.git, self.last.commit, objects, changes)

    def was_made(self, path: str, sha256: str) -> bool:
        """Return whether a step made the file at a path from the root with that content."""
        return path.startswith(self.prefix) and self._is_generated(path.removeprefix(self.prefix), sha256)

    def _is_product(self, path: str, sha256: str, head: Item | None) -> bool:
        """Return whether what a step made is all that differs."""
        return self.was_made(path, sha256) and not self._is_hiding(path, sha256, head)

    def _is_hiding(self, path: str, sha256: str, head: Item | None) -> bool:
        return self._hides_change(path.removeprefix(self.prefix), sha256, head)

    def _commit_alone(self, error: CodeIdentityError) -> str:
        """Return the commit, where that at least is known."""
        if isinstance(error, NotARepositoryError):
            return ""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
        except CodeIdentityError:
            return ""

    def user_name(self) -> str:
        """Return git's `user.name`, empty where it has none. Raises `CodeIdentityError`."""
        if self._settings is None:
            try:
                self._find()
            except CodeIdentityError:  # what the user set for all repositories holds here too
                return printable(Git(self._folder, self._environ)("config", "--get", "user.name")).strip()
        return printable(os.fsencode((self._settings or {}).get("user.name", [""])[-1]))

    def _find(self) -> dict[str, list[str]]:
        """Find out where the repository is, and return its settings."""
        if self._settings is not None and self._is_found:
            return self._settings
        place, config = Git(self._folder, self._environ).together(LOCATION, SETTINGS)
        self._place, commit, tree = parsed_location(self._folder, os.fsdecode(place))
        if tree:
            self._facts.note_tree(commit, tree)
        self._settings = parsed_settings(config)
        self._is_found = True
        return self._settings

    def _seen(self) -> WorkTree:
        settings = self._find()
        self._is_found = False
        git = Git(self._place.root, {**self._environ, **switched_off(settings, self._environ)})
        listed, status = git.together(INDEX, STATUS)
        index = parsed_index(listed)
        self.tracked.listed = None if index.submodules else index_names(listed, below=self.prefix)
        if index.assumed or index.skipped:
            with TemporaryDirectory() as scratch:
                if environ := seeing_through(git, index, self._place.index, Path(scratch)):
                    status = git(*STATUS, environ=environ)
        headers, entries = parsed_status(status)
        found = [*self._files(git, entries, index, settings), *self._submodule_differences(index, entries)]
        self._basis = _Basis(
            commit=headers["branch.oid"],
            branch=headers["branch.head"],
            settings=settings,
            index=index,
            is_hidden=self._is_hidden(),
            is_blind=bool(index.assumed or index.skipped or is_beyond_watching(listed, entries)),
            found={one.path: one for one in found},
        )
        return self._described(self._basis)

    def _decides(self, path: str) -> bool:
        """Return whether a path says something of others: git's own, and all in submodules."""
        submodules = self._basis.index.submodules if self._basis else {}
        return not _RULES.isdisjoint(path.split("/")) or any(f"{path}/".startswith(f"{sub}/") for sub in submodules)

    def _is_as_made(self, path: str) -> bool:
        digest = self._hash_made(self.path_within(path))
        return digest is not None and self._is_product(path, digest, None)

    def _update(self, basis: _Basis, paths: Collection[str]) -> bool:
        """Look at some paths; whether that is enough, since the commit is the same."""
        git = Git(self._place.root, {**self._environ, **switched_off(basis.settings, self._environ)})
        headers, entries = parsed_status(status_of(git, paths, basis.index, basis.settings))
        if (headers["branch.oid"], headers["branch.head"]) != (basis.commit, basis.branch):
            return False
        below = tuple(f"{path}/" for path in paths)
        chosen = set(paths)
        found = {path: one for path, one in basis.found.items() if path not in chosen and not path.startswith(below)}
        found |= {one.path: one for one in self._files(git, entries, basis.index, basis.settings)}
        basis.found, basis.is_blind = found, is_beyond_watching(b"", entries)
        return True

    def _differences_of(self, basis: _Basis) -> tuple[Difference, ...]:
        """Return what differs, without what steps made: that may be known only since it was found."""
        # Without a content: perhaps a step is making it at this moment, and it changed while it was read.
        asked = (one for one in basis.found.values() if one.content or one.kind == "untracked")
        digests = {one.path: one.content.sha256 if one.content else "" for one in asked}
        made = {path for path, digest in digests.items() if self._is_product(path, digest, basis.found[path].head)}
        found = (one for one in basis.found.values() if one.path not in made)
        return tuple(sorted(found, key=lambda one: os.fsencode(one.path)))

    def _files(
        self, git: Git, entries: Mapping[str, Entry], index: Index, settings: Iterable[str]
    ) -> Iterator[Difference]:
        left_bytes = HASHED_MAX_BYTES
        chosen = [e for path, e in entries.items() if path not in index.submodules and not is_cache(path)]
        heads = {e.path: e.head for e in chosen if e.head and e.kind != "deleted"}
        filters = Filters.of(git, heads, settings, self._place.index)
        for entry in chosen:
            path, kind = entry.path, entry.kind
            if kind == "deleted":
                if entry.head:
                    yield Difference(path, kind, None, None)
                continue
            if path.endswith("/"):
                yield Difference(path, kind, None, None, "a nested git repository")
                continue
            full = f"{self._place.root}/{path}"
            try:
                size = os.lstat(full).st_size
                left_bytes -= size
                content = self._contents.of(full, self.form) if left_bytes >= 0 else None
            except (FileNotFoundError, NotADirectoryError):
                if entry.head or kind == "unmerged":
                    yield Difference(path, "deleted", None, None)
                continue
            except OSError as error:
                yield Difference(path, kind, None, entry.head, error.strerror or str(error))
                continue
            if content is None:
                yield Difference(path, kind, None, entry.head, f"too large to hash: {size} bytes")
            elif content.item == entry.head:
                continue
            elif path not in filters.names or not entry.head:
                yield Difference(path, kind, content, content.item, head=entry.head)
            elif (is_same := filters.is_unchanged(path, entry.head, content)) is None:
                yield Difference(path, "filtered", content, content.item, filters.unknown(path), entry.head)
            elif not is_same:
                yield Difference(path, kind, content, content.item, head=entry.head)

    def _submodule_differences(self, index: Index, entries: Mapping[str, Entry]) -> Iterator[Difference]:
        """Yield the submodules that are not at the commit that the commit says, each with the differences in it."""
        for path, staged in index.submodules.items():
            entry = entries.get(path)
            head = entry.head if entry else staged
            if not os.path.lexists(f"{self._place.root}/{path}/.git"):  # not there, or not filled
                item = None if entry and entry.kind == "deleted" else staged
                if item != head:
                    yield Difference(path, "deleted" if item is None else "staged", None, item)
                continue
            below = self.submodule(path).look()
            at = Item(SUBMODULE, self._commit_of(below)) if below.commit else None
            if at is None or (below.unknown and not below.tree):
                yield Difference(path, "submodule", None, staged, below.message)
            elif at != head:
                is_staged = at == staged and (below.dependable or not below.changes)
                yield Difference(path, "staged" if is_staged else "submodule", None, at)

    def _commit_of(self, below: WorkTree) -> str:
        """Return the commit of a submodule: its own where it is clean, else one of its tree as it is."""
        return Objects(self.form).add_commit(below.tree, below.commit) if below.changes else below.commit

    def _described(self, basis: _Basis) -> WorkTree:
        commit, branch, index = basis.commit, basis.branch, basis.index
        self.differences = self._differences_of(basis)
        changes = {one.name: (one.kind, one.digest) for one in self.differences}
        unknown = {one.name: one.unknown for one in self.differences if one.unknown}
        for path in index.submodules:
            if path in self._submodules and (above := printable(os.fsencode(path))) in changes:
                below = self._submodules[path].last
                changes |= {f"{above}/{name}": change for name, change in below.changes.items()}
                unknown |= {f"{above}/{name}": why for name, why in below.unknown.items()}
        tree, missing = self._tree(commit)
        hidden = basis.is_hidden
        remarks = [
            "" if commit else "no commits yet",
            "git ignores this folder: its files are in no commit" if hidden else "",
            f"{len(unknown)} not compared" if unknown else "",
            missing,
            "shallow clone" if Path(self._place.common_folder, "shallow").exists() else "",
        ]
        differing = ((one.name, one.kind) for one in self.differences)
        url = remote_url(basis.settings, branch)
        return WorkTree(
            commit=commit,
            ref=self._facts.tags(self.git, commit) if branch == "(detached)" else branch,
            url=url,
            dependable=bool(commit) and not changes and not hidden and not missing,
            message="; ".join(part for part in (*named(differing), *remarks) if part),
            changes=changes,
            tree=tree,
            unknown=unknown,
            # Without a remote there is no branch of one to ask git for.
            unpublished=bool(commit) and not (url and self._facts.is_published(self.git, commit)),
        )

    def _tree(self, commit: str) -> tuple[str, str]:
        """Return the id of a tree of all that is here, and why it is not known."""
        changes = {one.path: one.item for one in self.differences if not one.path.endswith("/")}
        try:
            if changes or not commit:
                return self._trees.changed(self.git, commit, Objects(self.form), changes), ""
            return self._facts.tree(self.git, commit), ""
        except CodeIdentityError as error:
            return "", f"the commit's own tree is not known ({error.message})"

    def _is_hidden(self) -> bool:
        """Return whether git ignores the folder, and has none of its files."""
        if not self.prefix:
            return False
        try:
            # It takes no pathspecs, and refuses where these are said to be literal.
            self.git("check-ignore", "--quiet", "--", self.prefix, environ={"GIT_LITERAL_PATHSPECS": "0"})
        except CodeIdentityError:  # it is not ignored
            return False
        return not self.git("ls-files", "-z", "--", self.prefix)


def is_cache(path: str) -> bool:
    """Return whether a path is the program's or the interpreter's: in `.runnable/`, or a bytecode cache."""
    return not CACHE_FOLDERS.isdisjoint(path.split("/")) or path.endswith(".pyc")
