"""Where a commit that a run recorded is taken from: a clone here, or a URL; and those of submodules."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.errors import CodeIdentityError, UnsafePathError
from runnable_ci.vcs.git import COMMIT, NO_PROTOCOL, Git
from runnable_ci.vcs.git_files import is_bare
from runnable_ci.vcs.objects import Format

PROTOCOLS: Final = "https:ssh:file"
# A path of this machine is for a person to name, not for a `.gitmodules` from elsewhere. Source: git-config(1),
# `protocol.allow`.
_SUBMODULE_URL: Final = re.compile(r"(https|ssh)://.+|[A-Za-z0-9._][A-Za-z0-9._-]*@[A-Za-z0-9._-]+:.+")
_URL: Final = re.compile(r"(https|ssh|file)://.+|[A-Za-z0-9._][A-Za-z0-9._-]*@[A-Za-z0-9._-]+:.+")


def is_url(source: str) -> bool:
    """Return whether code is fetched from there, by https, ssh or a file URL."""
    return _URL.fullmatch(source) is not None


def safe_parts(path: str) -> list[str]:
    """Return the parts of a path from elsewhere. Raises `UnsafePathError` outside of the tree, or inside `.git`."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.casefold() == ".git" or "\0" in part for part in parts):
        raise UnsafePathError(f"the saved changes name the path {path!r}, which is outside the folder or inside .git")
    return parts


def begin(git: Git, commit: str, sources: Sequence[Path | str], form: Format) -> None:
    """Make an empty repository that has the commit, of the first source that has it. Nothing is checked out.

    Raises `CodeIdentityError`, which says where it was looked for.
    """
    if commit and not COMMIT.fullmatch(commit):
        raise CodeIdentityError(f"{commit[:100]!r} is not a commit", hint="a commit has 40 or 64 hex digits")
    git("init", "--quiet", "--template=", f"--object-format={form}")
    git("config", "core.autocrlf", "false")  # bytes are as they were, whatever the user's own settings
    if url := next((source for source in sources if isinstance(source, str) and is_url(source)), ""):
        git("remote", "add", "origin", url)
    if not commit:
        return
    refusals = []
    for source in sources:
        try:
            _fetch(git, commit, source)
        except CodeIdentityError as error:
            why = " ".join(error.message.split())
            refusals.append(f"{source}: {why}" if isinstance(source, Path) else why)
        else:
            return
    raise CodeIdentityError(
        f"commit {commit} not found in any source: {'; '.join(refusals)}",
        hint="run this in a clone that has the commit (`git fetch --unshallow` completes a shallow one)",
    )


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def submodule_sources(git: Git, sources: Sequence[Path | str], path: str) -> Iterator[Path | str]:
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
                yield from (inner.joinpath("modules", *safe_parts(key.removeprefix("submodule."))) for key in keys)
    yield from (url for key in keys if _SUBMODULE_URL.fullmatch(url := settings.get(f"{key}.url", "")))


def _fetch(git: Git, commit: str, source: Path | str) -> None:
    fetch = ("fetch", "--quiet", "--no-tags", "--update-shallow", "--no-write-fetch-head", "--no-recurse-submodules")
    if isinstance(source, Path):
        folder = _git_folder(source, git.environ)
        try:
            Git(folder, git.environ)("cat-file", "-e", f"{commit}^{{commit}}", options=("--git-dir=.",))
        except CodeIdentityError:
            raise CodeIdentityError("does not have the commit") from None
        # The clone that sends heeds its own settings: it fetches nothing itself, and so starts no program of a remote.
        sender = f"GIT_ALLOW_PROTOCOL={NO_PROTOCOL} git -c uploadpack.allowAnySHA1InWant=true upload-pack"
        git(*fetch, f"--upload-pack={sender}", folder, commit)
        return
    if not is_url(source):
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
