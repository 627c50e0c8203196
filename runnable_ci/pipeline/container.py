"""The container that a step runs in, as the pipeline file says it. Pure; loaded only where a step has one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
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
OPEN: Final = "${{"
"""Begins an expression."""
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

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield the texts in which expressions have values, each with its key."""
        yield "image", self.image
        yield from (("env", text) for text in self.env.values())
        yield from (("volumes", text) for text in self.volumes)

    def with_values(self, value_in: Callable[[str], str]) -> Container:
        """Return the container with values in place of the expressions in its texts."""
        return self._replace(
            image=value_in(self.image),
            env={name: value_in(text) for name, text in self.env.items()},
            volumes=tuple(value_in(text) for text in self.volumes),
        )

    def problem(self) -> str:
        """Return why the image, or a volume, cannot be what its text is by now; empty where it may be."""
        if OPEN not in self.image and not (IMAGE.fullmatch(self.image) or IMAGE_FILE.fullmatch(self.image)):
            return f"{shown(self.image)} is not the name of an image"
        wrong = [volume for volume in self.volumes if OPEN not in volume and not _is_volume(volume)]
        return f"{shown(wrong[0])} is not a volume" if wrong else ""


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
    if OPEN not in found.image and not (IMAGE.fullmatch(found.image) or IMAGE_FILE.fullmatch(found.image)):
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
        if OPEN not in volume and not _is_volume(volume):
            hint = 'write it as "HOST:/IN/THE/CONTAINER", with `:ro` behind it where it is only read'
            raise place.error(table, f"volumes: {shown(volume)} is not a volume", hint, key="volumes")


def _is_volume(volume: str) -> bool:
    parts = volume.split(":")
    return len(parts) in _PLACES and bool(parts[0]) and parts[1].startswith("/")


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
