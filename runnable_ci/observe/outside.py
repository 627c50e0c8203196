"""Files outside of the repository that a step read, as far as that is known: of python steps, and of shell commands.

Nothing is watched there. What belongs to the system or to installed programs is the environment, not an input.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import Final

HASHED_MAX_BYTES: Final = 64 * 1024 * 1024
"""A larger file is compared by its size and time."""
FILES_MAX: Final = 1000
_SYSTEM: Final = (
    *("/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib32/", "/lib64/"),
    *("/proc/", "/run/", "/sbin/", "/sys/", "/usr/"),
)
_BETWEEN_WORDS: Final = re.compile(r"""[\s'"();|&<>=`$,]+""")


def is_environment(path: str) -> bool:
    """Whether an absolute path belongs to the system, to an installed program, or to a person's settings and caches."""
    return path.startswith(_SYSTEM) or "/." in path or "-packages/" in path or "__pycache__" in path


def outside_digest(path: str) -> str | None:
    """Return what says which content a file has: its sha256, or size and time of a large one; None if it is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_size > HASHED_MAX_BYTES:
                return f"size {found.st_size} time {found.st_mtime_ns}"
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def named_in(command: str, folder: str, around: str) -> list[str]:
    """Return the files outside of a repository that a command names: absolute paths. It runs in `folder`."""
    found: dict[str, None] = {}
    for word in _BETWEEN_WORDS.split(command):
        if not word.startswith("/") and "../" not in word:
            continue
        path = os.path.realpath(os.path.join(folder, word))
        if not f"{path}/".startswith(f"{around}/") and not is_environment(path) and os.path.isfile(path):
            found[path] = None
    return list(found)[:FILES_MAX]
