"""Where a repository begins, read from git's own files without starting it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path


def repository_root(folder: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the root of the git repository around a folder; None where there is none."""
    return next((place for place in upwards(folder, environ) if (place / ".git").exists()), None)


def is_bare(folder: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a folder is in what git keeps, a bare repository or `.git` itself, and not in a work tree."""
    for place in upwards(folder, environ):
        if (place / ".git").exists():
            return False
        if (place / "HEAD").is_file() and (place / "objects").is_dir() and (place / "refs").is_dir():
            return True
    return False


def upwards(folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield a folder and those above it, as far as git looks: below those that `GIT_CEILING_DIRECTORIES` lists."""
    ceilings = {os.path.realpath(path) for path in environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep) if path}
    yield folder
    yield from takewhile(lambda above: str(above) not in ceilings, folder.parents)
