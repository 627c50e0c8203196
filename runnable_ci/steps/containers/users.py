"""The caller as a user of the image: programs ask for a name and a home, and docker knows only a number."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from runnable_ci.steps.containers.engines import ContainerEngine

_LEAST: Final = {
    "passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": b"root:x:0:\nnogroup:x:65534:\n",
}
"""For images that have none."""


def passwd_files(
    engine: ContainerEngine, image: str, environ: Mapping[str, str], user: int, group: int
) -> Mapping[str, bytes]:
    """Return `passwd` and `group` of an image with the caller in them; none where the image knows its user.

    podman and apptainer add the caller themselves.
    """
    if engine.kind != "docker" or engine.is_rootless or user == 0:
        return {}
    return _with_caller(engine, image, tuple(environ.items()), user, group)


def entries(content: bytes, name: str, number: int, line: bytes) -> bytes:
    """Return a file of users or groups with one more line, unless its number is in it already."""
    rows = [row.split(b":") for row in content.splitlines()]
    if any(len(row) > 2 and row[2] == str(number).encode() for row in rows):
        return content
    taken = {row[0] for row in rows}
    own = name if name.encode() not in taken else f"{name}-{number}"
    return content + (b"" if content.endswith(b"\n") or not content else b"\n") + own.encode() + line + b"\n"


@lru_cache(maxsize=64)
def _with_caller(
    engine: ContainerEngine, image: str, pairs: tuple[tuple[str, str], ...], user: int, group: int
) -> Mapping[str, bytes]:
    environ, found = dict(pairs), dict(_LEAST)
    made = engine.ask("create", "--entrypoint", "none", image, environ=environ)
    if not made.code:
        container = made.stdout.decode(errors="replace").strip()
        for name in _LEAST:
            if content := _file_in(engine, container, f"/etc/{name}", environ):
                found[name] = content
        engine.ask("rm", "--force", container, environ=environ)
    return {
        "passwd": entries(found["passwd"], "runner", user, f":x:{user}:{group}::/:/bin/sh".encode()),
        "group": entries(found["group"], "runner", group, f":x:{group}:".encode()),
    }


def _file_in(engine: ContainerEngine, container: str, path: str, environ: Mapping[str, str]) -> bytes:
    """Return a file of a container that does not run; empty where it has none."""
    answer = engine.ask("cp", f"{container}:{path}", "-", environ=environ)
    if answer.code:
        return b""
    import tarfile  # takes a while to load, and few need it

    try:
        with tarfile.open(fileobj=io.BytesIO(answer.stdout)) as archive:
            member = next((one for one in archive if one.isfile()), None)
            opened = archive.extractfile(member) if member else None
            return opened.read() if opened else b""
    except tarfile.TarError:
        return b""
