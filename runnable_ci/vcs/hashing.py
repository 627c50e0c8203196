"""What a path of a tree holds: a file's bytes, or where a link points to."""

from __future__ import annotations

import hashlib
import os
import stat

from runnable_ci.util.files import open_nofollow


def content_sha256(path: str) -> str:
    """Return the digest of a file's bytes or of a link's target; "" for anything else, and for what cannot be read."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return hashlib.sha256(link_target(path)).hexdigest()
        with open(path, "rb", opener=open_nofollow) as content:
            regular = stat.S_ISREG(os.fstat(content.fileno()).st_mode)
            return hashlib.file_digest(content, "sha256").hexdigest() if regular else ""
    except OSError:
        return ""


def link_target(path: str) -> bytes:
    """Return where a symbolic link points to, byte for byte."""
    return os.fsencode(os.readlink(path))  # noqa: PTH115 - Path.readlink changes `./a` into `a`


def git_mode(mode: int) -> str:
    """Return a file's mode as git writes it."""
    if stat.S_ISLNK(mode):
        return "120000"
    return "100755" if mode & stat.S_IXUSR else "100644"
