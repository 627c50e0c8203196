"""The container that a whole job runs in: asked of the docker that started it, where its socket is in the container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.steps.containers.host_paths import DOCKERENV, MOUNTS, own_names
from runnable_ci.steps.containers.image_names import image_of
from runnable_ci.util.network.local_socket import ask_socket

MARKS: Final = (DOCKERENV, Path("/run/.containerenv"))
"""Files that docker and podman put into containers."""
_SOCKET: Final = "/var/run/docker.sock"


def find_job_container(
    environ: Mapping[str, str],
    *,
    marks: tuple[Path, ...] = MARKS,
    mounts: Path = MOUNTS,
) -> CodeIdentity | None:
    """Return the image of the container that this job runs in; None where it runs in none."""
    if not any(mark.exists() for mark in marks):
        return None
    host = environ.get("DOCKER_HOST", "")
    path = host.removeprefix("unix://") if host.startswith("unix://") else _SOCKET
    for name in own_names(environ, mounts):
        container = _table(ask_socket(path, f"/containers/{name}/json"))
        image = _table(ask_socket(path, f"/images/{container['Image']}/json")) if "Image" in container else {}
        if image:
            found = image_of(str(_table(container.get("Config")).get("Image")), image)
            return found.identity("container of the job")
    message = "the job runs in a container whose image is not known"
    return CodeIdentity(code_identifier_type="docker", code_identifier_message=message)


def _table(answer: Any) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {}
