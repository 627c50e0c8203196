"""What the registry of an image says of its digest: engines also give one to images that were only built here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.container import Container
from runnable_ci.steps.containers.image_names import DOCKER_HUB, ContainerImage
from runnable_ci.store.reference import Credentials
from runnable_ci.store.registry import Registry

_HUB_HOST: Final = "registry-1.docker.io"
_WAIT_S: Final = 10.0


def digest_in_registry(
    repository: str, reference: str, container: Container, environ: Mapping[str, str], *, is_urgent: bool = False
) -> str:
    """Return the digest of a tag or digest in a registry, as a container says who asks. Raises `RunnableError`."""
    host, _, path = repository.partition("/")
    host = _HUB_HOST if host == DOCKER_HUB else host
    login = Credentials(environ[container.username], environ[container.password]) if container.username else None
    registry = Registry(f"{host}/{path}", environ=environ, credentials=login)
    if not is_urgent:
        return registry.resolve(reference).digest
    registry.give_up_after(_WAIT_S)
    return registry.resolve(reference, tries=1).digest


def is_in_registry(image: ContainerImage, container: Container, environ: Mapping[str, str]) -> bool:
    """Return whether the registry has an image by its digest; that it has is kept, since it stays so."""
    known = _known(image, environ)
    if known is not None and known.exists():
        return True
    try:
        digest_in_registry(image.repository, image.digest, container, environ, is_urgent=True)
    except RunnableError:
        return False
    if known is not None:
        with suppress(OSError):  # it only saves a question
            known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            known.touch()
    return True


def _known(image: ContainerImage, environ: Mapping[str, str]) -> Path | None:
    """Return the file that is there where the registry was seen to have an image."""
    cache = Path(environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # Source: XDG Base Directory Specification 0.8
        cache = Path(environ.get("HOME", ""), ".cache")
    name = hashlib.sha256(f"{image.repository}@{image.digest}".encode()).hexdigest()
    return cache / "runnable-ci" / "images" / name if cache.is_absolute() else None
