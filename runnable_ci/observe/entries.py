"""What lies in a folder that is to be watched."""

from __future__ import annotations

import os
from typing import NamedTuple

from runnable_ci.observe.reads import GIT
from runnable_ci.observe.unwatchable import UNWATCHED


class Entries(NamedTuple):
    """The names in a folder that count."""

    folders: list[str]
    links: list[str]
    files: list[str]
    has_git: bool
    """Whether a repository's own folder is there."""


def entries_of(folder: str) -> Entries | None:
    """Return what lies in a folder; None where it is gone or is an environment, which is known otherwise."""
    found = Entries([], [], [], has_git=False)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name == GIT:
                        found = found._replace(has_git=True)
                    elif name not in UNWATCHED:
                        found.folders.append(name)
                elif entry.is_symlink():
                    found.links.append(name)
                else:
                    found.files.append(name)
    except OSError:
        return None
    return None if "pyvenv.cfg" in found.files else found
