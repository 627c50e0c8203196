"""What tells a store from all others, its own copies among them."""

from __future__ import annotations

import hashlib
import platform
import secrets

from runnable_ci.files import locked, write_whole
from runnable_ci.store.layout import Layout


def store_identity(layout: Layout) -> str:
    """Return a word that only this store has, wherever its folder is moved: a copy's file has another number."""
    return _digest(*_own(layout))


def writer_name(layout: Layout) -> str:
    """Return the name of this store as a writer: in this place, on this machine."""
    return _digest(*_own(layout), platform.node(), str(layout.folder.resolve()))[:12]


def _own(layout: Layout) -> tuple[str, str]:
    path = layout.folder / "writer"
    with locked(layout.folder / "index.lock"):
        if not path.exists():
            write_whole(path, secrets.token_hex(16).encode(), through=layout.temporaries)
    return path.read_text("utf-8"), str(path.stat().st_ino)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
