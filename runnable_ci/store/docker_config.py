"""docker's configuration: which login it has for a repository, written into it or kept by a credential helper.

Source: docker/cli, `config.json` and docker/docker-credential-helpers, protocol; containers/image,
containers-auth.json(5), for keys with a path.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runnable_ci.errors import RegistryAuthError
from runnable_ci.util.process import run_with_input
from runnable_ci.util.responses import one_line

HELPER_TIMEOUT_S = 8.0
DOCKER_HUB = "docker.io"
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_TOKEN_USER = "<token>"  # noqa: S105 (what a helper calls the user of an identity token)


@dataclass(frozen=True, slots=True)
class DockerLogin:
    """A login; neither part is ever in a `repr`."""

    username: str = field(repr=False)
    secret: str = field(repr=False)
    is_identity_token: bool = False
    """The secret is an OAuth2 refresh token, not a password."""


def find_login(
    host: str, path: str, environ: Mapping[str, str], *, timeout_s: float = HELPER_TIMEOUT_S
) -> DockerLogin | None:
    """Return docker's login for a repository: its host's helper's, else that of the longest key that leads to it.

    A helper is given up after `timeout_s` seconds. Raises `RegistryAuthError` for a configuration or a helper that
    cannot be used: taken for "no login", it would end in a refusal that says nothing about it.
    """
    file = _file(environ)
    if file is None:
        return None
    host = _canonical(host)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        auths, helpers = (_by_place(config.get(name) or {}) for name in ("auths", "credHelpers"))
        helper = next((name for name in [*helpers.get(host, ()), config.get("credsStore")] if name), "")
        if not isinstance(helper, str):
            raise TypeError("a credential helper's name is not text")  # noqa: TRY301 (one reason of several)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RegistryAuthError(f"{file} cannot be used: {error}", hint="repair the file, or log in again") from error
    if helper and (login := _ask_helper(helper, host, file, environ, timeout_s)):
        return login
    for place in _places(host, path):
        for entry in auths.get(place, ()):
            if login := _written(entry, place, file):
                return login
    return None


def _file(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("HOME", "")
    folder = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    file = Path(folder) / "config.json"
    return file if folder and file.is_file() else None


def _canonical(host: str) -> str:
    return DOCKER_HUB if host.lower() in _HUB_NAMES else host.lower()


def _by_place(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what a table has for each `HOST` and `HOST/PATH`; keys with a scheme, docker's older ones, come last."""
    found: dict[str, list[Any]] = {}
    for key in sorted(table, key=lambda key: "://" in key):
        host, _, path = key.rpartition("://")[2].rstrip("/").partition("/")
        is_api = path in ("", "v1", "v2")  # not the path of a repository
        found.setdefault(_canonical(host) if is_api else f"{_canonical(host)}/{path}", []).append(table[key])
    return found


def _places(host: str, path: str) -> list[str]:
    """Return the keys that lead to a repository, the longest first, the host last."""
    parts = [host, *path.split("/")]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _written(entry: object, place: str, file: Path) -> DockerLogin | None:
    """Return the login that an entry holds, if it holds one."""
    try:
        match entry:
            case {"identitytoken": str(token)} if token:
                return DockerLogin("", token, is_identity_token=True)
            case {"auth": str(encoded)} if encoded:
                return _decoded(encoded)
            case {"username": str(username), "password": str(password)} if username and password:
                return DockerLogin(username, password)
            case _:
                return None
    except ValueError as error:
        raise RegistryAuthError(
            f"the credentials for {place} in {file} cannot be used: {type(error).__name__}",
            hint=f"docker logout {place} && docker login {place}",
        ) from error


def _decoded(encoded: str) -> DockerLogin:
    # docker, written in Go, overlooks line breaks in base64, and zero bytes around a password.
    decoded = base64.b64decode("".join(encoded.split()), validate=True).decode("utf-8")
    username, _, password = decoded.partition(":")
    if not username or not password:
        raise ValueError("no user and password")
    return DockerLogin(username, password.strip("\0"))


def _ask_helper(helper: str, host: str, file: Path, environ: Mapping[str, str], timeout_s: float) -> DockerLogin | None:
    """Return the login that a helper has; None where it has none."""
    program = f"docker-credential-{helper}"
    where = f"the credential helper {program}, which {file} names for {host},"
    hint = f"repair it, remove it from {file}, or set RUNNABLE_CI_REGISTRY_USERNAME and RUNNABLE_CI_REGISTRY_PASSWORD"
    server = DOCKER_HUB_KEY if host == DOCKER_HUB else host
    try:
        done = run_with_input([program, "get"], stdin=server.encode(), env=environ, timeout_s=timeout_s)
    except TimeoutError as error:
        raise RegistryAuthError(f"{where} does not answer within {timeout_s:g} s", hint=hint) from error
    except FileNotFoundError as error:
        raise RegistryAuthError(f"{where} is not installed, or not on PATH", hint=hint) from error
    except OSError as error:
        raise RegistryAuthError(f"{where} cannot be started: {error.strerror}", hint=hint) from error
    if done.code:
        said = one_line((done.stdout.strip() or done.stderr.strip()).decode("utf-8", "replace"))
        if "credentials not found" in said.lower():
            return None
        raise RegistryAuthError(f"{where} fails with exit code {done.code}: {said}", hint=hint)
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryAuthError(f"{where} returned no login", hint=hint) from error
    return DockerLogin(username, secret, is_identity_token=username == _TOKEN_USER) if secret else None
