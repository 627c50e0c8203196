"""Where a folder is on the machine whose engine runs the containers, and in which container this program is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from runnable_ci.errors import StepError
from runnable_ci.steps.containers.command_line import Mount
from runnable_ci.steps.containers.engines import ContainerEngine

DOCKERENV: Final = Path("/.dockerenv")
MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = re.compile(r"/containers/(?:[^/ ]*/)?([0-9a-f]{64})/")
"""Where docker keeps the files of a container that it mounts into it, such as its /etc/hostname."""


def own_container(
    engine: ContainerEngine, environ: Mapping[str, str], dockerenv: Path = DOCKERENV
) -> Mapping[str, Any] | None:
    """Return what the engine says of the container that this program is in; None where it knows none.

    That is so where docker's socket is one of the host, as in a job of GitHub with `container`.
    """
    if engine.kind != "docker" or not dockerenv.exists():
        return None
    for name in own_names(environ):
        answer = engine.ask("container", "inspect", name, environ=environ)
        with suppress(ValueError):
            described = json.loads(answer.stdout) if answer.code == 0 else None
            if isinstance(described, list) and described and isinstance(described[0], dict):
                return described[0]
    return None


def own_names(environ: Mapping[str, str], mounts: Path = MOUNTS) -> list[str]:
    """Return what the container that this program is in may be called: the id in its mounts, then its host name."""
    try:
        found = _OWN.findall(mounts.read_text(errors="replace"))
    except OSError:
        found = []
    name = environ.get("HOSTNAME", "")
    return [*dict.fromkeys(found), *([name] if re.fullmatch(r"[\w.-]+", name) else [])]


def mounts_of(described: Mapping[str, Any] | None) -> tuple[Mount, ...]:
    """Return the folders of the host that a container has, with their places in it."""
    found = (described or {}).get("Mounts") or ()
    return tuple(
        Mount(str(mount["Source"]), str(mount["Destination"]))
        for mount in found
        if isinstance(mount, dict) and mount.get("Source") and mount.get("Destination")
    )


def on_host(path: str, mounts: Sequence[Mount] | None) -> str:
    """Return a path as the host knows it; the same where there are no `mounts`, since nothing is between.

    Raises `StepError` for one that the host does not have.
    """
    if mounts is None:
        return path
    around = [mount for mount in mounts if path == mount.target or path.startswith(f"{mount.target.rstrip('/')}/")]
    if not around:
        raise StepError(
            f"{path} is only in this container, and the docker of its host runs the step",
            hint="mount that folder into this container, or run without docker's socket of the host",
        )
    nearest = max(around, key=lambda mount: len(mount.target))
    return nearest.source.rstrip("/") + path[len(nearest.target.rstrip("/")) :]
