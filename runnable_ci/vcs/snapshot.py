"""The difference between a tree and its commit: stored, and compared with an earlier one.

A snapshot is an uncompressed tar, equal bytes for equal code: `state.json`, `staged.diff` (from the commit to the
index), `unstaged.diff` (from the index to the files), `untracked/…`, `unmerged/…` for files in a merge conflict, and
`submodule/…`, the snapshots of submodules that are not as the index has them.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Annotated, BinaryIO, Final, cast

from pydantic import BaseModel

from runnable_ci.redaction.credential_files import by_content, by_difference, by_name, is_judged_whole
from runnable_ci.redaction.credential_names import is_code
from runnable_ci.util.bounded_json import LARGE_TABLE
from runnable_ci.util.files import open_nofollow
from runnable_ci.vcs.git import COMMIT, PATHS_PER_CALL, Git, printable
from runnable_ci.vcs.hashing import content_sha256, git_mode, link_target
from runnable_ci.vcs.identity import Code, CodeState
from runnable_ci.vcs.status import Entry

FORMAT_VERSION: Final = 1
_NOT_STORED: Final = "holds a secret"
_DIFFED_TOGETHER_BYTES: Final = 16 * 1024**2
_CHUNK_BYTES: Final = 1024 * 1024
# Plumbing: what the user configured for the eye has no say in it. No program that a repository names makes the text.
_DIFF: Final = (
    *("--patch", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--ita-invisible-in-index", "--ignore-submodules=dirty", "--src-prefix=a/", "--dst-prefix=b/"),
)


class SnapshotState(BaseModel):
    """`state.json` of a snapshot: the recorded code state, and what of it is not in the snapshot, with the reason."""

    format_version: int = FORMAT_VERSION
    commit: str
    ref: str
    url: str
    digest: str
    message: str
    changes: Annotated[dict[str, tuple[str, str]], LARGE_TABLE]
    omitted: Annotated[dict[str, str], LARGE_TABLE]


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a difference may be kept, beyond that no file of credentials is."""

    has_secret: Callable[[Iterable[bytes]], bool] = lambda _: False
    """Whether there is a known secret in the chunks."""
    untracked: Callable[[str], str] = lambda _: ""
    """Why an untracked file, by its path from the root, is not kept; empty where it is."""

    def of_entry(self, entry: Entry) -> str:
        """Return why nothing of an entry is kept, whatever its content."""
        if entry.kind == "submodule" or entry.path.endswith("/"):
            return ""
        return by_name(entry.name) or (self.untracked(entry.path) if entry.kind == "untracked" else "")

    def below(self, path: str) -> Rules:
        """Return the rules in a submodule."""
        return Rules(self.has_secret, lambda inner: self.untracked(f"{path}/{inner}"))


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """What a snapshot has, and what it has not."""

    untracked: tuple[str, ...]
    """The untracked files in it, sorted; those of submodules with the way to them."""
    omitted: dict[str, str]
    """Path → why it was left out, as in `state.json`."""


@dataclass(slots=True)
class _Store:
    """Members on their way into the tar; their bytes wait in a temporary file, as a member's size comes before them."""

    content: IO[bytes]
    left_bytes: int
    rules: Rules
    members: list[tuple[tarfile.TarInfo, int]] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)
    omitted: dict[str, str] = field(default_factory=dict)

    def add(self, member: tarfile.TarInfo, source: IO[bytes], *, checked_as: str | None = None) -> str:
        """Return why the source was not kept, empty if it was; it is checked as the content of a file of that path."""
        start = self.content.seek(0, os.SEEK_END)
        problem = ""
        while not problem and (chunk := source.read(_CHUNK_BYTES)):
            self.content.write(chunk)
            if self.content.tell() - start > self.left_bytes:
                problem = "over the limit"
        self.content.seek(start)
        if not problem and checked_as is not None:  # what was kept: the source may have changed since
            problem = self.objection(checked_as, self.content)
        if problem:
            self.content.truncate(start)
            return problem
        self.content.seek(0, os.SEEK_END)
        member.size = self.content.tell() - start
        self.left_bytes -= member.size
        self.members.append((member, start))
        return ""

    def objection(self, path: str, content: IO[bytes]) -> str:
        """Return why the content of a file, from where it stands to its end, is not kept; empty if it may be."""
        start = content.tell()
        if self.rules.has_secret(_chunks(content)):
            return _NOT_STORED
        content.seek(start)
        return by_content(path, _chunks(content))

    def write(self, destination: BinaryIO, state: bytes) -> None:
        with tarfile.open(fileobj=destination, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
            about = tarfile.TarInfo("state.json")
            about.size = len(state)
            tar.addfile(about, io.BytesIO(state))
            for member, start in sorted(self.members, key=lambda pair: os.fsencode(pair[0].name)):
                self.content.seek(start)
                tar.addfile(member, self.content)


def snapshot(
    code: Code, state: CodeState, destination: BinaryIO, *, limit_bytes: int, rules: Rules | None = None
) -> SnapshotContent:
    """Return what is in the snapshot written to `destination`, and what is not, with why.

    `state` is what `code.state()` gave last. At most `limit_bytes` of diffs and files are stored: diffs first, then the
    smaller files first. A path that changed meanwhile counts as left out, though something of it may be there.
    Credentials are left out, and what the `rules` do not let in. Raises `CodeIdentityError` where git fails.
    """
    entries = code.entries()
    with TemporaryDirectory() as scratch, TemporaryFile() as content:
        store = _Store(content, limit_bytes, rules or Rules())
        store.omitted = {entry.name: why for entry in entries if (why := store.rules.of_entry(entry))}
        if entries:
            _store_diffs(code, state.commit, entries, store, Path(scratch))
            _store_files(code, entries, store)
            _store_submodules(code, entries, store)
        now = code.state()
        for name in sorted(state.changes.keys() | now.changes.keys()):
            if state.commit != now.commit or state.changes.get(name) != now.changes.get(name):
                store.omitted.setdefault(name, "changed while it was being recorded")
        omitted = dict(sorted(store.omitted.items()))
        about = SnapshotState(
            commit=state.commit,
            ref=state.ref,
            url=state.url,
            digest=state.digest,
            message=state.message,
            changes=dict(state.changes),
            omitted=omitted,
        )
        store.write(destination, about.model_dump_json(indent=1).encode())
    return SnapshotContent(tuple(sorted(store.untracked)), omitted)


@dataclass(frozen=True, slots=True)
class _Group:
    """Paths that belong in one diff: a file, and all that is below a folder of the same name."""

    entries: tuple[Entry, ...]
    size_bytes: int


def _store_diffs(code: Code, commit: str, entries: Sequence[Entry], store: _Store, scratch: Path) -> None:
    environ = code.index_environ(scratch)
    git, part = code.git, scratch / "part.diff"
    sizes = _blob_sizes(git, entries)
    base = commit or git("hash-object", "-t", "tree", "/dev/null").decode().strip()
    for name, side, command in (
        ("staged.diff", "index", ("diff-index", "--cached", base)),
        ("unstaged.diff", "tree", ("diff-files",)),
    ):
        waiting = _batches(_groups(git.folder, entries, side, sizes, store))
        with TemporaryFile() as diff:
            while waiting:
                batch = waiting.pop()
                verb, *rest = command
                paths = [entry.path for group in batch for entry in group.entries]
                git(verb, *_DIFF, f"--output={part}", *rest, "--", *paths, environ=environ)
                problem = _objection(git, part, batch, diff.tell(), store)
                if not problem:
                    with part.open("rb") as text:
                        shutil.copyfileobj(text, diff, _CHUNK_BYTES)
                elif len(batch) > 1:
                    waiting += [[group] for group in reversed(batch)]
                else:
                    store.omitted.update((entry.name, problem) for entry in batch[0].entries)
            diff.seek(0)
            if part.exists() and os.fstat(diff.fileno()).st_size:
                store.add(tarfile.TarInfo(name), diff)


def _objection(git: Git, part: Path, batch: Sequence[_Group], written_bytes: int, store: _Store) -> str:
    """Return why a diff cannot be stored, empty if it can."""
    if written_bytes + part.stat().st_size > store.left_bytes:
        return "its diff is over the limit"
    entries = [entry for group in batch for entry in group.entries]
    with part.open("rb") as text:
        if store.rules.has_secret(_chunks(text)):
            return _NOT_STORED
        text.seek(0)
        # Where some of the files are no code, all are looked at as such: what is found then is looked at alone.
        least = next((entry.name for entry in entries if not is_code(entry.name)), entries[0].name)
        if problem := by_difference(least, _chunks(text)):
            return problem
        text.seek(0)
        binary = any(line.startswith(b"GIT binary patch") for line in text)
    # In a binary patch nothing can be seen.
    whole = (entry for entry in entries if binary or is_judged_whole(entry.name))
    found = (store.objection(entry.name, content) for entry in whole for content in _contents(git, entry))
    return next(filter(None, found), "")


def _contents(git: Git, entry: Entry) -> Iterator[IO[bytes]]:
    """Yield what a diff of an entry may tell of, whole: the file, and what the commit and the index have of it."""
    with suppress(OSError), open(f"{git.folder}/{entry.path}", "rb", opener=open_nofollow) as file:
        yield file
    for blob in entry.blobs if "160000" not in entry.modes else ():
        if blob.strip("0"):
            yield io.BytesIO(git("cat-file", "blob", blob))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(_CHUNK_BYTES), b"")


def _groups(root: str, entries: Iterable[Entry], side: str, sizes: Mapping[str, int], store: _Store) -> list[_Group]:
    """Return what goes into the staged (`side` is index) or unstaged (tree) diff.

    The rest of that side is put as omitted.

    What is omitted from the first is from the second too, which builds on it.
    """
    groups: list[list[Entry]] = []
    for entry in sorted(entries, key=lambda entry: entry.path.split("/")):
        if entry.kind in ("untracked", "unmerged") or entry.name in store.omitted:
            continue
        if side == "tree" and entry.kind == "submodule":
            continue  # it has a snapshot of its own
        if side == "tree" and "160000" in entry.modes[:2] and entry.tree != ".":
            store.omitted[entry.name] = "a former submodule"
        elif (entry.index if side == "index" else entry.tree) != ".":
            if groups and entry.path.startswith(f"{groups[-1][0].path}/"):
                groups[-1].append(entry)
            else:
                groups.append([entry])
    found = [_Group(tuple(group), sum(_size(root, entry, sizes) for entry in group)) for group in groups]
    for group in found:
        if group.size_bytes > store.left_bytes:  # git would take as much memory
            store.omitted.update((entry.name, "larger than the limit") for entry in group.entries)
    return [group for group in found if group.size_bytes <= store.left_bytes]


def _batches(groups: Iterable[_Group]) -> list[list[_Group]]:
    """Return groups for one command each, the last first."""
    batches: list[list[_Group]] = []
    paths = size_bytes = 0
    for group in groups:
        paths, size_bytes = paths + len(group.entries), size_bytes + group.size_bytes
        if not batches or paths > PATHS_PER_CALL or size_bytes > _DIFFED_TOGETHER_BYTES:
            batches.append([])
            paths, size_bytes = len(group.entries), group.size_bytes
        batches[-1].append(group)
    return batches[::-1]


def _blob_sizes(git: Git, entries: Iterable[Entry]) -> dict[str, int]:
    asked = "".join(f"{blob}\n" for entry in entries for blob in entry.blobs)
    answers = git("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=asked.encode()).decode()
    sizes = (answer.split(" ") for answer in answers.splitlines())
    return {blob: int(size) for blob, size in sizes if size.isdigit()}


def _size(root: str, entry: Entry, sizes: Mapping[str, int]) -> int:
    """Return the maximum size of the diff of an entry, in bytes."""
    size_bytes = sum(sizes.get(blob, 0) for blob in entry.blobs)
    with suppress(OSError):
        size_bytes = max(size_bytes, os.lstat(f"{root}/{entry.path}").st_size)
    return size_bytes


def _store_files(code: Code, entries: Iterable[Entry], store: _Store) -> None:
    root = code.git.folder
    found: list[tuple[int, Entry, os.stat_result]] = []
    for entry in entries:
        if entry.name in store.omitted:
            continue
        if entry.path.endswith("/"):
            store.omitted[entry.name] = "a nested git repository"
        elif entry.kind in ("untracked", "unmerged"):
            with suppress(FileNotFoundError, NotADirectoryError):
                now = os.lstat(f"{root}/{entry.path}")
                found.append((now.st_size, entry, now))
    for size_bytes, entry, now in sorted(found, key=lambda file: (file[0], os.fsencode(file[1].path))):
        member = tarfile.TarInfo(f"{entry.kind}/{entry.path}")
        member.mode = 0o755 if git_mode(now.st_mode) == "100755" else 0o644
        path = f"{root}/{entry.path}"
        try:
            if stat.S_ISLNK(now.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(link_target(path))
                if problem := store.objection(entry.name, io.BytesIO(link_target(path))):
                    store.omitted[entry.name] = problem
                else:
                    store.add(member, io.BytesIO())
            elif not stat.S_ISREG(now.st_mode):
                store.omitted[entry.name] = "not a file"
            elif size_bytes > store.left_bytes:
                store.omitted[entry.name] = "over the limit"
            else:
                with open(path, "rb", opener=open_nofollow) as content:
                    if problem := store.add(member, content, checked_as=entry.name):
                        store.omitted[entry.name] = problem
            if entry.kind == "untracked" and entry.name not in store.omitted:
                store.untracked.append(entry.name)
        except OSError as error:
            store.omitted[entry.name] = f"cannot be read: {error.strerror}"


def _store_submodules(code: Code, entries: Iterable[Entry], store: _Store) -> None:
    for entry in entries:
        if entry.kind != "submodule" or entry.name in store.omitted:
            continue
        below = code.submodule(entry.path)
        with TemporaryFile() as file:
            tar = cast("BinaryIO", file)
            rules = store.rules.below(entry.path)
            inner = snapshot(below, below.state(), tar, limit_bytes=store.left_bytes, rules=rules)
            tar.seek(0)
            if problem := store.add(tarfile.TarInfo(f"submodule/{entry.path}"), tar):
                store.omitted[entry.name] = problem
            else:
                store.omitted.update((f"{entry.name}/{name}", reason) for name, reason in inner.omitted.items())
                store.untracked += [f"{entry.name}/{name}" for name in inner.untracked]


def changed_between(
    code: Code, commit: str, changes: Mapping[str, tuple[str, str]], now: CodeState
) -> list[str] | None:
    """Return paths from the repository's root whose content differs between an earlier code state and `now`, sorted.

    `commit` and `changes` are the earlier state's, `now` is what `code.state()` gave last. None where that cannot be
    said: one of the commits is unknown, or not in this clone. What the pipeline itself makes is left out.
    """
    if not now.commit or not COMMIT.fullmatch(commit) or not code.git.has_commit(commit):
        return None
    output = code.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, now.commit)
    differ = {printable(path) for path in output.split(b"\0") if path} - changes.keys() - now.changes.keys()
    for name in changes.keys() & now.changes.keys():
        if changes[name][1] != now.changes[name][1] or (not changes[name][1] and changes[name][0] != "deleted"):
            differ.add(name)
    root = code.git.folder
    differ |= {
        name for name in changes.keys() - now.changes.keys() if changes[name][1] != content_sha256(f"{root}/{name}")
    }
    differ |= set(_differing(code.git, commit, sorted(now.changes.keys() - changes.keys())))
    return sorted(name for name in differ if not code.makes(name))


def _differing(git: Git, commit: str, names: Sequence[str]) -> Iterator[str]:
    """Yield which files differ from what they are in the commit; what is no regular file counts as different."""
    for start in range(0, len(names), PATHS_PER_CALL):
        some = names[start : start + PATHS_PER_CALL]
        committed = {}
        for item in git("ls-tree", "-z", commit, "--", *some).split(b"\0")[:-1]:
            about, _, path = item.partition(b"\t")
            committed[printable(path)] = about.split(b" ")[2]
        files = [name for name in some if Path(git.folder, name).is_file() and not Path(git.folder, name).is_symlink()]
        present = dict(zip(files, git("hash-object", "--", *files).split(), strict=True)) if files else {}
        for name in some:
            gone = name not in committed and not os.path.lexists(f"{git.folder}/{name}")
            if not gone and (name not in committed or committed[name] != present.get(name)):
                yield name
