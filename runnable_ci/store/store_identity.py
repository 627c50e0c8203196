"""What tells a store from all others, its own copies among them."""

from __future__ import annotations

import hashlib
import platform
import secrets

from runnable_ci.store.local import Layout
from runnable_ci.util.files import locked, write_whole

WRITER_LENGTH = 12
"""Characters in the name of a writer."""
_NAME = "writer"


def make_identity(layout: Layout) -> None:
    """Create the identity of a store, if it has none yet."""
    with locked(layout.folder / "index.lock"):
        if not (path := layout.folder / _NAME).exists():
            write_whole(path, secrets.token_hex(16).encode(), through=layout.temporaries)


def store_identity(layout: Layout) -> str:
    """Return a word that only this store has, wherever its folder is moved: a copy's file has another number.

    Empty where it has none yet: then nothing was recorded in it.
    """
    return _digest(*_own(layout)) if (layout.folder / _NAME).exists() else ""


def writer_name(layout: Layout) -> str:
    """Return the name of this store as a writer: in this place, on this machine."""
    make_identity(layout)
    return _digest(*_own(layout), platform.node(), str(layout.folder.resolve()))[:WRITER_LENGTH]


def _own(layout: Layout) -> tuple[str, str]:
    path = layout.folder / _NAME
    return path.read_text("utf-8", errors="replace"), str(path.stat().st_ino)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
