"""Which attempts came to no end: each has a folder of the store as long as what it did could still be undone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from runnable_ci.store.local import Layout
from runnable_ci.store.plain import require_plain

UNFINISHED = "unfinished"
NOTE = "checkpoint.json"
"""In the folder of an attempt: what was there that its step's `checkpoint` matches."""
_SET_ASIDE = ".set-aside"
_TITLE = re.compile(r"(.+)\.([^.]+)\.([0-9]{1,9})")


class Unfinished(NamedTuple):
    """What an invocation left in the workspace that came to no end."""

    folder: Path
    run_id: str
    step: str = ""
    """The step of the attempt; empty where files of earlier attempts were set aside."""
    attempt: int = 0


def title_of(run_id: str, step: str, attempt: int) -> str:
    """Return what the folder of an attempt's baseline is called."""
    return f"{run_id}.{step}.{attempt}"


def set_aside_title(run_id: str) -> str:
    """Return what the folder is called that is there while files are set aside which may be put back."""
    return f"{run_id}{_SET_ASIDE}"


def unfinished(layout: Layout) -> list[Unfinished]:
    """Return what is unfinished in a store, also what running processes still work on."""
    folder = layout.folder / UNFINISHED
    if not folder.exists():
        return []
    require_plain(folder)
    found = []
    for path in sorted(folder.iterdir()):
        require_plain(path)
        if path.name.endswith(_SET_ASIDE):
            found.append(Unfinished(path, path.name.removesuffix(_SET_ASIDE)))
        elif parts := _TITLE.fullmatch(path.name):
            found.append(Unfinished(path, parts[1], parts[2], int(parts[3])))
    return found
