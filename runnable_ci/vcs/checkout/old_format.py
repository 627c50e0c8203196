"""A work tree made again from the format of earlier versions: a tar of diffs and files.

`state.json`, `staged.diff` (from the commit to the index), `unstaged.diff` (from the index to the files),
`untracked/…`, `unmerged/…` for files in a merge conflict, and `submodule/…`, the same of submodules.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Final

from pydantic import BaseModel

from runnable_ci.errors import CodeIdentityError, UnsafePathError
from runnable_ci.util.bounded_json import LARGE_TABLE, parse_json
from runnable_ci.vcs.checkout.sources import begin, empty, safe_parts, submodule_sources
from runnable_ci.vcs.filters import not_rebuilt
from runnable_ci.vcs.git import Git, printable
from runnable_ci.vcs.hashing import content_sha256
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.objects import format_of

STATE_MAX_BYTES: Final = 64 * 1024**2
STATE_MAX_ELEMENTS: Final = 4_000_000
REBUILT_MAX_BYTES: Final = 8 * 1024**3
REBUILT_MAX_FILES: Final = 200_000
_FOLDERS: Final = ("untracked", "unmerged", "submodule")
FORMAT_VERSION: Final = 1


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


def rebuild_old(snapshot: Path, commit: str | None, sources: Sequence[Path | str], git: Git) -> dict[str, str]:
    """Return what is missing, each with why, after the tree was made in git's folder.

    Without a commit it is the snapshot's. Raises as `rebuild` does.
    """
    return _rebuilt(snapshot, commit, sources, git)


def _rebuilt(snapshot: Path | None, commit: str | None, sources: Sequence[Path | str], git: Git) -> dict[str, str]:
    """Return what is missing, each with why. Without a commit it is the snapshot's."""
    if snapshot is None:
        _check_out(git, commit or "", sources)
        return _fill_submodules(git, sources, None)
    try:
        with tarfile.open(snapshot, "r:") as tar:
            recorded = _checked(tar)
            if commit is not None and recorded.commit != commit:
                raise CodeIdentityError(f"the saved changes are of commit {recorded.commit[:100]!r}, not of {commit}")
            if not recorded.digest:
                raise CodeIdentityError(f"the run's code is unknown: {recorded.message[:500]}")
            _check_out(git, recorded.commit, sources)
            _apply(git, tar, "staged.diff", "--index")
            missing = _fill_submodules(git, sources, tar)
            _apply(git, tar, "unstaged.diff")
            _mark_added(git)
            _write_files(git.folder, tar, recorded)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise CodeIdentityError(f"the saved changes cannot be read: {error}") from error
    return {**missing, **_missing(git, recorded, missing)}


def _check_out(git: Git, commit: str, sources: Sequence[Path | str]) -> None:
    begin(git, commit, sources, format_of(commit))
    if commit:
        git("checkout", "--quiet", "--detach", commit)


def _checked(tar: tarfile.TarFile) -> SnapshotState:
    """Return the state of a snapshot in which every member is of a kind and name that `snapshot()` makes."""
    size_bytes = count = 0
    for member in tar:
        size_bytes, count = size_bytes + member.size, count + 1
        if size_bytes > REBUILT_MAX_BYTES or count > REBUILT_MAX_FILES:
            raise UnsafePathError("the saved changes are larger than any that are stored")
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        if member.name not in ("state.json", "staged.diff", "unstaged.diff"):
            safe_parts(member.name.partition("/")[2])
            kind = member.name.partition("/")[0]
            if not (plain and kind in _FOLDERS) and not (member.issym() and kind in _FOLDERS[:2]):
                raise UnsafePathError(f"the saved changes have an unexpected member {member.name!r}")
        elif not plain:
            raise UnsafePathError(f"{member.name} of the saved changes is not a plain file")
    source = tar.extractfile("state.json") if "state.json" in tar.getnames() else None
    if source is None:
        raise CodeIdentityError("the saved changes have no state.json")
    try:
        found = parse_json(source.read(STATE_MAX_BYTES), elements_max=STATE_MAX_ELEMENTS)
        recorded = SnapshotState.model_validate(found)
    except ValueError as error:
        raise CodeIdentityError("state.json of the saved changes was not written by runnable-ci") from error
    if recorded.format_version != FORMAT_VERSION:
        raise CodeIdentityError(
            f"the saved changes have format {recorded.format_version}", hint="a newer runnable-ci can read them"
        )
    return recorded


def _fill_submodules(git: Git, sources: Sequence[Path | str], tar: tarfile.TarFile | None) -> dict[str, str]:
    """Return what is missing of the submodules, after each was made: as stored, else as the index has it."""
    missing: dict[str, str] = {}
    for item in git("ls-files", "-z", "--stage").split(b"\0")[:-1]:
        about, _, path = item.partition(b"\t")
        mode, commit, stage = about.decode().split(" ")
        if (mode, stage) != ("160000", "0"):
            continue
        folder = Path(git.folder, *safe_parts(os.fsdecode(path)))
        if folder.resolve() != folder:
            raise UnsafePathError(f"the saved changes put a link in the way of the submodule {printable(path)}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            from_folders = list(submodule_sources(git, sources, os.fsdecode(path)))
            with _member_file(tar, f"submodule/{os.fsdecode(path)}") as own:
                found = _rebuilt(own, None if own else commit, from_folders, replace(git, folder=str(folder)))
            missing.update((f"{printable(path)}/{name}", reason) for name, reason in found.items())
        except CodeIdentityError as error:
            empty(folder)
            missing[printable(path)] = f"a submodule: {error.message}"
    return missing


@contextmanager
def _member_file(tar: tarfile.TarFile | None, name: str) -> Iterator[Path | None]:
    """Yield a member as a file of its own; None where there is none."""
    source = tar.extractfile(name) if tar is not None and name in tar.getnames() else None
    if source is None:
        yield None
        return
    with NamedTemporaryFile() as file:
        shutil.copyfileobj(source, file)
        file.flush()
        yield Path(file.name)


def _apply(git: Git, tar: tarfile.TarFile, name: str, *where: str) -> None:
    with _member_file(tar, name) as diff:
        if diff:
            git("apply", "--whitespace=nowarn", "--binary", *where, str(diff))


def _mark_added(git: Git) -> None:
    """Files that only the unstaged diff makes were announced to the index by `git add --intent-to-add`."""
    if names := git("ls-files", "-z", "--others"):
        git("add", "--intent-to-add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=names)


def _write_files(root: str, tar: tarfile.TarFile, recorded: SnapshotState) -> None:
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, (kind, _) in recorded.changes.items():
            if kind == "unmerged":
                with _folder_of(top, parts := safe_parts(name)) as folder, suppress(FileNotFoundError):
                    os.unlink(parts[-1], dir_fd=folder)
        for member in tar:
            kind, _, path = member.name.partition("/")
            if kind in _FOLDERS[:2]:
                with _folder_of(top, parts := safe_parts(path)) as folder:
                    _write(folder, parts[-1], member, tar)
    except OSError as error:
        raise UnsafePathError(f"the saved changes do not fit into the tree: {error}") from error
    finally:
        os.close(top)


@contextmanager
def _folder_of(top: int, parts: Sequence[str]) -> Iterator[int]:
    """Yield the folder that a path is in, made where missing, and never reached through a link."""
    folder = os.dup(top)
    try:
        for part in parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _write(folder: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=folder)
        return
    mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
    fresh = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    source = tar.extractfile(member)
    with open(os.open(name, fresh, mode, dir_fd=folder), "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target)


def _missing(git: Git, recorded: SnapshotState, missing: Mapping[str, str]) -> dict[str, str]:
    """In what else the rebuilt tree differs from the recorded one; the digests prove that there is nothing else."""
    now = Code(Path(git.folder), environ=git.environ).look()
    known = {**_unfiltered(git, recorded), **recorded.omitted, **missing}
    then = {name: digest for name, (_, digest) in recorded.changes.items()}
    here = {name: digest for name, (_, digest) in now.changes.items()}
    names = {name for name in then.keys() | here.keys() if then.get(name) != here.get(name)}
    # Earlier versions named a submodule as a whole, by a digest of their own, and what only the index had.
    names = {name for name in names if not _is_in_submodule(name, then, recorded.changes) and _differs(git, name, then)}
    unknown = {name for name in names if not any(why.startswith(f"{name}/") for why in known)}
    why = "not as it was (a merge conflict, a filter or line endings)"
    return {name: known.get(name, why) for name in sorted({*unknown, *known})}


def _unfiltered(git: Git, recorded: SnapshotState) -> dict[str, str]:
    paths = [os.fsdecode(path) for path in git("ls-files", "-z").split(b"\0")[:-1]]
    found = {printable(os.fsencode(path)): why for path, why in not_rebuilt(git, paths).items()}
    return {name: why for name, why in found.items() if name not in recorded.changes}


def _is_in_submodule(name: str, then: Mapping[str, str], changes: Mapping[str, tuple[str, str]]) -> bool:
    above = {name[:at] for at, char in enumerate(name) if char == "/"} | {name}
    return any(changes[path][0] in ("submodule", "staged") and "/" not in path for path in above & then.keys())


def _differs(git: Git, name: str, then: Mapping[str, str]) -> bool:
    return then.get(name) != content_sha256(f"{git.folder}/{name}")
