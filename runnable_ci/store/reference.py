"""What a reference points to, and which credentials it gets: the only importer of `oras`.

The `oras` package splits references, so that what its clients take is taken here. Why no more of it is used stands in
docs/architecture.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from oras.container import Container

from runnable_ci.errors import UsageError
from runnable_ci.store.docker_config import find_login
from runnable_ci.store.target import DIGEST, TAG
from runnable_ci.util.github_host import GITHUB, github_host

HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
PATH = re.compile(rf"{COMPONENT.pattern}(?:/{COMPONENT.pattern})*")
GRAMMAR = "letters and digits, with `.`, `_`, `__` or `-` between them; parts are separated by `/`"
REFERENCE_MAX = 600
SCHEME = re.compile(r"(https|oci|docker)://", re.IGNORECASE)
EXAMPLE = "write it as ghcr.io/owner/repo/runs:RUN_ID"
GITHUB_REGISTRY = "ghcr.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository in a registry and, perhaps, one manifest in it."""

    host: str
    """Registry with its port, where there is one: `ghcr.io`, `localhost:5000`."""
    path: str
    """Repository inside the registry: `owner/repo/runs`."""
    reference: str | None
    """A tag or a digest; where both are given, the digest."""

    @property
    def repository(self) -> str:
        """Host and path, as `Registry` takes them."""
        return f"{self.host}/{self.path}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and what proves it; neither is ever part of a `repr`."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(repr=False, default="")
    """In place of a password, where the docker configuration holds an OAuth2 refresh token."""
    source: str = field(default="", compare=False)
    """Where they were found, as an error may print it."""
    renewal: str = field(default="", compare=False)
    """How to replace them there, where that is known."""


def parse_reference(text: str) -> Reference:
    """Return the parts of `HOST[:PORT]/PATH[:TAG][@DIGEST]`; the host is never guessed. Raises `UsageError`.

    What others write around it is taken: `https://`, `oci://`, `docker://`, a slash at the end, capitals in names that
    have none.

    Source: OCI distribution-spec v1.1, pulling manifests (grammar of names and tags).
    """
    text = (text[prefix.end() :] if (prefix := SCHEME.match(text)) else text).rstrip("/")
    named = re.sub(r"[^/\s]*:[^/\s]*@(?!sha256:)", "***@", text[:200])
    if "://" in text:
        plain = "; for plain HTTP add --plain-http" if text.lower().startswith("http:") else ""
        raise UsageError(f"{named!r} is not a reference", hint=EXAMPLE + plain)
    if len(text) > REFERENCE_MAX:
        raise UsageError(f"the reference {named[:60]}… is {len(text)} characters long", hint=EXAMPLE)
    if HOST.fullmatch(text) and re.search(r"[.:]|^localhost$", text):
        raise UsageError(f"{named!r} is a registry without a repository", hint=f"such as {text}/owner/repo/runs")
    try:
        container = Container(text)
    except ValueError as error:
        raise UsageError(f"{named!r} is not a reference", hint=EXAMPLE) from error
    host, path = str(container.registry), str(container.api_prefix)
    # Container fills in a host and a tag that were not given, and searches: what it found must be all there is.
    suffix = text.removeprefix(f"{host}/{path}")
    if suffix == text or not HOST.fullmatch(host):
        raise UsageError(f"{named!r} does not begin with a registry host", hint=EXAMPLE)
    host, path = host.lower(), path.lower()
    if not PATH.fullmatch(path):
        raise UsageError(f"{path[:200]!r} is not a repository name", hint=GRAMMAR)
    tag = str(container.tag) if suffix.startswith(":") else None
    digest = None if container.digest is None else str(container.digest)
    if suffix != (f":{tag}" if tag else "") + (f"@{digest}" if digest else ""):
        raise UsageError(f"{named!r} is not a reference", hint=EXAMPLE)
    if tag is not None and not TAG.fullmatch(tag):
        raise UsageError(f"{tag[:200]!r} is not a tag", hint="letters, digits, `_`, `.`, `-`; at most 128")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise UsageError(f"{digest[:100]!r} is not a digest", hint="only sha256 digests are accepted")
    return Reference(host=host, path=path, reference=digest or tag)


def component_of(name: str) -> str:
    """Return a name of GitHub, which does not tell case apart, as a component of a path that a registry takes.

    What such a name cannot have becomes `-`, and a digest of the name follows, so that no two names become one.
    """
    name = name.lower()
    if COMPONENT.fullmatch(name):
        return name
    words = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def find_credentials(host: str, environ: Mapping[str, str], *, path: str = "") -> Credentials | None:
    """Return credentials for exactly this registry: docker's or podman's, then (for ghcr.io) github.com's
    `GITHUB_TOKEN`.

    None means anonymous. Raises `RegistryAuthError` where the configuration or a helper's answer is unusable.
    """
    if login := find_login(host, path, environ):
        if login.is_identity_token:
            return Credentials("", "", identity_token=login.secret, source=login.source, renewal=login.renewal)
        return Credentials(login.username, login.secret, source=login.source, renewal=login.renewal)
    token = environ.get("GITHUB_TOKEN")
    if token and host == GITHUB_REGISTRY and github_host(environ) == GITHUB:
        return Credentials(environ.get("GITHUB_ACTOR") or "github-actions", token, source="GITHUB_TOKEN")
    return None
