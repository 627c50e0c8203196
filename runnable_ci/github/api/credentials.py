"""Which token is used for GitHub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.config import GITHUB_TOKEN, Settings
from runnable_ci.github.api.errors import RefusedError
from runnable_ci.github.api.repository import Api, Repository
from runnable_ci.util.process import check_output

VARIABLES: Final = ("GITHUB_TOKEN", "GH_TOKEN")
_ENTERPRISE: Final = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
_GH_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token, never part of a `repr`, and where it was found."""

    secret: str = field(repr=False)
    source: str


def find_token(repository: Repository, api: Api, settings: Settings, environ: Mapping[str, str]) -> ApiToken:
    """Return the token of the settings or the environment, else that of the `gh` program for the repository's host.

    A host that only a git remote names gets no token of the environment, which may be for another: gh knows
    which is whose. Raises `RefusedError`.
    """
    own = settings.github_token.get_secret_value() if settings.github_token else ""
    given = {GITHUB_TOKEN: own, **{name: environ.get(name, "") for name in VARIABLES}}
    source = next((name for name, secret in given.items() if secret.strip()), "")
    if source and api.is_meant:
        return _checked(given[source].strip(), source)
    host = repository.host
    command = ["gh", "auth", "token", "--hostname", host]
    # Without these gh answers what it has for this host, not what the environment has for any.
    others = {name: value for name, value in environ.items() if name not in (*VARIABLES, *_ENTERPRISE)}
    answer = check_output(command, cwd=Path.cwd(), env=others, timeout_s=_GH_TIMEOUT_S)
    if answer and (secret := answer.decode(errors="replace").strip()):
        return _checked(secret, "gh auth token")
    if source:
        raise RefusedError(
            f"the git remote is on the server {host}: {source} is not sent there automatically",
            hint=f"if the token is for {host}, use --repo {host}/{repository.owner}/{repository.name}, "
            f"or GITHUB_API_URL={api.base}",
        )
    login = "gh auth login" + ("" if host == "github.com" else f" --hostname {host}")
    raise RefusedError(f"no token for {host}", hint=f"set {GITHUB_TOKEN}, GITHUB_TOKEN or GH_TOKEN, or run `{login}`")


def _checked(secret: str, source: str) -> ApiToken:
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise RefusedError(f"{source} holds no token: it contains spaces or invalid characters")
    return ApiToken(secret, source)
