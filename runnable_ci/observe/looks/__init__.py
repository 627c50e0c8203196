"""What this program itself opens, in this process and in others: no step has read it thereby."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class GitAnnouncer(Protocol):
    """Says that this process begins, or has ended, to ask git."""

    def ask_git(self, *, begins: bool) -> None:
        """Say it."""

    def close(self) -> None:
        """Say nothing more."""


announcing: list[GitAnnouncer] = []
"""Who does so now: one at most."""


def shared_folder() -> str:
    """Return the folder of this user on this machine with the files in which processes say what they open."""
    return f"/tmp/runnable-ci-{os.geteuid()}"  # noqa: S108 - the same for all sessions; its owner is looked at


def shared_file(root: str) -> str:
    """Return the file for all that happens below a folder, of which `root` is the path without links."""
    from hashlib import blake2b  # mostly nobody watches

    return f"{shared_folder()}/{blake2b(os.fsencode(f'{os.uname().nodename}:{root}'), digest_size=16).hexdigest()}"


def watched_folder(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the folder around the current one that a run may watch, and its `shared_file`; None where there is none.

    A step that calls this program reads what that reads: there nothing is to be announced.
    """
    if "RUNNABLE_STEP" in environ or not os.path.isdir(shared_folder()):
        return None
    try:
        folder = os.getcwd()
    except OSError:  # it is gone
        return None
    while not os.path.exists(file := shared_file(folder)):
        if folder == (folder := os.path.dirname(folder)):
            return None
    return folder, file


@contextmanager
def announced_git() -> Iterator[None]:
    """Within the block this process asks git, which looks into all folders: who watches knows."""
    now = tuple(announcing)
    for one in now:
        one.ask_git(begins=True)
    try:
        yield
    finally:
        for one in now:
            one.ask_git(begins=False)
