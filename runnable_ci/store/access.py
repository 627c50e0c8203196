"""Who is meant by a reference, and as whom we speak to it: the only importer of `oras`.

The `oras` package splits references and knows docker's credential helpers. Its transport is not used, and neither is
its token exchange: it has no time-outs, reads without limit, and returns None for every failure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oras.container import Container

from runnable_ci.errors import RegistryAuthError, UsageError
from runnable_ci.store.target import DIGEST, TAG

HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
REFERENCE_MAX = 600
EXAMPLE = "write it as ghcr.io/owner/repo/runs:RUN_ID"
GITHUB_REGISTRY = "ghcr.io"
DOCKER_HUB_KEY = "index.docker.io"


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


def parse_reference(text: str) -> Reference:
    """The parts of `HOST[:PORT]/PATH[:TAG][@DIGEST]`; the host is never guessed. Raises `UsageError`.

    Source: OCI distribution-spec v1.1, pulling manifests (grammar of names and tags).
    """
    named = re.sub(r"[^/\s]*:[^/\s]*@(?!sha256:)", "***@", text[:200])
    if len(text) > REFERENCE_MAX:
        raise UsageError(f"the reference {named[:60]}… is {len(text)} characters long", hint=EXAMPLE)
    try:
        container = Container(text)
    except ValueError as error:
        raise UsageError(f"{named!r} is not a reference", hint=EXAMPLE) from error
    host, path = str(container.registry), str(container.api_prefix)
    # Container fills in a host and a tag that were not given, and searches: what it found must be all there is.
    suffix = text.removeprefix(f"{host}/{path}")
    if suffix == text or not HOST.fullmatch(host):
        raise UsageError(f"{named!r} does not begin with a registry's host", hint=EXAMPLE)
    if not PATH.fullmatch(path):
        lower = f"; did you mean {host}/{path.lower()}?" if PATH.fullmatch(path.lower()) else ""
        raise UsageError(f"{path[:200]!r} is not a repository name", hint="names are lower-case" + lower)
    tag = str(container.tag) if suffix.startswith(":") else None
    digest = None if container.digest is None else str(container.digest)
    if suffix != (f":{tag}" if tag else "") + (f"@{digest}" if digest else ""):
        raise UsageError(f"{named!r} is not a reference", hint=EXAMPLE)
    if tag is not None and not TAG.fullmatch(tag):
        raise UsageError(f"{tag[:200]!r} is not a tag", hint="letters, digits, `_`, `.`, `-`; at most 128")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise UsageError(f"{digest[:100]!r} is not a digest", hint="only sha256 digests are accepted")
    return Reference(host=host, path=path, reference=digest or tag)


def find_credentials(host: str, environ: Mapping[str, str]) -> Credentials | None:
    """Credentials for exactly this registry: docker's configuration, then (for ghcr.io) the job's `GITHUB_TOKEN`.

    None means anonymous. Raises `RegistryAuthError` where the configuration or a helper's answer is unusable.
    """
    if found := _docker_credentials(host, environ):
        return found
    if host == GITHUB_REGISTRY and (token := environ.get("GITHUB_TOKEN")):
        return Credentials(environ.get("GITHUB_ACTOR") or "github-actions", token)
    return None


def _docker_credentials(host: str, environ: Mapping[str, str]) -> Credentials | None:
    home = environ.get("HOME", "")
    folder = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    path = Path(folder) / "config.json"
    if not folder or not path.is_file():
        return None
    try:
        config = _by_host(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RegistryAuthError(f"{path} cannot be used: {error}", hint="repair it, or log in again") from error
    host = DOCKER_HUB_KEY if host == "docker.io" else host
    if identity := config["auths"].get(host, {}).get("identitytoken"):
        return Credentials("", "", identity_token=str(identity))
    try:
        encoded = _from_oras(host, config)
        if not encoded:
            return None
        username, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        raise RegistryAuthError(
            f"the credentials for {host} in {path} cannot be used: {type(error).__name__}",
            hint=f"docker logout {host} && docker login {host}",
        ) from error
    # docker's convention for an identity token that a helper keeps
    return Credentials("", "", identity_token=password) if username == "<token>" else Credentials(username, password)


def _by_host(config: dict[str, Any]) -> dict[str, Any]:
    """docker's configuration with plain hosts for keys: docker also writes `https://HOST/v1/`."""
    auths: dict[str, dict[str, Any]] = {}
    for key, written in (config.get("auths") or {}).items():
        host = urlsplit(key).netloc if "://" in key else key.split("/")[0]
        entry = dict(written or {})
        if not entry.get("auth") and entry.get("username") and entry.get("password"):
            entry["auth"] = base64.b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()
        if entry.get("auth") or entry.get("identitytoken") or host not in auths:
            auths[host] = entry
    helpers = {urlsplit(k).netloc if "://" in k else k: v for k, v in (config.get("credHelpers") or {}).items()}
    return {"auths": auths, "credHelpers": helpers, "credsStore": config.get("credsStore")}


def _from_oras(host: str, config: dict[str, Any]) -> str | None:
    """Base64 of `user:password` by the way of oras: an inline entry, else the host's helper, else the store."""
    # Imported late: it imports requests, which a pull without credentials does not need.
    import oras.logger
    from oras.auth.base import AuthBackend

    oras.logger.setup_logger(quiet=True)  # a helper without an entry for this host is no news
    backend = AuthBackend()
    backend._auth_config = config  # its own reading ignores DOCKER_CONFIG
    backend.load_configs(Container(f"{host}/any"))
    found = getattr(backend, "_basic_auth", None)
    return None if found is None else str(found)
