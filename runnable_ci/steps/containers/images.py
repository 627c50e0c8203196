"""Which image the name of one is: found or pulled once, before anything runs in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runnable_ci.errors import RunnableError, StepError
from runnable_ci.pipeline.container import IMAGE_FILE, Container
from runnable_ci.steps.containers.engines import ContainerEngine, last_line
from runnable_ci.steps.containers.image_names import DOCKER_HUB, ContainerImage, images_of, parse_image
from runnable_ci.util.files import temporary_folder

_HUB_SERVER = "https://index.docker.io/v1/"
_PULL_S = 6 * 3600.0
"""The longest that GitHub lets a job take."""
_NOWHERE = "localhost"
"""Where podman puts images that it built."""

Say = Callable[[str], None]


def resolve_image(
    engine: ContainerEngine,
    container: Container,
    pinned: ContainerImage | None,
    *,
    workspace: Path,
    environ: Mapping[str, str],
    temporaries: Path,
    say: Say,
    is_looking_again: bool = False,
) -> ContainerImage:
    """Return the image of a container: `pinned` if there is one, else what its name is now; pulled where it is absent.

    Raises `StepError` where it can neither be found nor pulled.
    """
    if IMAGE_FILE.fullmatch(container.image):
        return _image_file(engine, container.image, workspace)
    if engine.kind == "apptainer":
        return _by_reference(container, pinned, environ)
    wanted = pinned.reference if pinned else container.image
    described, name = _inspect(engine, wanted, environ), parse_image(wanted)
    may_be_newer = is_looking_again and not name.digest and name.repository.partition("/")[0] != _NOWHERE
    if described is None and name.repository.partition("/")[0] == _NOWHERE:
        hint = "build it here, or push it to a registry and use its name there"
        raise StepError(f"the image {wanted} is not here, and on no registry", hint=hint)
    was_pulled = False
    if described is None or may_be_newer:
        with _login(engine, container, environ, temporaries) as options:
            say(f"pulling {name.reference}")
            try:
                _pull(engine, name.reference, options, environ)
                was_pulled = True
            except StepError as e:
                if described is None:
                    raise
                say(f"note: {e.message}; the one that is here is used")
        described = _inspect(engine, name.reference, environ)
    if described is None:
        raise StepError(f"{engine.program} does not have the image {wanted} that it pulled")
    found = images_of(wanted, described)
    if pinned is not None:
        return pinned._replace(reference=found[0].reference)
    *published, _local = found
    if not published or (was_pulled and len(published) == 1) or published[0].digest == name.digest:
        return found[0]
    from runnable_ci.steps.containers.registry_digest import is_in_registry  # images are seldom built here

    return next((one for one in published if is_in_registry(one, container, environ)), found[-1])


def require_credentials(container: Container, environ: Mapping[str, str]) -> None:
    """Raise `StepError` for credentials whose variables are not set."""
    for key in ("username", "password"):
        name = getattr(container, key)
        if name and not environ.get(name):
            raise StepError(
                f"container.credentials: the environment variable that `{key}` names is not set",
                hint="set it, or pass it to the job's `env`",
            )


def _inspect(engine: ContainerEngine, reference: str, environ: Mapping[str, str]) -> Mapping[str, Any] | None:
    answer = engine.ask("image", "inspect", reference, environ=environ)
    if answer.code:
        return None
    try:
        described = json.loads(answer.stdout)
    except ValueError:
        return None
    return described[0] if isinstance(described, list) and described and isinstance(described[0], dict) else None


def _pull(engine: ContainerEngine, reference: str, options: tuple[str, ...], environ: Mapping[str, str]) -> None:
    before, after = (options, ()) if engine.kind == "docker" else ((), options)
    answer = engine.ask(*before, "pull", *after, "--quiet", reference, environ=environ, timeout_s=_PULL_S)
    if answer.code:
        hint = "check the name, or give credentials = { username = …, password = … }"
        raise StepError(f"the image {reference} cannot be pulled: {last_line(answer.stderr)}", hint=hint)


@contextmanager
def _login(
    engine: ContainerEngine, container: Container, environ: Mapping[str, str], temporaries: Path
) -> Iterator[tuple[str, ...]]:
    """Yield the options by which the engine pulls as the container says; its secrets are in a file for that time."""
    if not container.username:
        yield ()
        return
    registry = parse_image(container.image).repository.partition("/")[0]
    place = _HUB_SERVER if registry == DOCKER_HUB else registry
    pair = f"{environ[container.username]}:{environ[container.password]}"
    with temporary_folder(temporaries) as folder:
        known = _user_settings(environ, folder) if engine.kind == "docker" else {}
        known.pop("credsStore", None)
        known["auths"] = {**known.get("auths", {}), place: {"auth": base64.b64encode(pair.encode()).decode()}}
        file = folder / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(known), encoding="utf-8")
        yield ("--config", str(folder)) if engine.kind == "docker" else ("--authfile", str(file))


def _user_settings(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Return the settings of docker's client, and link to what else it has: they say where its daemon is."""
    own = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", ""), ".docker"))
    settings: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        for name in ("contexts", "cli-plugins"):
            if (own / name).exists():
                (folder / name).symlink_to(own / name)
        read = json.loads((own / "config.json").read_bytes())
        settings = read if isinstance(read, dict) else {}
    return settings


def _image_file(engine: ContainerEngine, image: str, workspace: Path) -> ContainerImage:
    """Return an image that is a file of apptainer's."""
    file = workspace / image
    if engine.kind != "apptainer":
        raise StepError(
            f"the image {image} is a file for apptainer, and {engine.program} runs the steps",
            hint="install apptainer, and choose it: RUNNABLE_CI_CONTAINER_ENGINE=apptainer",
        )
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as e:
        raise StepError(f"the image {image} cannot be read: {e.strerror}") from e
    return ContainerImage(str(file), image, "", f"sha256:{digest}", is_published=False)


def _by_reference(container: Container, pinned: ContainerImage | None, environ: Mapping[str, str]) -> ContainerImage:
    """Return the image as its registry has it, which apptainer then fetches by its digest."""
    name = parse_image(container.image)
    if pinned is not None:
        return pinned._replace(reference=f"docker://{pinned.repository}@{pinned.digest}")
    digest = name.digest
    if not digest:
        from runnable_ci.steps.containers.registry_digest import digest_in_registry

        try:
            digest = digest_in_registry(name.repository, name.tag or "latest", container, environ)
        except RunnableError as e:
            raise StepError(f"the image {name.reference} cannot be found: {e.message}", hint=e.hint) from e
    return ContainerImage(f"docker://{name.repository}@{digest}", name.repository, name.tag, digest, is_published=True)
