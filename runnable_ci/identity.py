"""Which code ran: the commit, and all that differs from it. The only importer of git.

GitPython takes tens of milliseconds to import: callers import this module where they need it, not at their top.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO, Final

from runnable_ci.errors import CodeIdentityError

# Importing GitPython fails where git is not installed, unless told not to; the steps' environment must not see that.
_refresh = os.environ.get("GIT_PYTHON_REFRESH")
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
try:
    from git.cmd import Git as _GitPython
    from git.exc import GitCommandNotFound
finally:
    if _refresh is None:
        del os.environ["GIT_PYTHON_REFRESH"]
    else:
        os.environ["GIT_PYTHON_REFRESH"] = _refresh

COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PATHS_PER_CALL: Final = 256
"""How many paths go on one command line: 256 of the longest possible stay below Linux's limit."""
HASHED_MAX_BYTES: Final = 4 * 1024**3
WATCHED_MAX_FILES: Final = 2_000
"""Above this, git's own threaded look at the tree is quicker than ours (both measured)."""
NAMED_MAX_FILES: Final = 20
NO_REPOSITORY: Final = "not a git repository"
CACHE_FOLDERS: Final = frozenset({".runnable", "__pycache__"})

# Where git stamps times coarsely, a change right after our look would not show: younger entries are not relied upon.
_SETTLED_NS: Final = 20_000_000
_SETTLED_WHOLE_SECONDS_NS: Final = 2_000_000_000

# Set by git for its hooks: with them, git would look at (and `rebuild` write to) another repository than ours.
_NOT_INHERITED: Final = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
    *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
)
# No program that a repository's own configuration names is started, and nothing of the user's is written. Filters stay:
# without them every file of git-lfs would count as changed.
_SAFE_OPTIONS: Final = (
    *("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"),
    *("-c", "core.safecrlf=false"),
)
_SAFE_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}


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
class Entry:
    """A path that differs from the commit. Source: git-status(1), porcelain format version 2.

    `index` and `tree` are git's letters (`M`, `A`, `D` …, `.` for the same); `modes` of HEAD, index and file;
    `blobs` of HEAD and index.
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


def printable(text: bytes) -> str:
    """Text that can be written as JSON, whatever bytes it came from: those that are not UTF-8 become `\\xNN`."""
    return text.decode("utf-8", "backslashreplace")


def clean_url(url: str) -> str:
    """A remote's URL without password, token or query; `git@host:path` and local paths stay as they are."""
    if "::" in url.split("/", 1)[0]:  # a remote helper's own syntax (`ext::sh -c …`): anything may be in it
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.sub(r"^[^/:]*:[^/]*@", "", url)
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    if "@" in path and re.fullmatch(r"[^@:[]*:(?!\d*$)[^@]*", host):  # not a port: a password with a bare slash in it
        host, slash, path = path.rpartition("@")[2].partition("/")
    user, at, host = host.rpartition("@")
    login = user.partition(":")[0] if scheme.endswith("ssh") else ""
    return f"{scheme}://{login}{at if login else ''}{host}{slash}{path}"


def redacted(text: str) -> str:
    """A message of git without what URLs in it may carry: credentials and queries."""
    text = re.sub(r"://[^\s'\"]*@", "://", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


def pull_request_head(environ: Mapping[str, str]) -> str:
    """The head commit of the pull request that GitHub runs for, "" where there is none: HEAD is then the merge commit.

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


@dataclass(frozen=True, slots=True)
class Git:
    """git in one folder, with all switched off that a repository could make it run."""

    folder: str
    environ: Mapping[str, str]

    def __call__(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        stdin: BinaryIO | None = None,
    ) -> bytes:
        """Its standard output. `CodeIdentityError` where git fails, says no, or is not installed."""
        inherited = [name for name in _NOT_INHERITED if name in os.environ or name in self.environ]
        command = ["env", *(f"--unset={name}" for name in inherited)] if inherited else []
        command += ["git", "-C", self.folder, *_SAFE_OPTIONS, *options, *arguments]
        try:
            status, output, complaint = _GitPython().execute(
                command,
                stdin,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                env={**self.environ, **_SAFE_ENVIRONMENT, **(environ or {})},
            )
        except GitCommandNotFound as error:
            raise CodeIdentityError("git is not installed", hint="install git, so that runs know their code") from error
        except OSError as error:
            raise CodeIdentityError(f"git cannot be started: {error.strerror}") from error
        if status:
            raise _refusal(complaint, arguments[0])
        return output

    def has_commit(self, commit: str) -> bool:
        """Whether the repository holds that commit; a shallow clone may not."""
        try:
            self("cat-file", "-e", f"{commit}^{{commit}}")
        except CodeIdentityError:
            return False
        return True


def _refusal(complaint: str | bytes, verb: str) -> CodeIdentityError:
    text = complaint if isinstance(complaint, str) else complaint.decode(errors="replace")
    if "dubious ownership" in text:
        found = re.search(r"repository at '(.*)'", text)
        command = f"git config --global --add safe.directory {found[1] if found else '<folder>'}"
        return CodeIdentityError(f"git refuses this folder, another user's (safe.directory): run `{command}`")
    if "not a git repository" in text:
        return CodeIdentityError(NO_REPOSITORY)
    if "must be run in a work tree" in text:
        return CodeIdentityError("a bare repository or a .git folder: no work tree")
    lines = [line for line in text.splitlines() if line.startswith(("fatal:", "error:"))] or text.splitlines()[-1:]
    return CodeIdentityError(f"git {verb} failed: {redacted('; '.join(lines[:3]))}")


_Signature = tuple[int, int, int, int, int]


def _signature(path: str) -> _Signature | None:
    try:
        now = os.lstat(path)
    except OSError:
        return None
    return now.st_ctime_ns, now.st_mtime_ns, now.st_size, now.st_ino, now.st_mode


def _settled(signature: _Signature | None, at_ns: int) -> bool:
    """Whether any later change must show. The time of change counts, as programs set that of modification freely."""
    if signature is None:
        return True
    coarse = signature[0] % 1_000_000_000 == 0
    return signature[0] < at_ns - (_SETTLED_WHOLE_SECONDS_NS if coarse else _SETTLED_NS)


@dataclass(slots=True)
class _Folder:
    """A folder's entries (folders end with a slash) without what the pipeline makes; no signature: list it again."""

    signature: _Signature | None
    names: frozenset[str]


class _Watch:
    """What must stay the same for an earlier look at the tree to hold."""

    def __init__(self, root: str, own: Callable[[str, bool], bool]) -> None:
        self.root = root
        self.own = own
        self.files: dict[str, _Signature | None] = {}
        self.folders: dict[str, _Folder] = {}
        self.holds = False

    def unchanged(self) -> bool:
        return (
            self.holds
            and all(_signature(path) == signature for path, signature in self.files.items())
            and all(self._same_folder(relative, folder) for relative, folder in list(self.folders.items()))
        )

    def listed(self) -> dict[str, frozenset[str]]:
        """What is in the folders now."""
        names = {}
        for relative, folder in self.folders.items():
            known = folder.signature is not None and _signature(self.root + relative) == folder.signature
            try:
                names[relative] = folder.names if known else self._names(relative)
            except OSError:
                continue
        return names

    def see_files(self, paths: Iterable[str]) -> None:
        self.files.update((path, _signature(path)) for path in paths)

    def see_folders(self, ignored: frozenset[str]) -> bool:
        """Take all folders that git looks into; whether that is possible and sensible."""
        waiting = ["/"]
        while waiting:
            relative = waiting.pop()
            try:
                folder = self._listing(relative)
            except OSError:
                return False
            self.folders[relative] = folder
            # Another repository's inside is git's business only: neither its files nor its folders are ours to judge.
            nested = relative != "/" and bool({".git", ".git/"} & folder.names)
            if nested or len(self.folders) > WATCHED_MAX_FILES:
                return False
            self.see_files(f"{self.root}{relative}{name}" for name in folder.names & {".gitignore", ".gitattributes"})
            below = (relative + name for name in folder.names if name.endswith("/") and name != ".git/")
            waiting += [path for path in below if path[1:] not in ignored]
        return True

    def settle(self, started_ns: int, earlier: Mapping[str, frozenset[str]]) -> None:
        """Rely on this from now on, if nothing of it can have changed since the look began at `started_ns`."""
        self.holds = all(_settled(signature, started_ns) for signature in self.files.values()) and all(
            _settled(folder.signature, started_ns) or earlier.get(relative) == folder.names
            for relative, folder in self.folders.items()
        )
        for folder in self.folders.values():
            if not _settled(folder.signature, started_ns):
                folder.signature = None

    def _names(self, relative: str) -> frozenset[str]:
        with os.scandir(self.root + relative) as entries:
            found = ((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            return frozenset(
                f"{name}/" if folder else name for name, folder in found if not self.own(relative[1:] + name, folder)
            )

    def _listing(self, relative: str) -> _Folder:
        signature = _signature(self.root + relative)
        return _Folder(signature, self._names(relative))

    def _same_folder(self, relative: str, folder: _Folder) -> bool:
        signature = _signature(self.root + relative)
        if folder.signature is not None and signature == folder.signature:
            return True
        now_ns = time.time_ns()
        try:
            names = self._names(relative)
        except OSError:
            return False
        new = names - folder.names
        if folder.names - names or not all(self._holds_nothing_of_others(relative + name) for name in new):
            return False
        folder.names = names
        folder.signature = signature if _settled(signature, now_ns) else None
        return True

    def _holds_nothing_of_others(self, relative: str) -> bool:
        """Whether a new path is a folder with the pipeline's own files only; it is watched from now on."""
        if not relative.endswith("/"):
            return False
        try:
            names = self._names(relative)
        except OSError:
            return False
        if not all(self._holds_nothing_of_others(relative + name) for name in names):
            return False
        self.folders[relative] = _Folder(None, names)
        return True


@dataclass(frozen=True, slots=True)
class _Index:
    """The tracked paths, and those whose changes the user told git not to see (assume-unchanged, skip-worktree)."""

    paths: tuple[str, ...]
    assumed: tuple[str, ...]
    skipped: tuple[str, ...]
    submodules: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a folder's repository is; `prefix`, the way from the root to the folder, is "" or ends with a slash."""

    root: str
    prefix: str
    git_folder: str
    common_folder: str
    index: str


class Code:
    """The code that a pipeline in `folder` runs with: all of the repository around it.

    `products(path)`, for a posix path from `folder`, says whether the pipeline itself makes that file, always the same
    for the same path. Such files, `.runnable/` and bytecode caches never count as a change.
    """

    def __init__(self, folder: Path, *, products: Callable[[str], bool], environ: Mapping[str, str]) -> None:
        self.folder = os.path.realpath(folder)
        self.environ = environ
        self._products = products
        self._own = lru_cache(maxsize=65_536)(self._is_own)
        self._place: _Place | None = None
        self._place_key: tuple[object, ...] = ()
        self._index_cache: tuple[_Signature | None, _Index] | None = None
        self._settings_cache: tuple[tuple[_Signature | None, ...], dict[str, list[str]]] | None = None
        self._hashes: dict[str, tuple[_Signature, str]] = {}
        self._submodules: dict[str, Code] = {}
        self._watch = _Watch("", self._own)
        self._state: CodeState | None = None
        self._entries: tuple[Entry, ...] = ()

    def state(self) -> CodeState:
        """The code as it is now. Never raises for what git says: an unknown state has its reason in `message`.

        Costs a look at the times of all watched files where nothing changed since the last call, else one `git status`.
        """
        if self._state is None or not self._watch.unchanged():
            self._state = self._look()
        return self._state

    def entries(self) -> tuple[Entry, ...]:
        """What the last `state()` found different from the commit, sorted by path."""
        return self._entries

    @property
    def git(self) -> Git:
        """git at the repository's root. `CodeIdentityError` where there is no repository."""
        return Git(self._found().root, self.environ)

    @property
    def prefix(self) -> str:
        """The way from the repository's root to the folder: "" or a path that ends with a slash."""
        return self._found().prefix

    def index_environ(self, scratch: Path) -> dict[str, str]:
        """Environment for git so that it sees through flags which hide changes; `scratch` is an empty folder."""
        place = self._found()
        index = self._index(place)
        sparse = self._settings(place).get("core.sparsecheckout", ["false"])[-1] == "true"
        skipped = [] if sparse else [path for path in index.skipped if os.path.lexists(f"{place.root}/{path}")]
        if not index.assumed and not skipped:
            return {}
        copy = scratch / "index"
        shutil.copyfile(place.index, copy)
        environ = {"GIT_INDEX_FILE": str(copy)}
        for flag, paths in (("--no-assume-unchanged", index.assumed), ("--no-skip-worktree", skipped)):
            with TemporaryFile() as names:
                names.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
                names.seek(0)
                # A split index would put its shared part next to the user's own.
                options = ("-c", "core.splitIndex=false")
                self.git("update-index", flag, "-z", "--stdin", options=options, environ=environ, stdin=names)
        return environ

    def makes(self, path: str) -> bool:
        """Whether a path from the root is the pipeline's own: a product, in `.runnable/`, or a bytecode cache."""
        return self._own(path, False)

    def _is_own(self, path: str, folder: bool) -> bool:
        """Whether a path from the root is the pipeline's own; the folders that hold such files are not."""
        parts = path.split("/")
        if not CACHE_FOLDERS.isdisjoint(parts):
            return True
        prefix = self._place.prefix if self._place else ""
        if folder:
            return False
        return path.endswith(".pyc") or (path.startswith(prefix) and self._products(path.removeprefix(prefix)))

    def _found(self) -> _Place:
        """The repository around the folder, looked for again when a `.git` on the way up came, went or was replaced."""
        found = [_signature(path) for path in self._gits()]
        key = tuple(signature and (signature[3], stat.S_IFMT(signature[4])) for signature in found)
        if self._place is None or self._place_key != key:
            asked = ("--show-toplevel", "--show-prefix", "--absolute-git-dir", "--git-common-dir")
            lines = os.fsdecode(Git(self.folder, self.environ)("rev-parse", *asked, "--git-path", "index")).split("\n")
            if len(lines) != 6:
                raise CodeIdentityError("the repository's folder has a line break in its name")
            root, prefix, *inner = lines[:5]
            place = _Place(root.rstrip("/"), prefix, *(str(Path(self.folder, path)) for path in inner))
            self._own.cache_clear()
            self._place, self._place_key = place, key
        return self._place

    def _gits(self) -> list[str]:
        folder = Path(self.folder)
        return [f"{parent}/.git" for parent in (folder, *folder.parents)]

    def _user_settings(self) -> list[str]:
        home = self.environ.get("HOME", "")
        xdg = self.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        named = self.environ.get("GIT_CONFIG_GLOBAL")
        files = [f"{home}/.gitconfig", *(f"{xdg}/git/{name}" for name in ("config", "ignore", "attributes"))]
        return [*files, "/etc/gitconfig", *([named] if named else [])]

    def _settings(self, place: _Place) -> dict[str, list[str]]:
        files = [f"{place.common_folder}/config", f"{place.git_folder}/config.worktree", *self._user_settings()]
        key = tuple(_signature(path) for path in files)
        if self._settings_cache is None or self._settings_cache[0] != key:
            wanted = r"^(remote\..*\.url|branch\..*\.remote|core\.(bare|excludesfile|attributesfile|sparsecheckout))$"
            values: dict[str, list[str]] = {}
            # core.bare is always there: git says no where nothing matches.
            options = ("-c", "core.bare=false")
            for item in printable(self.git("config", "-z", "--get-regexp", wanted, options=options)).split("\0"):
                name, _, value = item.partition("\n")
                values.setdefault(name, []).append(value)
            self._settings_cache = key, values
        return self._settings_cache[1]

    def _index(self, place: _Place) -> _Index:
        signature, now_ns = _signature(place.index), time.time_ns()
        if self._index_cache is None or self._index_cache[0] != signature or signature is None:
            lists: dict[str, dict[str, None]] = {"all": {}, "assumed": {}, "skipped": {}}
            submodules = False
            for item in self.git("ls-files", "-z", "-v", "--stage").split(b"\0")[:-1]:
                about, _, name = item.partition(b"\t")
                path, tag = os.fsdecode(name), about[:1]
                lists["all"][path] = None
                if tag.islower():
                    lists["assumed"][path] = None
                if tag in b"Ss":
                    lists["skipped"][path] = None
                submodules |= about[2:8] == b"160000"
            index = _Index(tuple(lists["all"]), tuple(lists["assumed"]), tuple(lists["skipped"]), submodules)
            self._index_cache = signature if _settled(signature, now_ns) else None, index
        return self._index_cache[1]

    def _look(self) -> CodeState:
        started_ns = time.time_ns()
        earlier = self._watch.listed()
        watch = _Watch("", self._own)
        self._entries = ()
        try:
            state, complete = self._look_by_git(watch)
        except CodeIdentityError as error:
            self._entries = ()
            state = CodeState("", "", "", dependable=False, message=error.message, changes={}, digest="")
            watch = _Watch("", self._own)
            watch.see_files(self._gits())
            complete = error.message == NO_REPOSITORY
        if complete:
            watch.settle(started_ns, earlier)
        self._watch = watch
        return state

    def _look_by_git(self, watch: _Watch) -> tuple[CodeState, bool]:
        """The state, and whether `watch` has all that it depends on."""
        place = self._found()
        watch.root = place.root
        headers, found = self._status()
        ignored = frozenset(entry.path for entry in found if entry.kind == "ignored")
        self._entries = tuple(self._with_content(place.root, [entry for entry in found if entry.kind != "ignored"]))
        state = self._described(place, headers, ignored)
        return state, self._watch_all(watch, place, headers["branch.head"], ignored)

    def _watch_all(self, watch: _Watch, place: _Place, branch: str, ignored: frozenset[str]) -> bool:
        index = self._index(place)
        paths = {path for path in index.paths if not self._own(path, False)} | {entry.path for entry in self._entries}
        if index.submodules or len(paths) > WATCHED_MAX_FILES or not watch.see_folders(ignored):
            return False
        own = ("HEAD", "config.worktree", "info/sparse-checkout")
        refs = ("packed-refs", "reftable/tables.list", "refs/tags", f"refs/heads/{branch}")
        shared = ("config", "info/exclude", "info/attributes", "shallow", *refs)
        settings = self._settings(place)
        named = settings.get("core.excludesfile", []) + settings.get("core.attributesfile", [])
        watch.see_files(f"{place.root}/{path}" for path in paths)
        watch.see_files([place.index, *(f"{place.git_folder}/{name}" for name in own)])
        watch.see_files(f"{place.common_folder}/{name}" for name in shared)
        watch.see_files(self._user_settings())
        watch.see_files(str(Path(place.root, Path(path).expanduser())) for path in named)
        return True

    def _status(self) -> tuple[dict[str, str], list[Entry]]:
        shown = ("--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=matching", "--no-renames")
        with TemporaryDirectory() as scratch:
            environ = self.index_environ(Path(scratch))
            output = self.git("status", *shown, "--ignore-submodules=none", environ=environ)
        headers, entries = _parsed(output)
        return headers, [entry for entry in entries if not self._own(entry.path, entry.path.endswith("/"))]

    def _with_content(self, root: str, entries: Iterable[Entry]) -> Iterator[Entry]:
        left_bytes = HASHED_MAX_BYTES
        for entry in sorted(entries, key=lambda entry: (os.fsencode(entry.path), entry.kind)):
            path = f"{root}/{entry.path}"
            signature = _signature(path)
            if entry.kind == "submodule":
                below = self._submodule(entry.path).state()
                if not below.dependable or below.commit != entry.blobs[1]:
                    yield replace(entry, content=below.digest)
                elif entry.index != ".":  # all that was not staged is the pipeline's own
                    yield replace(entry, kind="staged", tree=".")
            elif entry.kind == "deleted" or signature is None or stat.S_ISDIR(signature[4]):
                yield entry
            else:
                left_bytes -= signature[2]
                content = (
                    self._hashed(path, signature) if left_bytes >= 0 else f"{signature[2]} bytes of {signature[1]}"
                )
                yield replace(entry, content=content, modes=entry.modes or (git_mode(signature[4]),))

    def _hashed(self, path: str, signature: _Signature) -> str:
        known = self._hashes.get(path)
        if known and known[0] == signature:
            return known[1]
        now_ns = time.time_ns()
        content = content_sha256(path)
        if _settled(signature, now_ns):
            self._hashes[path] = signature, content
        return content

    def _submodule(self, path: str) -> Code:
        if path not in self._submodules:
            folder = Path(self._found().root, path)
            self._submodules[path] = Code(
                folder, products=lambda below: self._own(f"{path}/{below}", False), environ=self.environ
            )
        return self._submodules[path]

    def _described(self, place: _Place, headers: Mapping[str, str], ignored: frozenset[str]) -> CodeState:
        commit = headers["branch.oid"] if COMMIT.fullmatch(headers["branch.oid"]) else ""
        branch = headers["branch.head"]
        settings = self._settings(place)
        hidden = any(place.prefix.startswith(path) for path in ignored if path.endswith("/"))
        unhashed = sum(" " in entry.content for entry in self._entries)
        remarks = [
            "" if commit else "no commits yet",
            "git ignores this folder: no commit knows its files" if hidden else "",
            f"{unhashed} too large to hash" if unhashed else "",
            "shallow clone" if Path(place.common_folder, "shallow").exists() else "",
        ]
        return CodeState(
            commit=commit,
            ref=self._tags() if branch == "(detached)" else branch,
            url=_remote_url(settings, branch),
            dependable=bool(commit) and not self._entries and not hidden,
            message="; ".join(part for part in (*_listed(self._entries), *remarks) if part),
            changes={
                entry.name: (entry.kind, "" if " " in entry.content else entry.content) for entry in self._entries
            },
            digest=_digest(commit, self._entries),
        )

    def _tags(self) -> str:
        names = self.git("for-each-ref", "--points-at=HEAD", "--format=%(refname:lstrip=2)", "refs/tags")
        return ", ".join(printable(names).split()) or "HEAD detached"


def content_sha256(path: str) -> str:
    """The digest of a file's bytes or of a link's target; "" for anything else, and for what cannot be read."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return hashlib.sha256(link_target(path)).hexdigest()
        with open(path, "rb", opener=open_plainly) as content:
            regular = stat.S_ISREG(os.fstat(content.fileno()).st_mode)
            return hashlib.file_digest(content, "sha256").hexdigest() if regular else ""
    except OSError:
        return ""


def link_target(path: str) -> bytes:
    """Where a symbolic link points to, byte for byte."""
    return os.fsencode(os.readlink(path))  # noqa: PTH115 - Path.readlink changes `./a` into `a`


def open_plainly(path: str, flags: int) -> int:
    """Opens neither through a link nor waits for a pipe's other end: either may have taken the file's place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def git_mode(mode: int) -> str:
    """A file's mode as git writes it."""
    if stat.S_ISLNK(mode):
        return "120000"
    return "100755" if mode & stat.S_IXUSR else "100644"


def _parsed(output: bytes) -> tuple[dict[str, str], list[Entry]]:
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


def _remote_url(settings: Mapping[str, Sequence[str]], branch: str) -> str:
    names = [name for name in settings if name.startswith("remote.")]
    upstream = settings.get(f"branch.{branch}.remote", [""])[-1]
    chosen = [name for name in ("remote.origin.url", f"remote.{upstream}.url") if name in settings] or names
    return clean_url(settings[chosen[0]][0]) if chosen else ""


def _listed(entries: Iterable[Entry]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(entry.kind, []).append(
            "".join(char if char.isprintable() else repr(char)[1:-1] for char in entry.name)
        )
    for kind in sorted(names, key=lambda kind: (kind == "untracked", kind)):
        more = len(names[kind]) - NAMED_MAX_FILES
        shown = ", ".join(names[kind][:NAMED_MAX_FILES])
        yield f"{kind}: {shown}" + (f" and {more} more" if more > 0 else "")


def _digest(commit: str, entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256(commit.encode() + b"\0")
    for entry in entries:
        parts = (entry.kind, entry.index, entry.tree, *(" ".join(part) for part in (entry.modes, entry.blobs)))
        digest.update(b"\0".join(os.fsencode(part) for part in (*parts, entry.content, entry.path, "")))
    return digest.hexdigest()
