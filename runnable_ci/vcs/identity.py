"""Which code runs: the commit, and all in the work tree that differs from it."""

from __future__ import annotations

import os
import posixpath
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from runnable_ci.errors import CodeIdentityError, NotARepositoryError
from runnable_ci.util.clock import now
from runnable_ci.vcs.filters import filtered, filters_of, kept_by_lfs, switched_off
from runnable_ci.vcs.git import COMMIT, Git, printable
from runnable_ci.vcs.hashing import Contents, content_of
from runnable_ci.vcs.location import LOCATION, SETTINGS, Location, parsed_location, parsed_settings, remote_url, tree_of
from runnable_ci.vcs.objects import SUBMODULE, Format, Item, Objects, format_of
from runnable_ci.vcs.status import INDEX, STATUS, Entry, Index, index_names, named, parsed_index, parsed_status
from runnable_ci.vcs.trees import Trees
from runnable_ci.vcs.work_tree import Difference, WorkTree

HASHED_MAX_BYTES: Final = 4 * 1024**3
CACHE_FOLDERS: Final = frozenset({".runnable", "__pycache__"})
PACE: Final = 20
"""Without a watcher, at most one part in so many of the time goes into looking."""


class Code:
    """The code that a pipeline in `folder` runs with: all of the repository around it.

    `is_generated(path, sha256)`, for a posix path from `folder`, says whether a step made the file with that content:
    such files, `.runnable/` and bytecode caches never count as a change. One that a step changed in place does if the
    user had changed it before, as `hides_change(path, sha256, head)` says: the commit has `head` there.
    `is_unchanged()` may say that nothing has changed since the last look but what steps made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str],
        is_generated: Callable[[str, str], bool] = lambda _path, _sha256: False,
        hides_change: Callable[[str, str, Item | None], bool] = lambda _path, _sha256, _head: False,
        is_unchanged: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._environ = environ
        self._is_generated = is_generated
        self._hides_change = hides_change
        self._is_unchanged = is_unchanged
        self._clock = clock
        self._place = Location(self._folder)
        self._settings: dict[str, list[str]] | None = None
        self._is_found = False
        """Whether place and settings were read since the last look: the next one takes them."""
        self._contents = Contents()
        self._facts: dict[tuple[str, str], str] = {}
        self._names: bytes | None = None
        """What git said of the index in the last look, where it has no submodules."""
        self._trees = Trees()
        self._submodules: dict[str, Code] = {}
        self._next_look: float | None = None
        self.last = WorkTree(message="not looked at")
        """What the last look gave."""
        self.differences: tuple[Difference, ...] = ()
        """What that found, sorted by path."""
        self.seen_at = ""
        """When it began, as the run log has times."""

    def state(self) -> WorkTree:
        """Return the code as the last look found it; looks again where that was too long ago, see `PACE`."""
        if self._next_look is None or not (self._clock() < self._next_look or self._is_unchanged()):
            return self.look()
        return self.last

    def look(self) -> WorkTree:
        """Return the code as it is now. Never raises for what git says: `message` says why it is unknown."""
        self.seen_at = now()
        began = self._clock()
        try:
            self.last = self._seen()
        except CodeIdentityError as error:
            self.differences = ()
            self.last = WorkTree(commit=self._commit_alone(error), message=error.message)
        ended = self._clock()
        self._next_look = ended + PACE * (ended - began)
        return self.last

    def forget(self) -> None:
        """Have the next `state` look again: something else than a step changed files."""
        self._next_look = None

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

    def tracks(self, name: str) -> bool | None:
        """Return whether git tracks a file, by its path from the folder; None where git does not say.

        Some file systems do not tell case.
        """
        return None if self._tracked is None else name.casefold() in self._tracked

    def is_committed(self, name: str) -> bool | None:
        """Return whether a file, by its path from the folder, is as its commit has it; None where that is unknown."""
        path = f"{self._folder}/{name}"
        folder, _, base = path.rpartition("/")
        try:
            found = Git(folder, self._environ)("ls-tree", "-z", "HEAD", "--", base).split(b"\0")[0]
            mode, _, object_id = found.partition(b"\t")[0].decode().split(" ") if found else ("", "", "")
            return bool(found) and content_of(path, format_of(object_id)).item == Item(mode, object_id)
        except (CodeIdentityError, OSError):
            return None

    @cached_property
    def _tracked(self) -> frozenset[str] | None:
        if self._names is not None:
            names = (name for name in index_names(self._names) if name.startswith(self.prefix))
            return frozenset(name.removeprefix(self.prefix).casefold() for name in names)
        try:
            output = Git(self._folder, self._environ)("ls-files", "-z", "--recurse-submodules")
        except NotARepositoryError:
            return frozenset()
        except CodeIdentityError:
            return None
        return frozenset(os.fsdecode(output).casefold().split("\0"))

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
                clock=self._clock,
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
            except NotARepositoryError:  # what all of the user's repositories have holds here too
                return printable(Git(self._folder, self._environ)("config", "--get", "user.name")).strip()
        return (self._settings or {}).get("user.name", [""])[-1]

    def _find(self) -> dict[str, list[str]]:
        """Find out where the repository is, and return its settings."""
        if self._settings is not None and self._is_found:
            return self._settings
        place, config = Git(self._folder, self._environ).together(LOCATION, SETTINGS)
        self._place, commit, tree = parsed_location(self._folder, os.fsdecode(place))
        if tree:
            self._facts[commit, tree_of(commit)] = tree
        self._settings = parsed_settings(config)
        self._is_found = True
        return self._settings

    def _seen(self) -> WorkTree:
        settings = self._find()
        self._is_found = False
        filters = filters_of(settings)
        git = Git(self._place.root, {**self._environ, **switched_off(filters, self._environ)})
        listed, status = git.together(INDEX, STATUS)
        index = parsed_index(listed)
        self._names = None if index.submodules else listed
        if index.assumed or index.skipped:
            with TemporaryDirectory() as scratch:
                if environ := self._seeing_through(git, index, Path(scratch)):
                    status = git(*STATUS, environ=environ)
        headers, entries = parsed_status(status)
        commit = headers["branch.oid"] if COMMIT.fullmatch(headers["branch.oid"]) else ""
        found = list(self._files(git, entries, index, filters))
        found += self._submodule_differences(index, entries)
        self.differences = tuple(sorted(found, key=lambda one: os.fsencode(one.path)))
        return self._described(commit, headers["branch.head"], settings, index)

    def _seeing_through(self, git: Git, index: Index, scratch: Path) -> dict[str, str]:
        """Return environment for git so that it sees through flags which hide changes; `scratch` is an empty folder."""
        root = self._place.root
        skipped = [path for path in index.skipped if os.path.lexists(f"{root}/{path}")]
        if not index.assumed and not skipped:
            return {}
        environ = {"GIT_INDEX_FILE": str(scratch / "index")}
        shutil.copy(self._place.index, scratch / "index")
        for flag, paths in (("--no-assume-unchanged", index.assumed), ("--no-skip-worktree", skipped)):
            names = b"".join(os.fsencode(path) + b"\0" for path in paths)
            git("update-index", "-z", flag, "--stdin", environ=environ, stdin=names)
        return environ

    def _files(self, git: Git, entries: Mapping[str, Entry], index: Index, filters: set[str]) -> Iterator[Difference]:
        left_bytes = HASHED_MAX_BYTES
        chosen = [e for path, e in entries.items() if path not in index.submodules and not is_cache(path)]
        names = filtered(git, [e.path for e in chosen if e.head and e.kind != "deleted"]) if filters else {}
        in_use = {path: name for path, name in names.items() if name in filters}
        pointers = kept_by_lfs(git, (head.id for path in in_use if (head := entries[path].head)))
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
            elif content.item == entry.head or self._is_product(path, content.sha256, entry.head):
                continue
            elif path not in in_use:
                yield Difference(path, kind, content, content.item)
            elif entry.head and pointers.get(entry.head.id) != content.sha256:
                why = f"git's filter `{in_use[path]}` was not run to compare it with the commit"
                yield Difference(path, "filtered", content, content.item, why)

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

    def _described(self, commit: str, branch: str, settings: Mapping[str, list[str]], index: Index) -> WorkTree:
        changes = {one.name: (one.kind, one.digest) for one in self.differences}
        unknown = {one.name: one.unknown for one in self.differences if one.unknown}
        for path in index.submodules:
            if path in self._submodules and (above := printable(os.fsencode(path))) in changes:
                below = self._submodules[path].last
                changes |= {f"{above}/{name}": change for name, change in below.changes.items()}
                unknown |= {f"{above}/{name}": why for name, why in below.unknown.items()}
        tree, missing = self._tree(commit)
        hidden = self._is_hidden()
        remarks = [
            "" if commit else "no commits yet",
            "git ignores this folder: its files are in no commit" if hidden else "",
            f"{len(unknown)} not compared" if unknown else "",
            missing,
            "shallow clone" if Path(self._place.common_folder, "shallow").exists() else "",
        ]
        differing = ((one.name, one.kind) for one in self.differences)
        url = remote_url(settings, branch)
        return WorkTree(
            commit=commit,
            ref=self._tags(commit) if branch == "(detached)" else branch,
            url=url,
            dependable=bool(commit) and not changes and not hidden and not missing,
            message="; ".join(part for part in (*named(differing), *remarks) if part),
            changes=changes,
            tree=tree,
            unknown=unknown,
            # Without a remote there is no branch of one to ask git for.
            unpublished=bool(commit) and not (url and self._is_published(commit)),
        )

    def _tree(self, commit: str) -> tuple[str, str]:
        """Return the id of a tree of all that is here, and why it is not known."""
        changes = {one.path: one.item for one in self.differences if not one.path.endswith("/")}
        try:
            if changes or not commit:
                return self._trees.changed(self.git, commit, Objects(self.form), changes), ""
            return self._fact(commit, "rev-parse", "--verify", tree_of(commit)), ""
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

    def _tags(self, commit: str) -> str:
        asked = ("for-each-ref", f"--points-at={commit}", "--format=%(refname:lstrip=2)", "refs/tags")
        return ", ".join(self._fact(commit, *asked).split()) or "HEAD detached"

    def _is_published(self, commit: str) -> bool:
        """Return whether a branch of a remote has the commit, as far as this clone knows."""
        if self._environ.get("GITHUB_SHA") == commit:  # a job's checkout may have no branch of the remote
            return True
        asked = ("for-each-ref", "--count=1", f"--contains={commit}", "--format=%(refname)", "refs/remotes")
        try:
            return bool(self._fact(commit, *asked))
        except CodeIdentityError:  # commits are missing: that says nothing
            return True

    def _fact(self, commit: str, *asked: str) -> str:
        """Return what git says of a commit, asked once."""
        if (commit, asked[-1]) not in self._facts:
            self._facts[commit, asked[-1]] = printable(self.git(*asked)).strip()
        return self._facts[commit, asked[-1]]


def is_cache(path: str) -> bool:
    """Return whether a path is the program's or the interpreter's: in `.runnable/`, or a bytecode cache."""
    return not CACHE_FOLDERS.isdisjoint(path.split("/")) or path.endswith(".pyc")
