"""Which repository on which GitHub server to use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from runnable_ci.errors import CodeIdentityError, UsageError
from runnable_ci.util.github_host import GITHUB, github_host
from runnable_ci.util.urls import is_loopback
from runnable_ci.vcs.git import clean_url

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?(?::[0-9]{1,5})?")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_SCP = re.compile(r"(?:[^@/:\s]+@)?([^@/:\s]+):(?!//)(.+)")
GITHUB_API: Final = "https://api.github.com"
# GitHub's ssh on the port of https. Source: GitHub docs, "Using SSH over the HTTPS port".
_OTHER_NAMES: Final = {"ssh.github.com": GITHUB, "www.github.com": GITHUB}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: host with its port, where there is one, owner and name."""

    host: str
    owner: str
    name: str

    def __str__(self) -> str:
        path = f"{self.owner}/{self.name}"
        return path if self.host == GITHUB else f"{self.host}/{path}"

    def is_same(self, other: Repository | None) -> bool:
        """Return whether both are one: GitHub takes upper and lower case for the same."""
        return other is not None and str(self).lower() == str(other).lower()

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/repos/{self.owner}/{self.name}"

    @property
    def registry(self) -> str | None:
        """Where the action publishes by default; None on a server that has no default."""
        return f"ghcr.io/{self.owner}/{self.name}/runs".lower() if self.host == GITHUB else None


@dataclass(frozen=True, slots=True)
class Api:
    """Where a server's API is, and whether the user, not a remote's URL, says that it may have a token."""

    base: str
    is_meant: bool


def parse_repository(text: str) -> Repository:
    """Return a repository as `--repo` names it: `OWNER/NAME`, `HOST/OWNER/NAME` or its URL. Raises `UsageError`."""
    found = parse_remote(text)
    if found is None and re.fullmatch(r"[^/:]+/[^/:]+", text):
        found = _repository(GITHUB, text)
    if found is None and (parts := text.partition("/")) and re.fullmatch(r"[^/]+/[^/]+", parts[2]):
        found = _repository(parts[0], parts[2])
    if found is None:
        raise UsageError(f"--repo {clean_url(text)}: not a repository", hint="write it as OWNER/NAME")
    return found


def parse_remote(url: str) -> Repository | None:
    """Return the repository of a git remote's URL: https, ssh, or `git@HOST:OWNER/NAME`; None for anything else."""
    if "://" not in url:
        scp = _SCP.fullmatch(url)
        return _repository(scp[1], scp[2]) if scp else None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if parts.scheme not in ("https", "http", "ssh", "git+ssh", "git"):
        return None
    is_web = parts.scheme in ("https", "http")
    return _repository(f"{host}:{port}" if port and is_web else host, parts.path)


def _repository(host: str, path: str) -> Repository | None:
    owner, _, name = path.strip("/").removesuffix(".git").partition("/")
    host = host.lower()
    if not (_HOST.fullmatch(host) and _NAME.fullmatch(owner) and _NAME.fullmatch(name)):
        return None
    return Repository(_OTHER_NAMES.get(host, host), owner, name)


def of_folder(folder: str, environ: Mapping[str, str]) -> Repository | None:
    """Return the repository of the git remote: `origin`, else the first; None where there is no remote on a server.

    What `url.….insteadOf` of git's settings says counts.
    """
    from runnable_ci.vcs.clone import Clone  # late: it loads GitPython

    try:
        return parse_remote(Clone.around(Path(folder), environ).remote_url())
    except CodeIdentityError:  # no repository: there is none to name
        return None


def api_of(repository: Repository, *, is_named: bool, environ: Mapping[str, str]) -> Api:
    """Return the API of a repository's server; `is_named` where the repository is the user's own word.

    `GITHUB_API_URL` goes first. Source: GitHub docs, "Getting started with the REST API" of each product.
    """
    if given := environ.get("GITHUB_API_URL"):
        return Api(given.rstrip("/"), is_meant=True)
    host, named = repository.host, github_host(environ)
    is_meant = is_named or host == named
    if host == GITHUB:
        return Api(GITHUB_API, is_meant=is_meant)
    if host.endswith(".ghe.com"):
        return Api(f"https://api.{host}", is_meant=is_meant or named == GITHUB)
    scheme = "http" if is_loopback(urlsplit(f"//{host}").hostname or "") else "https"
    return Api(f"{scheme}://{host}/api/v3", is_meant=is_meant)
