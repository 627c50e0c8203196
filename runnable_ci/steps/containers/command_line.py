"""The command that runs a step in a container, for docker and podman. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from runnable_ci.pipeline.container import Container
from runnable_ci.steps.containers.engines import ContainerEngine, option_of

_OF_CLIENTS = ("CONTAINER", "DOCKER_", "BUILDAH_", "STORAGE_", "REGISTRY_", "XDG_", "LD_", "SSL_", "GO", "DBUS_")
_ALSO_OF_CLIENTS = frozenset({"PATH", "HOME", "TMPDIR", "USER", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


class Mount(NamedTuple):
    """A folder or file of the host in a container."""

    source: str
    target: str
    is_read_only: bool = False


class ContainerCall(NamedTuple):
    """What is run in a container, and how."""

    container: Container
    image: str
    name: str
    argv: tuple[str, ...]
    folder: str
    variables: Mapping[str, str]
    mounts: tuple[Mount, ...]
    volumes: tuple[str, ...]
    """Those of the container, with the paths of the host."""
    user: tuple[int, int]
    file: str
    """Where variables are that the engine's own program reads too."""


def is_of_client(name: str) -> bool:
    """Return whether the engine's own program reads a variable: the container's must not be set for it."""
    return name.startswith(_OF_CLIENTS) or name.upper() in _ALSO_OF_CLIENTS


def run_command(engine: ContainerEngine, call: ContainerCall) -> tuple[str, ...]:
    """Return the command; a variable's value is never in it, where every user of the machine could read it."""
    container = call.container
    names = [name for name in call.variables if not is_of_client(name)]
    return (
        *(engine.program, "run", "--rm", "--name", call.name, "--pull", "never", "--log-driver", "none"),
        *_user(engine, call),
        *(("--security-opt", "label=disable") if engine.has_labels else ()),
        *(word for mount in call.mounts for word in _mount(mount)),
        *(word for volume in call.volumes for word in ("--volume", volume)),
        *("--workdir", call.folder),
        *(word for name in names for word in ("--env", name)),
        *(("--env-file", call.file) if len(names) < len(call.variables) else ()),
        *(("--network", container.network) if container.network else ()),
        *_gpus(engine, container.gpus),
        *container.options,
        *("--entrypoint", call.argv[0], call.image),
        *call.argv[1:],
    )


def split_volume(volume: str, workspace: str) -> str:
    """Return a volume with the path that it has on the host: a name without a slash is the engine's."""
    source, _, rest = volume.partition(":")
    if "/" not in source and source not in (".", ".."):
        return volume
    parts = source if source.startswith("/") else f"{workspace}/{source}"
    return f"{_normal(parts)}:{rest}"


def _normal(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept[-1:] = []
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


def _user(engine: ContainerEngine, call: ContainerCall) -> tuple[str, ...]:
    if option_of(call.container.options, "--user", "-u", "--userns"):
        return ()
    if engine.is_rootless:  # root in a container of docker is the user then
        return ("--user", "0:0") if engine.kind == "docker" else ("--userns", "keep-id")
    return ("--user", "{}:{}".format(*call.user))


def _mount(mount: Mount) -> tuple[str, str]:
    if "," in mount.source + mount.target:  # which parts the words of `--mount`
        return "--volume", f"{mount.source}:{mount.target}{':ro' if mount.is_read_only else ''}"
    form = f"type=bind,source={mount.source},target={mount.target}"
    return "--mount", f"{form},readonly" if mount.is_read_only else form


def _gpus(engine: ContainerEngine, wanted: str) -> tuple[str, ...]:
    """Return the options for GPUs; podman knows them by CDI. Source: NVIDIA Container Toolkit, CDI support."""
    if not wanted:
        return ()
    if engine.kind == "docker":
        return ("--gpus", wanted)
    names: Collection[str] = [wanted]
    if wanted.isdigit():
        names = [str(number) for number in range(int(wanted))]
    elif wanted.startswith("device="):
        names = wanted.removeprefix("device=").split(",")
    return tuple(word for name in names for word in ("--device", f"nvidia.com/gpu={name}"))
