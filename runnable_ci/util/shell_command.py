"""Commands and paths as they are typed into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*words: str) -> str:
    """Return a command of this program, quoted for a shell."""
    return shlex.join(["runnable-ci", *words])


def path(file: Path, folder: Path | None = None) -> str:
    """Return a path as it is typed in a folder, by default the current one: the shorter of the relative and the
    absolute.
    """
    relative = os.path.relpath(file, folder)
    shown = min(relative, str(file), key=len)
    return f"./{shown}" if shown.startswith("-") else shown


def in_folder(folder: Path, *words: str) -> str:
    """Return a command on a folder that it is given as its last word, unless that is the current one."""
    return command(*words, *([] if folder.resolve() == Path.cwd() else [path(folder)]))
