"""The repository on its server that a command is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runnable_ci.config import Settings
from runnable_ci.errors import UsageError
from runnable_ci.github.api.actions import Actions
from runnable_ci.github.api.client import Rest
from runnable_ci.github.api.credentials import ApiToken, find_token
from runnable_ci.github.api.packages import Package
from runnable_ci.github.api.pull_requests import PullRequest
from runnable_ci.github.api.repository import GITHUB_API, Api, Repository, api_of, of_folder, parse_repository
from runnable_ci.util.console import console, is_actions
from runnable_ci.util.github_host import GITHUB, github_host


@dataclass(frozen=True, slots=True)
class Connection:
    """A repository on its server."""

    repository: Repository
    actions: Actions
    is_local: bool
    """Whether the current folder is a clone of it."""


def connect(repo: str | None, *, settings: Settings, environ: Mapping[str, str]) -> Connection:
    """Return the repository: `repo`, else the git remote's, else that of the job that we run in."""
    local = of_folder(str(Path.cwd()), environ)
    in_actions = is_actions(environ)
    of_job = environ.get("GITHUB_REPOSITORY", "") if in_actions else ""
    repository = parse_repository(repo) if repo else local or (parse_repository(of_job) if of_job else None)
    if repository is None:
        raise UsageError(
            "no git remote here is a repository on a GitHub server", hint="name the repository: --repo OWNER/NAME"
        )
    api = api_of(repository, is_named=repo is not None, environ=environ)
    token = find_token(repository, api, settings, environ)
    rest = Rest(api.base, token, environ=environ, say=console.err)
    return Connection(repository, Actions(rest, repository, in_actions=in_actions), repository.is_same(local))


def connect_job(token: str, environ: Mapping[str, str]) -> Actions:
    """Return the workflows of the repository of the job that we run in. Raises `UsageError`."""
    rest, repository = _of_job(token, environ)
    return Actions(rest, repository, in_actions=True)


def connect_pull_request(token: str, number: int, environ: Mapping[str, str]) -> PullRequest:
    """Return a pull request of the repository of the job that we run in. Raises `UsageError`."""
    rest, repository = _of_job(token, environ)
    return PullRequest(rest, repository, number)


def _of_job(token: str, environ: Mapping[str, str]) -> tuple[Rest, Repository]:
    host = github_host(environ)
    named = environ.get("GITHUB_REPOSITORY", "")
    repository = parse_repository(named if host == GITHUB else f"{host}/{named}")
    api = api_of(repository, is_named=True, environ=environ)
    return Rest(api.base, ApiToken(token, "the job"), environ=environ, say=console.err), repository


def connect_package(path: str, *, settings: Settings, environ: Mapping[str, str]) -> Package:
    """Return the package that a repository of `ghcr.io` is: its first part is the owner.

    It is on github.com, whatever server the environment is about: that one's API and token have no part in it.
    Raises `UsageError`, `RefusedError`.
    """
    owner, _, name = path.partition("/")
    if not name:
        raise UsageError(f"ghcr.io/{path} is no package", hint="ghcr.io/OWNER/NAME")
    repository = Repository(GITHUB, owner, name)
    is_ours = github_host(environ) == GITHUB
    api = api_of(repository, is_named=True, environ=environ) if is_ours else Api(GITHUB_API, is_meant=False)
    token = find_token(repository, api, settings, environ)
    return Package(Rest(api.base, token, environ=environ, say=console.err), owner, name)
