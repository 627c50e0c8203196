"""The logins of docker and podman: which one there is for a repository, written down or kept by a credential helper.

Source: docker/cli, `config.json`, `DOCKER_AUTH_CONFIG` and docker/docker-credential-helpers, protocol;
containers-auth.json(5), keys with a path and the order of files; containers/common, pkg/auth, for the variables.
"""

from __future__ import annotations

import base64
import json
import os
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runnable_ci.errors import RegistryAuthError
from runnable_ci.util.process import run_bounded
from runnable_ci.util.responses import one_line

HELPER_TIMEOUT_S = 8.0
HELPER_MAX_BYTES = 1024 * 1024
DOCKER_HUB = "docker.io"
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
AUTH_VARIABLE = "DOCKER_AUTH_CONFIG"
"""Holds a configuration itself: GitLab's convention, which docker follows since 28.3."""
FILE_VARIABLE = "REGISTRY_AUTH_FILE"
_PODMAN = Path("containers", "auth.json")
_TOKEN_USER = "<token>"  # noqa: S105 (what a helper calls the user of an identity token)


@dataclass(frozen=True, slots=True)
class DockerLogin:
    """A login; neither part is ever in a `repr`."""

    username: str = field(repr=False)
    secret: str = field(repr=False)
    is_identity_token: bool = False
    """The secret is an OAuth2 refresh token, not a password."""
    source: str = field(default="", compare=False)
    """Where it was found, as an error may print it."""
    renewal: str = field(default="", compare=False)
    """How to replace it there."""


def find_login(
    host: str, path: str, environ: Mapping[str, str], *, timeout_s: float = HELPER_TIMEOUT_S
) -> DockerLogin | None:
    """Return the login for a repository of the first place that has one.

    In each place the host's helper goes before what is written; there, the longest key that leads to the repository
    counts. A helper is given up after `timeout_s` seconds. Raises `RegistryAuthError` for a configuration or a helper
    that cannot be used: taken for "no login", it would end in a refusal that says nothing about it.
    """
    host = _canonical(host)
    for place, text in _configurations(environ):
        if login := _login_in(text, place, host, path, environ, timeout_s):
            return login
    return None


def _login_in(
    text: str, where: str, host: str, path: str, environ: Mapping[str, str], timeout_s: float
) -> DockerLogin | None:
    try:
        text = text.removeprefix("\ufeff")
        config = json.loads(text) if text.strip() else {}  # as docker takes an empty file
        auths, helpers = (_by_place(config.get(name) or {}) for name in ("auths", "credHelpers"))
        # A host's own entry counts though it be empty: its login is written, whatever keeps the others.
        helper = (helpers[host][0] if host in helpers else config.get("credsStore")) or ""
        if not isinstance(helper, str):
            raise TypeError("a credential helper's name is not text")  # noqa: TRY301 (one reason of several)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _unusable(where, _reason(error)) from error
    if helper and (login := _ask_helper(helper, host, where, environ, timeout_s)):
        return login
    for place in _places(host, path):
        for entry in auths.get(place, ()):
            if login := _written(entry, place, where):
                return login
    return None


def _configurations(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each configuration there is, the first to be asked first.

    A file that a variable names is the only one.
    """
    if text := environ.get(AUTH_VARIABLE, "").strip():
        yield AUTH_VARIABLE, text
    named = environ.get(FILE_VARIABLE, "")
    for file in [Path(named)] if named else _usual_files(environ):
        try:
            yield str(file), file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            if named:
                raise _unusable(f"{file}, which {FILE_VARIABLE} names,", "there is no such file") from error
        except (OSError, ValueError) as error:
            raise _unusable(str(file), _reason(error)) from error


def _usual_files(environ: Mapping[str, str]) -> list[Path]:
    if docker := environ.get("DOCKER_CONFIG"):
        return [Path(docker, "config.json")]
    home, config = environ.get("HOME", ""), environ.get("XDG_CONFIG_HOME", "")
    # What `podman login` writes where no session has made a folder for the user.
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    folders = [Path(runtime), *([Path(config or f"{home}/.config")] if config or home else [])]
    return [folder / _PODMAN for folder in folders] + ([Path(home, ".docker", "config.json")] if home else [])


def _unusable(where: str, reason: str) -> RegistryAuthError:
    return RegistryAuthError(f"{where} cannot be used: {reason}", hint="repair it, or log in again")


def _reason(error: Exception) -> str:
    """Return why a configuration cannot be used, without anything of its text."""
    match error:
        case OSError(strerror=str(reason)):
            return reason
        case json.JSONDecodeError(msg=reason, lineno=line):
            return f"line {line}: {reason}"
        case UnicodeDecodeError(reason=reason):
            return f"it is not UTF-8: {reason}"
        case _:
            return "it is not a configuration of docker"


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


def _written(entry: object, place: str, where: str) -> DockerLogin | None:
    """Return the login that an entry holds, if it holds one."""
    source, renewal = f"`{place}` in {where}", _renew(place, where)
    try:
        match entry:
            case {"identitytoken": str(token)} if token:
                return DockerLogin("", token, is_identity_token=True, source=source, renewal=renewal)
            case {"auth": str(encoded)} if encoded:
                return DockerLogin(*_decoded(encoded), source=source, renewal=renewal)
            case {"username": str(username), "password": str(password)} if username and password:
                return DockerLogin(username, password, source=source, renewal=renewal)
            case _:
                return None
    except ValueError as error:
        raise RegistryAuthError(
            f"the credentials for {place} in {where} cannot be used: {_fault(error)}", hint=_renew(place, where)
        ) from error


def _fault(error: ValueError) -> str:
    """Return what is wrong with an `auth`, without anything of it."""
    match error:
        case Base64Error():
            return "its `auth` is not base64"
        case UnicodeDecodeError():
            return "its `auth` is not base64 of UTF-8"
        case _:
            return "its `auth` is not base64 of USER:PASSWORD"


def _renew(place: str, where: str) -> str:
    """Return how a login is replaced where it was found."""
    if where == AUTH_VARIABLE:
        return f"correct {AUTH_VARIABLE}"
    if Path(where).name == "config.json":
        return f"docker logout {place} && docker login {place}"
    return f"podman logout --authfile {where} {place} && podman login --authfile {where} {place}"


def _decoded(encoded: str) -> tuple[str, str]:
    # docker, written in Go, overlooks line breaks in base64, and zero bytes around a password.
    decoded = base64.b64decode("".join(encoded.split()), validate=True).decode("utf-8")
    username, _, password = decoded.partition(":")
    if not username or not password:
        raise ValueError("no user and password")
    return username, password.strip("\0")


def _ask_helper(helper: str, host: str, where: str, environ: Mapping[str, str], timeout_s: float) -> DockerLogin | None:
    """Return the login that a helper has; None where it has none."""
    program = f"docker-credential-{helper}"
    named = f"{program}, which {where} names for {host}"
    who = f"the credential helper {named},"
    hint = f"repair it, remove it from {where}, or set RUNNABLE_CI_REGISTRY_USERNAME and RUNNABLE_CI_REGISTRY_PASSWORD"
    server = DOCKER_HUB_KEY if host == DOCKER_HUB else host
    try:
        done = run_bounded(
            [program, "get"], stdin=server.encode(), env=environ, timeout_s=timeout_s, most=HELPER_MAX_BYTES
        )
    except TimeoutError as error:
        raise RegistryAuthError(f"{who} does not answer within {timeout_s:g} s", hint=hint) from error
    except OverflowError as error:
        raise RegistryAuthError(f"{who} returned no login, but more than it takes to say one", hint=hint) from error
    except FileNotFoundError as error:
        raise RegistryAuthError(f"{who} is not installed, or not on PATH", hint=hint) from error
    except OSError as error:
        raise RegistryAuthError(f"{who} cannot be started: {error.strerror}", hint=hint) from error
    if done.code:
        said = (done.stdout.strip() or done.stderr.strip()).decode("utf-8", "replace")
        if "credentials not found" in said.lower():
            return None
        raise RegistryAuthError(f"{who} fails with exit code {done.code}: {_printable(said, environ)}", hint=hint)
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryAuthError(f"{who} returned no login", hint=hint) from error
    is_token = username == _TOKEN_USER
    return DockerLogin(username, secret, is_identity_token=is_token, source=named) if secret else None


def _printable(said: str, environ: Mapping[str, str]) -> str:
    """Return what a helper says in one line, without the lines that hold what looks secret."""
    from runnable_ci.redaction.environment import secrets_of
    from runnable_ci.redaction.redactor import Redactor
    from runnable_ci.redaction.secret_values import secret_in

    lines = Redactor(secrets_of(environ)).text(said).splitlines()
    shown = one_line(" ".join(line for line in lines if not secret_in(line.encode(errors="replace"), code=False)))
    return shown or ("what it says may hold a secret" if said else "it says nothing")
