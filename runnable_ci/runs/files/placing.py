"""What is put into a folder beside contents: links and empty folders, and the modes and times of files."""

from __future__ import annotations

import os
from pathlib import Path

from runnable_ci.runs.model import LINK


def set_mode_and_time(path: Path, mode: int, mtime_ns: int) -> None:
    """Give a file its permissions, its owner being able to read it, and the time at which it was written."""
    path.chmod(0o400 | (mode & 0o777))
    if mtime_ns:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def place_without_content(path: Path, kind: str, target: str, *, mode: int, mtime_ns: int) -> None:
    """Make a link, in place of a file or another link, or an empty folder. What a link points to is not touched."""
    if kind == LINK:
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        if mtime_ns:
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        return
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.mkdir(exist_ok=True)
    set_mode_and_time(path, 0o700 | mode, mtime_ns)
