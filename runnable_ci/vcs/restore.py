"""A recorded tree made again: the commit from a clone or a remote, and a snapshot's changes on top of it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from runnable_ci.errors import CodeIdentityError, UnsafePathError, UsageError
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.vcs.git import COMMIT, Git, printable
from runnable_ci.vcs.git_files import is_bare
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.snapshot import FORMAT_VERSION, SnapshotState

STATE_MAX_BYTES: Final = 64 * 1024**2
STATE_MAX_ELEMENTS: Final = 4_000_000
REBUILT_MAX_BYTES: Final = 8 * 1024**3
REBUILT_MAX_FILES: Final = 200_000
_URL: Final = re.compile(r"(https|ssh|file)://.+|[A-Za-z0-9._][A-Za-z0-9._-]*@[A-Za-z0-9._-]+:.+")
# Where a system has neither, `rebuild` says no to what needs them.
_O_DIRECTORY: Final[int] = getattr(os, "O_DIRECTORY", 0)
_O_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_FOLDERS: Final = ("untracked", "unmerged", "submodule")
_PROTOCOLS: Final = "https:ssh:file"


def rebuild(
    snapshot: Path | None,
    *,
    commit: str,
    sources: Sequence[Path | str],
    destination: Path,
    environ: Mapping[str, str],
) -> tuple[str, ...]:
    """Return what could not be rebuilt, a line each, after the recorded tree was made in `destination` as a git
    checkout.

    The commit comes from the first of `sources` that has it: a folder in a repository, or a URL (https, ssh, file).
    Submodules come from those folders' own, else from where `.gitmodules` says.
    `snapshot` is a tar of `snapshot()`, already verified, but not trusted: it writes nothing outside of `destination`
    and starts nothing. Raises `UsageError` (`destination` is not empty), `UnsafePathError`, `CodeIdentityError`;
    nothing is left in `destination` then.
    """
    if destination.is_symlink() or (destination.exists() and (not destination.is_dir() or any(destination.iterdir()))):
        raise UsageError(f"{destination} exists and is not empty", hint="name a folder that does not exist yet")
    if snapshot is not None and os.open not in os.supports_dir_fd:
        raise UsageError(
            "saved changes cannot be written safely on this system",
            hint=f"rebuild the run on Linux or macOS; its commit alone: git checkout {commit}",
        )
    created = not destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    try:
        missing = _rebuilt(snapshot, commit, sources, Git(str(destination.resolve()), environ, _PROTOCOLS))
    except BaseException:
        _empty(destination)
        if created:
            destination.rmdir()
        raise
    return tuple(f"{name}: {reason}" for name, reason in missing.items())


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _rebuilt(snapshot: Path | None, commit: str | None, sources: Sequence[Path | str], git: Git) -> dict[str, str]:
    """Return what is missing, each with why. Without a commit it is the snapshot's."""
    if snapshot is None:
        _check_out(git, commit or "", sources, url="")
        return _fill_submodules(git, sources, None)
    try:
        with tarfile.open(snapshot, "r:") as tar:
            recorded = _checked(tar)
            if commit is not None and recorded.commit != commit:
                raise CodeIdentityError(f"the saved changes are of commit {recorded.commit[:100]!r}, not of {commit}")
            if not recorded.digest:
                raise CodeIdentityError(f"the run's code is unknown: {recorded.message[:500]}")
            _check_out(git, recorded.commit, sources, url=recorded.url)
            _apply(git, tar, "staged.diff", "--index")
            missing = _fill_submodules(git, sources, tar)
            _apply(git, tar, "unstaged.diff")
            _mark_added(git)
            _write_files(git.folder, tar, recorded)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise CodeIdentityError(f"the saved changes cannot be read: {error}") from error
    return {**missing, **_missing(git, recorded, missing)}


def _checked(tar: tarfile.TarFile) -> SnapshotState:
    """Return the state of a snapshot in which every member is of a kind and name that `snapshot()` makes."""
    size_bytes = count = 0
    for member in tar:
        size_bytes, count = size_bytes + member.size, count + 1
        if size_bytes > REBUILT_MAX_BYTES or count > REBUILT_MAX_FILES:
            raise UnsafePathError("the saved changes exceed the size limit")
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        if member.name not in ("state.json", "staged.diff", "unstaged.diff"):
            _parts(member.name.partition("/")[2])
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


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.casefold() == ".git" or "\0" in part for part in parts):
        raise UnsafePathError(f"the saved changes name the path {path!r}, which is outside the folder or inside .git")
    return parts


def _check_out(git: Git, commit: str, sources: Sequence[Path | str], *, url: str) -> None:
    if commit and not COMMIT.fullmatch(commit):
        raise CodeIdentityError(f"{commit[:100]!r} is not a commit", hint="a commit has 40 or 64 hex digits")
    git("init", "--quiet", "--template=", f"--object-format={'sha256' if len(commit) == 64 else 'sha1'}")
    git("config", "core.autocrlf", "false")  # bytes are as they were, whatever the user's own settings
    if _URL.fullmatch(url):
        git("remote", "add", "origin", url)
    if not commit:
        return
    refusals = []
    for source in sources:
        try:
            _fetch(git, commit, source)
            break
        except CodeIdentityError as error:
            refusals.append(f"{source}: {error.message}" if isinstance(source, Path) else error.message)
    else:
        raise CodeIdentityError(
            f"commit {commit} not found in any source" + "".join(f"\n  {refusal}" for refusal in refusals),
            hint="run this in a clone that has the commit (`git fetch --unshallow` completes a shallow one)",
        )
    git("checkout", "--quiet", "--detach", commit)


def _fill_submodules(git: Git, sources: Sequence[Path | str], tar: tarfile.TarFile | None) -> dict[str, str]:
    """Return what is missing of the submodules, after each was made in its folder: as stored, else as the index
    has it.
    """
    missing: dict[str, str] = {}
    for item in git("ls-files", "-z", "--stage").split(b"\0")[:-1]:
        about, _, path = item.partition(b"\t")
        mode, commit, stage = about.decode().split(" ")
        if (mode, stage) != ("160000", "0"):
            continue
        folder = Path(git.folder, *_parts(os.fsdecode(path)))
        if folder.resolve() != folder:
            raise UnsafePathError(f"the saved changes have a link in place of the submodule {printable(path)}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            from_folders = list(_submodule_sources(git, sources, os.fsdecode(path)))
            with _member_file(tar, f"submodule/{os.fsdecode(path)}") as own:
                found = _rebuilt(own, None if own else commit, from_folders, replace(git, folder=str(folder)))
            missing.update((f"{printable(path)}/{name}", reason) for name, reason in found.items())
        except CodeIdentityError as error:
            _empty(folder)
            missing[printable(path)] = f"a submodule: {error.message}"
    return missing


@contextmanager
def _member_file(tar: tarfile.TarFile | None, name: str) -> Iterator[Path | None]:
    """Yield a member as a separate file; None where there is none."""
    source = tar.extractfile(name) if tar is not None and name in tar.getnames() else None
    if source is None:
        yield None
        return
    with NamedTemporaryFile() as file:
        shutil.copyfileobj(source, file)
        file.flush()
        yield Path(file.name)


def _submodule_sources(git: Git, sources: Sequence[Path | str], path: str) -> Iterator[Path | str]:
    """Yield the possible sources of a submodule: its work tree, what git keeps of one, its URL."""
    settings = {}
    with suppress(CodeIdentityError):  # there may be no such file
        listed = git("config", "-z", "--blob=:.gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$")
        settings = dict(item.partition("\n")[::2] for item in os.fsdecode(listed).split("\0")[:-1])
    keys = [key.removesuffix(".path") for key, value in settings.items() if key.endswith(".path") and value == path]
    for source in sources:
        if isinstance(source, Path):
            near = Git(str(source.resolve()), git.environ)
            with suppress(CodeIdentityError):
                yield Path(os.fsdecode(near("rev-parse", "--show-toplevel")).removesuffix("\n"), path)
            with suppress(CodeIdentityError):
                inner = Path(near.folder, os.fsdecode(near("rev-parse", "--git-common-dir")).removesuffix("\n"))
                yield from (inner.joinpath("modules", *_parts(key.removeprefix("submodule."))) for key in keys)
    yield from (url for key in keys if _URL.fullmatch(url := settings.get(f"{key}.url", "")))


def _fetch(git: Git, commit: str, source: Path | str) -> None:
    fetch = ("fetch", "--quiet", "--no-tags", "--update-shallow", "--no-write-fetch-head", "--no-recurse-submodules")
    if isinstance(source, Path):
        folder = _git_folder(source, git.environ)
        try:
            Git(folder, git.environ)("cat-file", "-e", f"{commit}^{{commit}}", options=("--git-dir=.",))
        except CodeIdentityError:
            raise CodeIdentityError("does not have the commit") from None
        any_commit = "--upload-pack=git -c uploadpack.allowAnySHA1InWant=true upload-pack"
        git(*fetch, any_commit, folder, commit)
        return
    if not _URL.fullmatch(source):
        raise CodeIdentityError("code is fetched by https, ssh or file URLs only")
    try:
        git(*fetch, source, commit)
    except CodeIdentityError:  # a server may give only what a branch or tag names
        git(*fetch, source, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        if not git.has_commit(commit):
            raise CodeIdentityError("no branch or tag of the remote has the commit") from None


def _git_folder(source: Path, environ: Mapping[str, str]) -> str:
    """Return where git keeps a clone, or the submodule of one."""
    place = source.resolve()
    if is_bare(place, environ):
        return str(place)
    return os.fsdecode(Git(str(place), environ)("rev-parse", "--absolute-git-dir")).removesuffix("\n")


def _apply(git: Git, tar: tarfile.TarFile, name: str, *where: str) -> None:
    with _member_file(tar, name) as diff:
        if diff:
            git("apply", "--whitespace=nowarn", "--binary", *where, str(diff))


def _mark_added(git: Git) -> None:
    """Announce files that only the unstaged diff creates to the index, as `git add --intent-to-add` did."""
    if names := git("ls-files", "-z", "--others"):
        git("add", "--intent-to-add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=names)


def _write_files(root: str, tar: tarfile.TarFile, recorded: SnapshotState) -> None:
    top = os.open(root, os.O_RDONLY | _O_DIRECTORY)
    try:
        for name, (kind, _) in recorded.changes.items():
            if kind == "unmerged":
                with _folder_of(top, parts := _parts(name)) as folder, suppress(FileNotFoundError):
                    os.unlink(parts[-1], dir_fd=folder)
        for member in tar:
            kind, _, path = member.name.partition("/")
            if kind in _FOLDERS[:2]:
                with _folder_of(top, parts := _parts(path)) as folder:
                    _write(folder, parts[-1], member, tar)
    except OSError as error:
        raise UnsafePathError(f"the saved changes do not apply: {error}") from error
    finally:
        os.close(top)


@contextmanager
def _folder_of(top: int, parts: Sequence[str]) -> Iterator[int]:
    """Yield the folder of a path, created if missing, and never reached through a link."""
    folder = os.dup(top)
    try:
        for part in parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            below = os.open(part, os.O_RDONLY | _O_DIRECTORY | _O_NOFOLLOW, dir_fd=folder)
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
    fresh = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_NOFOLLOW
    source = tar.extractfile(member)
    with open(os.open(name, fresh, mode, dir_fd=folder), "wb") as target:
        if source is not None:
            shutil.copyfileobj(source, target)


def _missing(git: Git, recorded: SnapshotState, missing: Mapping[str, str]) -> dict[str, str]:
    """Return how else the restored tree differs from the recorded one; the digests prove that there is nothing else."""
    now = Code(Path(git.folder), products=lambda _: False, environ=git.environ).state()
    if now.digest == recorded.digest:
        return {}
    both = recorded.changes.keys() | now.changes.keys()
    known = {**recorded.omitted, **missing}
    names = {name for name in both if recorded.changes.get(name) != now.changes.get(name)}
    if not names:
        known["the index"] = "not exactly as it was"
    unknown = {name for name in names if not any(why.startswith(f"{name}/") for why in known)}
    why = "not as it was (a merge conflict, a filter or line endings)"
    return {name: known.get(name, why) for name in sorted({*unknown, *known})}
