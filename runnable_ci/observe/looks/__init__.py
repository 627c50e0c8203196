"""What this program itself opens, in this process and in others: no step has read it thereby."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

_STORE = ".runnable"


class GitAnnouncer(Protocol):
    """Says that this process begins, or has ended, to ask git."""

    def ask_git(self, *, begins: bool) -> None:
        """Say it."""

    def close(self) -> None:
        """Say nothing more."""


announcing: list[GitAnnouncer] = []
"""Who does so now: one at most."""


def shared_file(store: str | os.PathLike[str]) -> str:
    """Return the file of a store in which the processes of this program on this machine say what they open."""
    return os.path.join(store, f"openings.{os.uname().nodename}")


def watched_workspace(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the workspace that this process was called in, and its `shared_file`, if a run may watch it.

    A step that calls this program reads what that reads: there nothing is to be announced.
    """
    if "RUNNABLE_STEP" in environ:
        return None
    try:
        folder = os.getcwd()
    except OSError:  # it is gone
        return None
    while not os.path.exists(file := shared_file(f"{folder}/{_STORE}")):
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
