"""Which folders are not watched, and why others cannot be."""

from __future__ import annotations

import errno
from typing import Final

UNWATCHED: Final = frozenset({".runnable", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox"}) | {
    *(".nox", ".hypothesis", ".ipynb_checkpoints")
}
"""Folders that are known as distributions, or are no input (caches of tools); environments are not watched either."""
# Where others change files without a word to this kernel. Source: statfs(2), /proc/filesystems.
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs"}
) | {*("virtiofs", "glusterfs", "ncpfs", "coda", "v9fs", "prl_fs", "vboxsf", "vmhgfs", "drvfs")}


def reason_of(e: OSError) -> str:
    """Return why watching failed, in words."""
    if e.errno == errno.ENOSPC:
        return "the limit of watches is reached (fs.inotify.max_user_watches)"
    if e.errno == errno.EMFILE:
        return "the limit of watchers is reached (fs.inotify.max_user_instances)"
    return e.strerror or str(e)


def remote_kind(path: str) -> str:
    """Return the kind of the file system that a path is on, if that is a remote one."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _device, place, found, *_ = line.split(" ")
                place = place.encode(errors="surrogateescape").decode("unicode_escape").rstrip("/")
                if (path == place or path.startswith(f"{place}/")) and len(place) >= len(best):
                    best, kind = place, found
    except (OSError, ValueError):
        return ""
    base = kind.removeprefix("fuse.")
    return kind if base in _REMOTE or kind.startswith("fuse.sshfs") else ""
