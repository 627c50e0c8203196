"""What the name of an image says, and which image it is, as an engine describes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.model import RunLog

DOCKER_HUB = "docker.io"
CONTAINER = "container of the step"
"""How the identity of a step's image begins its message: that of the whole job has another."""


class ImageName(NamedTuple):
    """The parts of an image's name."""

    repository: str
    """With its registry: `docker.io/library/python`."""
    tag: str = ""
    digest: str = ""

    @property
    def reference(self) -> str:
        """The name as an engine pulls it."""
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag or 'latest'}"


class ContainerImage(NamedTuple):
    """An image, exactly."""

    reference: str
    """What the engine runs: the id that it has for it, or a reference with a digest."""
    repository: str
    tag: str
    digest: str
    """That in the repository, else the engine's id for it."""
    is_published: bool
    """Whether a registry has it by that digest."""
    is_from_log: bool = False
    """Whether an earlier attempt of the run decided which it is."""

    def identity(self, whose: str = CONTAINER) -> CodeIdentity:
        """Return the image as an attempt records it."""
        message = whose if self.is_published else f"{whose}: no registry is known to have this image"
        return CodeIdentity(
            code_identifier=self.digest,
            code_identifier_type="docker",
            code_identifier_dependable=self.is_published,
            code_identifier_url=self.repository,
            code_identifier_message=message,
            ref=self.tag,
        )


def parse_image(text: str) -> ImageName:
    """Return the parts of an image's name; one without a registry is of Docker Hub, as docker reads it.

    Source: distribution/reference, normalize.go.
    """
    text = text.partition("://")[2] or text
    rest, _, digest = text.partition("@")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    first, slash, more = path.partition("/")
    if not slash:
        path = f"{DOCKER_HUB}/library/{path}"
    elif "." not in first and ":" not in first and first != "localhost":
        path = f"{DOCKER_HUB}/{path}"
    elif first == "index.docker.io":
        path = f"{DOCKER_HUB}/{more if '/' in more else f'library/{more}'}"
    return ImageName(path, tag, digest)


def image_of(text: str, described: Mapping[str, Any]) -> ContainerImage:
    """Return which image a name is, by what `image inspect` of docker or podman says of it."""
    return images_of(text, described)[0]


def images_of(text: str, described: Mapping[str, Any]) -> list[ContainerImage]:
    """Return all that a name may be: by each digest that an engine has for the image, and by its id, which is the last.

    One that was built here and pulled from where it was pushed has several: its layers are compressed there.
    """
    asked = parse_image(text)
    known = [parse_image(one) for one in described.get("RepoDigests") or () if isinstance(one, str)]
    # podman gives an image that was only built here a digest too, in a registry of that name.
    known = [one for one in known if one.digest and one.repository.partition("/")[0] != "localhost"]
    same = [one for one in known if one.repository == asked.repository]
    image_id = str(described.get("Id") or "")
    image_id = image_id if ":" in image_id or not image_id else f"sha256:{image_id}"
    first = [one for one in same if one.digest == asked.digest]
    found = [
        ContainerImage(image_id or one.reference, one.repository, asked.tag, one.digest, is_published=True)
        for one in dict.fromkeys([*first, *same, *known])
    ]
    tagged = [parse_image(one).repository for one in described.get("RepoTags") or () if isinstance(one, str)]
    # The engine may have found a short name in another place than docker looks for it.
    repository = asked.repository if asked.repository in tagged or not tagged else tagged[0]
    return [*found, ContainerImage(image_id, repository, asked.tag, image_id, is_published=False)]


def resolved_images(log: RunLog) -> dict[str, ContainerImage]:
    """Return the images that attempts of a run were given by a registry's digest, by their text in the pipeline file.

    The newest attempt counts. An image without such a digest is in no other place: its name is looked up again.
    """
    attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
    found: dict[str, ContainerImage] = {}
    for attempt in sorted(attempts, key=lambda one: (one.invocation, one.start_time)):
        container = attempt.definition.get("container")
        text = container.get("image") if isinstance(container, dict) else None
        identity = step_image(attempt.code_identities)
        if isinstance(text, str) and identity is not None:
            found.pop(text, None)
            if identity.code_identifier_dependable:
                name, digest = identity.code_identifier_url, identity.code_identifier
                found[text] = ContainerImage(
                    f"{name}@{digest}", name, identity.ref, digest, is_published=True, is_from_log=True
                )
    return found


def step_image(identities: list[CodeIdentity]) -> CodeIdentity | None:
    """Return which of the identities of an attempt is its container's, not that of the whole job."""
    mine = [it for it in identities if it.code_identifier_type == "docker"]
    return next((it for it in mine if it.code_identifier_message.startswith(CONTAINER)), None)
