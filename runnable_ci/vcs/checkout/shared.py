"""A commit's files in a folder for a while, without a fetch and without the user's work tree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.errors import CodeIdentityError
from runnable_ci.vcs.checkout.sources import safe_parts
from runnable_ci.vcs.filters import filtered
from runnable_ci.vcs.git import Git, printable
from runnable_ci.vcs.objects import SUBMODULE, format_of


def check_out_shared(commit: str, *, source: Path, destination: Path, environ: Mapping[str, str]) -> None:
    """Make a commit of a clone in an empty folder, as a clone that borrows the other one's objects.

    Raises `CodeIdentityError` where the clone lacks it, or where git alone cannot tell what a checkout would have:
    with submodules, and files that a filter brings (git-lfs).
    """
    near, git = Git(str(source), environ), Git(str(destination), environ)
    if not near.has_commit(commit):
        raise CodeIdentityError("that commit is not in this clone")
    objects = near("rev-parse", "--path-format=absolute", "--git-path", "objects")
    git("init", "--quiet", "--template=", f"--object-format={format_of(commit)}")
    git("config", "core.autocrlf", "false")
    (destination / ".git/objects/info").mkdir(exist_ok=True)
    (destination / ".git/objects/info/alternates").write_bytes(objects)
    git("update-ref", "--no-deref", "HEAD", commit)
    git("read-tree", commit)
    paths = []
    for record in git("ls-files", "-z", "--stage").split(b"\0")[:-1]:
        about, _, name = record.partition(b"\t")
        if about.startswith(SUBMODULE.encode()):
            raise CodeIdentityError(f"{printable(name)} is a submodule")
        paths.append(os.fsdecode(name))
        safe_parts(paths[-1])
    for path, filter_name in filtered(git, paths, "--cached").items():
        raise CodeIdentityError(
            f"{printable(os.fsencode(path))} comes from git's filter `{printable(os.fsencode(filter_name))}`"
        )
    git("checkout-index", "--all", "--index", "--quiet")
    with suppress(CodeIdentityError):  # it says no where files differ
        git("update-index", "-q", "--refresh")
