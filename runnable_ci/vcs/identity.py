"""Which code ran: the commit, and all that differs from it."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from runnable_ci.errors import CodeIdentityError, NotARepositoryError
from runnable_ci.util.console import is_actions
from runnable_ci.vcs.git import COMMIT, Git, clean_url, printable
from runnable_ci.vcs.hashing import content_sha256, git_mode
from runnable_ci.vcs.status import INDEX, STATUS, Entry, Index, digest, named, parsed_index, parsed_status
from runnable_ci.vcs.watch import WATCHED_MAX_FILES, Kept, Watch

HASHED_MAX_BYTES: Final = 4 * 1024**3
CACHE_FOLDERS: Final = frozenset({".runnable", "__pycache__"})
_SETTINGS: Final = r"^(remote\..*\.url|branch\..*\.remote|core\.(bare|excludesfile|attributesfile|sparsecheckout))$"


@dataclass(frozen=True, slots=True)
class CodeState:
    """The code as it was at one moment.

    `commit`: hex digits, "" where there is none. `ref`: the branch, else the tags of the commit, else "HEAD detached".
    `url`: of the remote, without credentials. `dependable`: nothing differs from the commit.
    `message`: what differs, or why that is unknown. `changes`: path from the repository's root → (kind, sha256 of the
    content now, "" where it is gone, a folder or too large; for a submodule its own state's digest); bytes of a name
    that are not UTF-8 are written `\\xNN`. `digest`: equal for equal commit, index and contents; "" where unknown.
    """

    commit: str
    ref: str
    url: str
    dependable: bool
    message: str
    changes: Mapping[str, tuple[str, str]]
    digest: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a folder's repository is; `prefix`, the way from the root to the folder, is "" or ends with a slash."""

    root: str
    prefix: str = ""
    git_folder: str = ""
    common_folder: str = ""
    index: str = ""


class Code:
    """The code that a pipeline in `folder` runs with: all of the repository around it.

    `products(path)`, for a posix path from `folder`, says whether the pipeline itself makes that file, always the same
    for the same path. Such files, `.runnable/` and bytecode caches never count as a change.
    """

    def __init__(self, folder: Path, *, products: Callable[[str], bool], environ: Mapping[str, str]) -> None:
        self._folder = os.path.realpath(folder)
        self._environ = environ
        self._products = lru_cache(maxsize=65_536)(products)
        self._place = _Place(self._folder)
        self._kept_place = Kept[_Place]()
        self._kept_index = Kept[Index]()
        self._kept_settings = Kept[dict[str, list[str]]]()
        self._hashes: defaultdict[str, Kept[str]] = defaultdict(Kept)
        self._submodules: dict[str, Code] = {}
        self._watch = Watch(self.makes)
        self._state: CodeState | None = None
        self._entries: tuple[Entry, ...] = ()

    def state(self) -> CodeState:
        """Return the code as it is now. Never raises for what git says: an unknown state has its reason in `message`.

        Costs a look at the times of all watched files where nothing changed since the last call, else one `git status`.
        """
        if self._state is None or not self._watch.unchanged():
            self._state = self._look()
        return self._state

    def entries(self) -> tuple[Entry, ...]:
        """Return what the last `state()` found different from the commit, sorted by path."""
        return self._entries

    @property
    def git(self) -> Git:
        """git at the root of the repository that the last `state()` found."""
        return Git(self._place.root, self._environ)

    @property
    def prefix(self) -> str:
        """The way from that root to the folder: "" or a path that ends with a slash."""
        return self._place.prefix

    def path_within(self, path: str) -> str:
        """Return a path from that root as one from the folder."""
        return path.removeprefix(self.prefix) if path.startswith(self.prefix) else posixpath.relpath(path, self.prefix)

    def tracks(self, name: str) -> bool | None:
        """Return whether git tracks a file, by its path from the folder; None where git does not say.

        Some file systems do not tell case.
        """
        return None if self._tracked is None else name.casefold() in self._tracked

    @cached_property
    def _tracked(self) -> frozenset[str] | None:
        try:
            output = Git(self._folder, self._environ)("ls-files", "-z", "--recurse-submodules")
        except NotARepositoryError:
            return frozenset()
        except CodeIdentityError:
            return None
        return frozenset(os.fsdecode(output).casefold().split("\0"))

    def submodule(self, path: str) -> Code:
        """Return the code of the submodule at a path from the root."""
        folder = f"{self._place.root}/{path}"
        if folder not in self._submodules:
            self._submodules[folder] = Code(
                Path(folder), products=lambda below: self.makes(f"{path}/{below}"), environ=self._environ
            )
        return self._submodules[folder]

    def makes(self, path: str) -> bool:
        """Return whether a path from the root is the pipeline's own: a product, in `.runnable/`, or a bytecode cache.

        A folder's path ends with a slash; those that products are in are not the pipeline's own.
        """
        if not CACHE_FOLDERS.isdisjoint(path.split("/")):
            return True
        if path.endswith("/"):
            return False
        return path.endswith(".pyc") or (
            path.startswith(self.prefix) and self._products(path.removeprefix(self.prefix))
        )

    def index_environ(self, scratch: Path) -> dict[str, str]:
        """Return environment for git so that it sees through flags which hide changes; `scratch` is an empty folder."""
        index = self._index()
        sparse = self._settings().get("core.sparsecheckout", ["false"])[-1] == "true"
        skipped = [] if sparse else [path for path in index.skipped if os.path.lexists(f"{self._place.root}/{path}")]
        if not index.assumed and not skipped:
            return {}
        copy = scratch / "index"
        shutil.copyfile(self._place.index, copy)
        environ = {"GIT_INDEX_FILE": str(copy)}
        # A split index would put its shared part next to the user's own.
        options = ("-c", "core.splitIndex=false")
        for flag, paths in (("--no-assume-unchanged", index.assumed), ("--no-skip-worktree", skipped)):
            names = b"".join(os.fsencode(path) + b"\0" for path in paths)
            self.git("update-index", flag, "-z", "--stdin", options=options, environ=environ, stdin=names)
        return environ

    def _look(self) -> CodeState:
        self._watch = Watch(self.makes, earlier=self._watch)
        try:
            self._place = self._kept_place.get(self._gits(), self._find)
            headers, found = self._status()
            ignored = frozenset(entry.path for entry in found if entry.kind == "ignored")
            self._entries = tuple(self._with_content(entry for entry in found if entry.kind != "ignored"))
            state = self._described(headers, ignored)
            if self._watch_all(headers["branch.head"], ignored):
                self._watch.settle()
        except CodeIdentityError as error:
            self._entries = ()
            state = CodeState("", "", "", dependable=False, message=error.message, changes={}, digest="")
            if isinstance(error, NotARepositoryError):
                self._watch.add_files(self._gits())
                self._watch.settle()
        return state

    def _gits(self) -> list[str]:
        """Return a repository begins where the first of these is."""
        folder = Path(self._folder)
        return [f"{parent}/.git" for parent in (folder, *folder.parents)]

    def _find(self) -> _Place:
        asked = ("--show-toplevel", "--show-prefix", "--absolute-git-dir", "--git-common-dir", "--git-path", "index")
        lines = os.fsdecode(Git(self._folder, self._environ)("rev-parse", *asked)).split("\n")
        if len(lines) != 6:
            raise CodeIdentityError("the repository's folder has a line break in its name")
        root, prefix, *inner = lines[:5]
        return _Place(root.rstrip("/"), prefix, *(str(Path(self._folder, path)) for path in inner))

    def _index(self) -> Index:
        return self._kept_index.get([self._place.index], lambda: parsed_index(self.git(*INDEX)))

    def _settings(self) -> dict[str, list[str]]:
        place = self._place
        files = [f"{place.common_folder}/config", f"{place.git_folder}/config.worktree", *self._user_settings()]
        return self._kept_settings.get(files, self._read_settings)

    def _read_settings(self) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        # core.bare is always there: git says no where nothing matches.
        options = ("-c", "core.bare=false")
        for item in printable(self.git("config", "-z", "--get-regexp", _SETTINGS, options=options)).split("\0"):
            name, _, value = item.partition("\n")
            values.setdefault(name, []).append(value)
        return values

    def _user_settings(self) -> list[str]:
        home = self._environ.get("HOME", "")
        xdg = self._environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        chosen = self._environ.get("GIT_CONFIG_GLOBAL")
        files = [f"{home}/.gitconfig", *(f"{xdg}/git/{name}" for name in ("config", "ignore", "attributes"))]
        return [*files, "/etc/gitconfig", *([chosen] if chosen else [])]

    def _status(self) -> tuple[dict[str, str], list[Entry]]:
        with TemporaryDirectory() as scratch:
            output = self.git(*STATUS, environ=self.index_environ(Path(scratch)))
        headers, entries = parsed_status(output)
        return headers, [entry for entry in entries if not self.makes(entry.path)]

    def _with_content(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        left_bytes = HASHED_MAX_BYTES
        for entry in sorted(entries, key=lambda entry: (os.fsencode(entry.path), entry.kind)):
            if entry.kind == "submodule":
                yield from self._submodule(entry)
                continue
            path = f"{self._place.root}/{entry.path}"
            try:
                now = os.lstat(path)
            except OSError:
                yield entry
                continue
            if entry.kind == "deleted" or stat.S_ISDIR(now.st_mode):
                yield entry
                continue
            left_bytes -= now.st_size
            content = f"{now.st_size} bytes of {now.st_mtime_ns}"
            if left_bytes >= 0:
                content = self._hashes[path].get([path], partial(content_sha256, path))
            yield replace(entry, content=content, modes=entry.modes or (git_mode(now.st_mode),))

    def _submodule(self, entry: Entry) -> Iterator[Entry]:
        """Yield the entry with the state of the submodule, where that is not all the pipeline's own."""
        below = self.submodule(entry.path).state()
        if not below.dependable or below.commit != entry.blobs[1]:
            yield replace(entry, content=below.digest)
        elif entry.index != ".":
            yield replace(entry, kind="staged", tree=".")

    def _described(self, headers: Mapping[str, str], ignored: frozenset[str]) -> CodeState:
        commit = headers["branch.oid"] if COMMIT.fullmatch(headers["branch.oid"]) else ""
        branch = headers["branch.head"]
        hidden = any(self.prefix.startswith(path) for path in ignored if path.endswith("/"))
        unhashed = sum(entry.unhashed for entry in self._entries)
        remarks = [
            "" if commit else "no commits yet",
            "git ignores this folder: its files are in no commit" if hidden else "",
            f"{unhashed} too large to hash" if unhashed else "",
            "shallow clone" if Path(self._place.common_folder, "shallow").exists() else "",
        ]
        return CodeState(
            commit=commit,
            ref=self._tags() if branch == "(detached)" else branch,
            url=_remote_url(self._settings(), branch),
            dependable=bool(commit) and not self._entries and not hidden,
            message="; ".join(part for part in (*named(self._entries), *remarks) if part),
            changes={entry.name: (entry.kind, "" if entry.unhashed else entry.content) for entry in self._entries},
            digest=digest(commit, self._entries),
        )

    def _tags(self) -> str:
        names = self.git("for-each-ref", "--points-at=HEAD", "--format=%(refname:lstrip=2)", "refs/tags")
        return ", ".join(printable(names).split()) or "HEAD detached"

    def _watch_all(self, branch: str, ignored: frozenset[str]) -> bool:
        """Watch all that a state depends on; whether that is possible and sensible."""
        place, watch, index = self._place, self._watch, self._index()
        paths = {path for path in index.paths if not self.makes(path)} | {entry.path for entry in self._entries}
        if index.submodules or len(paths) > WATCHED_MAX_FILES or not watch.see_folders(place.root, ignored):
            return False
        own = ("HEAD", "config.worktree", "info/sparse-checkout")
        refs = ("packed-refs", "reftable/tables.list", "refs/tags", f"refs/heads/{branch}")
        shared = ("config", "info/exclude", "info/attributes", "shallow", *refs)
        settings = self._settings()
        rules = settings.get("core.excludesfile", []) + settings.get("core.attributesfile", [])
        watch.add_files(f"{place.root}/{path}" for path in paths)
        watch.add_files([place.index, *(f"{place.git_folder}/{name}" for name in own)])
        watch.add_files(f"{place.common_folder}/{name}" for name in shared)
        watch.add_files(self._user_settings())
        watch.add_files(str(Path(place.root, Path(path).expanduser())) for path in rules)
        return True


def _remote_url(settings: Mapping[str, Sequence[str]], branch: str) -> str:
    names = [name for name in settings if name.startswith("remote.")]
    upstream = settings.get(f"branch.{branch}.remote", [""])[-1]
    chosen = [name for name in ("remote.origin.url", f"remote.{upstream}.url") if name in settings] or names
    return clean_url(settings[chosen[0]][0]) if chosen else ""


def find_actor(folder: Path, environ: Mapping[str, str]) -> str:
    """Return who runs something in a folder: GitHub's actor in a job, else git's user, else the system's."""
    if is_actions(environ):
        return environ.get("GITHUB_ACTOR", "")
    try:
        name = printable(Git(str(folder), environ)("config", "--get", "user.name")).strip()
    except CodeIdentityError:
        name = ""
    return " ".join(name.split())[:100] or environ.get("LOGNAME") or environ.get("USER") or ""


def pull_request_head(environ: Mapping[str, str]) -> str:
    """Return the head commit of the pull request that GitHub runs for, "" where there is none: HEAD is then the
    merge commit.

    Source: GitHub docs, "Events that trigger workflows", `pull_request`.
    """
    if environ.get("GITHUB_EVENT_NAME") != "pull_request":
        return ""
    try:
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
        sha = event["pull_request"]["head"]["sha"]
    except (OSError, ValueError, KeyError, TypeError):  # recording a second identity must never stop a run
        return ""
    return sha if isinstance(sha, str) and COMMIT.fullmatch(sha) else ""
