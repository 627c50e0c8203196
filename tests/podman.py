"""Real podman with a storage of its own, and a small image that was built in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_server import program

IMAGE = "localhost/busybox"
_SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
cgroups = "enabled"
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""
"""What podman needs where it runs in a container itself."""
_BUILD = """
FROM scratch
COPY . /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin FROM_IMAGE=yes
"""
_SHIM = """#!/bin/sh
# docker's command line, answered by podman: what only docker has is left out.
while [ "$1" = --config ]; do export REGISTRY_AUTH_FILE="$2/config.json"; shift 2; done
echo "$@" | tr '\n' ' ' >> "${DOCKER_CALLS:-/dev/null}"
echo >> "${DOCKER_CALLS:-/dev/null}"
case "$1" in
version) echo 28.0.0 ;;
*) exec podman "$@" ;;
esac
"""


@dataclass(frozen=True)
class Podman:
    """A podman that knows nothing of the machine's own."""

    environ: dict[str, str]
    folder: Path

    def __call__(self, *words: str, check: bool = True) -> str:
        """Return what a command of it prints."""
        done = subprocess.run(["podman", *words], env={**os.environ, **self.environ}, capture_output=True, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """Return the names of all containers that there are."""
        return self("ps", "--all", "--format", "{{.Names}}").split()

    def allow(self, host: str) -> None:
        """Let it speak plain HTTP with a registry."""
        text = f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
        Path(self.environ["CONTAINERS_REGISTRIES_CONF"]).write_text(text)

    def another(self) -> Podman:
        """Return one as on another machine: it has no image."""
        return _configured(self.folder.with_name("b"))


def _configured(folder: Path) -> Podman:
    folder.mkdir()
    storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(storage)
    (folder / "containers.conf").write_text(f'{_SETTINGS}tmp_dir = "{folder / "own"}"\n')
    (folder / "registries.conf").write_text("")
    names = {"CONTAINERS_CONF": "containers", "CONTAINERS_STORAGE_CONF": "storage"}
    names["CONTAINERS_REGISTRIES_CONF"] = "registries"
    return Podman({name: str(folder / f"{file}.conf") for name, file in names.items()}, folder)


@contextmanager
def podman_with_image() -> Iterator[Podman]:
    """Yield a podman that has built `IMAGE`: busybox, without Python, which tests mount."""
    program("podman", "podman")
    program("runc", "runc")
    # As short a path as can be: with the sockets of a longer one it waits 20 s for the end of each container.
    with TemporaryDirectory(prefix="p", dir="/tmp") as place:
        podman = _configured(Path(place) / "a")
        _build_image(podman)
        try:
            yield podman
        finally:
            podman("rm", "--all", "--force", check=False)


def _build_image(podman: Podman) -> None:
    folder, context = podman.folder, podman.folder / "context"
    for name in ("bin", "etc", "tmp"):
        (context / name).mkdir(parents=True)
    shutil.copy(program("busybox", "busybox-static"), context / "bin" / "busybox")
    (context / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nservice:x:70:70::/:/bin/sh\n")
    (folder / "Containerfile").write_text(_BUILD)
    podman("build", "--quiet", "--file", str(folder / "Containerfile"), "--tag", IMAGE, str(context))


def docker_shim(folder: Path) -> Path:
    """Make a `docker` in a folder that podman answers; the folder."""
    folder.mkdir()
    shim = folder / "docker"
    shim.write_text(_SHIM)
    shim.chmod(0o755)
    return folder


def python_volumes() -> list[str]:
    """Return the volumes by which an image without Python has the one that runs the tests."""
    folders = dict.fromkeys([sys.base_prefix, "/usr/lib", "/lib", "/lib64", *_links_of("/lib", "/lib64")])
    return [f"{folder}:{folder}:ro" for folder in folders if Path(folder).is_dir()]


def _links_of(*folders: str) -> list[str]:
    return [os.path.realpath(folder) for folder in folders]
