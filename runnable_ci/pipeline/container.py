"""The container that a step runs in, as the pipeline file says it. Pure; loaded only where a step has one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runnable_ci.pipeline.validation import shown

if TYPE_CHECKING:
    from runnable_ci.pipeline.schema import Place, StepConfig

IMAGE: Final = re.compile(
    r"((docker|oras|library)://)?[A-Za-z0-9][A-Za-z0-9._:-]*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
"""Source: distribution's reference grammar; a host may have capitals and a port."""
IMAGE_FILE: Final = re.compile(r"\S(.*\S)?\.sif")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS: Final = {
    **dict.fromkeys(("--name", "--entrypoint", "--rm", "--cidfile", "--pull"), "runnable-ci sets it itself"),
    **dict.fromkeys(("-d", "--detach", "-i", "--interactive", "-t", "--tty", "-it", "-ti"), "a step runs to its end"),
    **dict.fromkeys(("-e", "--env"), "write it in `env`; `--env NAME` alone passes a variable of yours"),
    "--network": "write network = …",
    "--gpus": "write gpus = …",
}
_PLACES: Final = (2, 3)


class Container(NamedTuple):
    """The container of a step."""

    image: str
    env: Mapping[str, str] = MappingProxyType({})
    volumes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    username: str = ""
    """The environment variable with the registry's user, empty for what the engine knows itself."""
    password: str = ""
    gpus: str = ""
    network: str = ""

    def definition(self) -> dict[str, Any]:
        """Return what makes a step's result, in the words of the file: how an image is fetched does not."""
        optional = {
            "env": dict(sorted(self.env.items())),
            "volumes": list(self.volumes),
            "options": list(self.options),
            "gpus": self.gpus,
            "network": self.network,
        }
        return {"image": self.image} | {key: value for key, value in optional.items() if value}


def resolve_container(
    place: Place, table: str, step: StepConfig, check_env: Callable[[Mapping[str, str]], None]
) -> Container | None:
    """Return the container that a step's table names, None for none. Raises `PipelineError`."""
    container = step.container
    if not container:
        return None
    if step.background:
        hint = "what a step leaves running ends with its container: remove one of the two"
        raise place.error(table, "`background` cannot be with `container`", hint, key="background")
    if isinstance(container, str):
        found = Container(container)
    else:
        table = f"{table}.container"
        found = Container(
            image=container.image,
            env=container.env,
            volumes=tuple(container.volumes),
            options=_options(place, table, container.options),
            username=container.credentials.username if container.credentials else "",
            password=container.credentials.password if container.credentials else "",
            gpus=container.gpus,
            network=container.network,
        )
        check_env(container.env)
        _check_volumes(place, table, found.volumes)
        _check_words(place, table, found)
    key = "container" if isinstance(container, str) else "image"
    if not (IMAGE.fullmatch(found.image) or IMAGE_FILE.fullmatch(found.image)):
        hint = 'such as container = "python:3.12-slim" or "ghcr.io/owner/image:tag": a name in small letters'
        raise place.error(table, f"{key}: {shown(found.image)} is not the name of an image", hint, key=key)
    return found


def _options(place: Place, table: str, text: str) -> tuple[str, ...]:
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise place.error(table, f"options: {e}", "close the quotation mark", key="options") from e
    for at, word in enumerate(words):
        name, has_value, _ = word.partition("=")
        value = word if has_value else next(iter(words[at + 1 : at + 2]), "")
        is_passed = name in ("-e", "--env") and "=" not in value.removeprefix(f"{name}=")
        if name in _OURS and not is_passed:
            raise place.error(table, f"options: `{name}` cannot be given", _OURS[name], key="options")
    return tuple(words)


def _check_volumes(place: Place, table: str, volumes: tuple[str, ...]) -> None:
    for volume in volumes:
        parts = volume.split(":")
        if len(parts) not in _PLACES or not parts[0] or not parts[1].startswith("/"):
            hint = 'write it as "HOST:/IN/THE/CONTAINER", with `:ro` behind it where it is only read'
            raise place.error(table, f"volumes: {shown(volume)} is not a volume", hint, key="volumes")


def _check_words(place: Place, table: str, container: Container) -> None:
    for key in ("gpus", "network"):
        value = getattr(container, key)
        if value.startswith("-") or any(letter.isspace() for letter in value):
            raise place.error(table, f"{key}: {shown(value)} is not a value for it", 'such as "all" or "none"', key=key)
    for key in ("username", "password"):  # it may be the secret itself: not shown
        name = getattr(container, key)
        if name and not _VARIABLE.fullmatch(name):
            raise place.error(
                f"{table}.credentials",
                f"{key}: it is not the name of an environment variable",
                'the values come from the environment: credentials = { username = "USER", password = "TOKEN" }',
                key=key,
            )
