"""A recorded work tree made again: the commit from a clone or a remote, and what differed from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from runnable_ci.errors import CodeIdentityError, UnsafePathError, UsageError
from runnable_ci.vcs.bundle import REF, Header, contents, read_header
from runnable_ci.vcs.checkout.old_format import rebuild_old
from runnable_ci.vcs.checkout.sources import PROTOCOLS, begin, empty, safe_parts, submodule_sources
from runnable_ci.vcs.filters import not_rebuilt, switched_off
from runnable_ci.vcs.git import COMMIT, Git, printable
from runnable_ci.vcs.location import SETTINGS, parsed_settings
from runnable_ci.vcs.objects import format_of

_AS_KEPT: Final = "* -text -eol -ident -filter -working-tree-encoding\n"
"""Bytes are written as they are in the objects: no line ends, no keywords, no program of a filter."""
_LITTLE: Final = 1024 * 1024
"""Bytes; where less is free, that is why git cannot write."""


@dataclass(frozen=True, slots=True)
class Bundles:
    """What differed from the commit: a commit on it that has all of the work tree, and the bundles it comes from."""

    kept: str
    files: Mapping[str, Path]
    """Commit → the bundle that brings it; also those that these build on, and those of submodules."""


def rebuild(
    snapshot: Path | Bundles | None,
    *,
    commit: str,
    sources: Sequence[Path | str],
    destination: Path,
    environ: Mapping[str, str],
) -> tuple[str, ...]:
    """Make the recorded tree in `destination`, as a git checkout; a line for each part that could not be rebuilt.

    The commit comes from the first of `sources` that has it: a folder in a repository, or a URL (https, ssh, file).
    Submodules come from those folders' own, else from where `.gitmodules` says. HEAD and the index are the commit's;
    what differed from it is in the work tree alone, and under the ref `refs/runnable/code`.
    `snapshot` is what a run kept (a tar is of an earlier version), already verified, but not trusted: it writes nothing
    outside of `destination` and starts nothing. Raises `UsageError` (`destination` is not empty), `UnsafePathError`,
    `CodeIdentityError`; nothing is left in `destination` then.
    """
    if destination.is_symlink() or (destination.exists() and (not destination.is_dir() or any(destination.iterdir()))):
        raise UsageError(f"{destination} exists and is not empty", hint="name a folder that does not exist yet")
    created = not destination.exists()
    destination.mkdir(parents=True, exist_ok=True)
    git = Git(str(destination.resolve()), environ, PROTOCOLS)
    try:
        # A filter's name comes from the commit, its program from what the user set for all repositories.
        git = replace(git, environ={**environ, **switched_off(parsed_settings(git(*SETTINGS)), environ)})
        if isinstance(snapshot, Path):
            missing = rebuild_old(snapshot, commit, sources, git)
        else:
            missing = _rebuilt(snapshot or Bundles(commit, {}), commit, sources, git)
    except BaseException as error:
        if isinstance(error, CodeIdentityError) and shutil.disk_usage(destination).free < _LITTLE:
            error.hint = f"hardly any space is left on the disk of {destination}: free some"
        empty(destination)
        if created:
            destination.rmdir()
        raise
    return tuple(f"{name}: {reason}" for name, reason in missing.items())


def _rebuilt(bundles: Bundles, commit: str | None, sources: Sequence[Path | str], git: Git) -> dict[str, str]:
    """Return what is missing, each with why. Without a `commit` it is the one that the bundles say."""
    if not COMMIT.fullmatch(bundles.kept):
        raise CodeIdentityError(f"{bundles.kept[:100]!r} is not a commit", hint="a commit has 40 or 64 hex digits")
    chain = _chain(bundles)
    needed = {c for header, _ in chain for c in header.prerequisites} - bundles.files.keys()
    if len(needed) > 1:
        raise CodeIdentityError("the saved changes build on several commits")
    base = next(iter(needed), "") if chain else bundles.kept
    if commit is not None and base != commit:
        raise CodeIdentityError(f"the saved changes are of commit {base[:100]!r}, not of {commit}")
    begin(git, base, sources, format_of(bundles.kept))
    for header, file in reversed(chain):
        _bring(git, header, file)
    if base:
        git("update-ref", "--no-deref", "HEAD", base)
    missing = _write(git, bundles.kept, base)
    missing |= _fill_submodules(git, bundles, sources)
    git("read-tree", *([base] if base else ["--empty"]))
    with suppress(CodeIdentityError):  # it says no where files differ, as they do
        git("update-index", "-q", "--refresh")
    Path(git.folder, ".git", "info", "attributes").unlink()
    return missing


def _chain(bundles: Bundles) -> list[tuple[Header, Path]]:
    """Return the bundles that the kept commit needs, each before those that it builds on."""
    found = list[tuple[Header, Path]]()
    wanted, seen = [bundles.kept], set[str]()
    while wanted:
        commit = wanted.pop()
        file = bundles.files.get(commit)
        if commit in seen or file is None:
            continue
        seen.add(commit)
        with file.open("rb") as source:
            header = read_header(source)
        if header.commit != commit:
            raise CodeIdentityError(f"the saved changes bring commit {header.commit[:100]!r}, not {commit}")
        found.append((header, file))
        wanted += header.prerequisites
    return found


def _bring(git: Git, header: Header, file: Path) -> None:
    """Take a bundle's objects into the repository, each looked at: a fetch would do it less strictly."""
    with file.open("rb") as source:
        for _ in contents(source):
            pass
        source.seek(0)
        read_header(source)
        pack = Path(git.folder, ".git", "objects", "pack", f"pack-{header.commit}.pack")
        with pack.open("wb") as destination:
            shutil.copyfileobj(source, destination)
    git("index-pack", "--strict", str(pack))
    git("update-ref", REF, header.commit)


def _write(git: Git, kept: str, base: str) -> dict[str, str]:
    """Return what is not as it was, after a commit's files were written."""
    git("read-tree", kept)
    paths = [os.fsdecode(path) for path in git("ls-files", "-z").split(b"\0")[:-1]]
    for path in paths:
        safe_parts(path)
    by_filter = not_rebuilt(git, paths)
    info = Path(git.folder, ".git", "info")
    info.mkdir(exist_ok=True)
    info.joinpath("attributes").write_text(_AS_KEPT)
    git("checkout-index", "--all", "--index", "--quiet")
    differ = git("diff-files", "-z", "--name-only", "--ignore-submodules=all").split(b"\0")[:-1]
    missing = {printable(path): "this file system does not hold it as it was" for path in differ}
    if by_filter and base:
        own = git("diff-tree", "-r", "-z", "--name-only", "--no-renames", base, kept).split(b"\0")
        changed = {os.fsdecode(path) for path in own}
        missing |= {printable(os.fsencode(path)): why for path, why in by_filter.items() if path not in changed}
    return missing


def _fill_submodules(git: Git, bundles: Bundles, sources: Sequence[Path | str]) -> dict[str, str]:
    """Return what is missing of the submodules, after each was made in its folder: as kept, else as the tree has it."""
    missing: dict[str, str] = {}
    for record in git("ls-files", "-z", "--stage").split(b"\0")[:-1]:
        about, _, path = record.partition(b"\t")
        mode, commit, _ = about.decode().split(" ")
        if mode != "160000":
            continue
        folder = Path(git.folder, *safe_parts(os.fsdecode(path)))
        if folder.resolve() != folder:
            raise UnsafePathError(f"the saved changes put a link in the way of the submodule {printable(path)}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            from_folders = list(submodule_sources(git, sources, os.fsdecode(path)))
            inner = Bundles(commit, bundles.files)
            found = _rebuilt(inner, None, from_folders, replace(git, folder=str(folder)))
            missing.update((f"{printable(path)}/{name}", reason) for name, reason in found.items())
        except CodeIdentityError as error:
            empty(folder)
            missing[printable(path)] = f"a submodule: {error.message}"
    return missing
