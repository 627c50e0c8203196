"""Sources as texts: of modules, and of scripts that a step read."""

from __future__ import annotations

import os
from typing import Final

SOURCE_MAX_BYTES: Final = 16 * 1024 * 1024


def read_source(path: str) -> bytes:
    """Return what a file holds, empty where it cannot be read or is larger than a program."""
    try:
        if os.path.getsize(path) > SOURCE_MAX_BYTES:
            return b""
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
