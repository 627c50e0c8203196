"""The certificates that docker and podman keep for one registry: its authorities, and who we are to it.

Source: containers-certs.d(5) and containers/image, docker/certs (which folder counts); docker's documentation, "Verify
repository client with certificates"; Docker Desktop's and rootless docker's own places.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from runnable_ci.store.reference import HOST


def certificate_folder(host: str, environ: Mapping[str, str]) -> Path | None:
    """Return the first folder that is kept for `HOST[:PORT]`, just as references write it; None without any."""
    if not HOST.fullmatch(host):  # a server may lead anywhere
        return None
    folders = [place / "certs.d" / host for place in _places(environ)]
    return next((folder for folder in folders if os.access(folder, os.X_OK) and folder.is_dir()), None)


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    home = [Path(environ["HOME"])] if environ.get("HOME") else []
    for name in ("containers", "docker"):
        yield from (folder / ".config" / name for folder in home)
        yield Path("/etc", name)
    yield from (folder / ".docker" for folder in home)
