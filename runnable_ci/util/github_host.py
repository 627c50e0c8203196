"""Which GitHub server the environment is about: its tokens are that server's, and no other host's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from runnable_ci.util.console import is_actions

GITHUB: Final = "github.com"
_NAMING: Final = ("GITHUB_SERVER_URL", "GH_HOST", "GITHUB_API_URL")


def github_host(environ: Mapping[str, str]) -> str:
    """Return the host of the server that a job runs for, or that a person's variables name; else `github.com`.

    In a job the runner's own variable tells. Elsewhere one variable that names another server is enough: of a token
    beside it nobody knows that it is not that server's.
    """
    names = _NAMING[:1] if is_actions(environ) else _NAMING
    hosts = [_host(value) for name in names if (value := environ.get(name, "").strip())]
    return next((host for host in hosts if host != GITHUB), GITHUB)


def _host(text: str) -> str:
    """Return the host of a URL or of a plain name, lower-case with its port; of one with an API apart, without that."""
    _, separator, rest = text.rpartition("://")
    host = re.split(r"[/?#]", rest if separator else text)[0].rpartition("@")[2].lower()
    if host == GITHUB or host.endswith(f".{GITHUB}"):
        return GITHUB
    return host.removeprefix("api.") if host.endswith(".ghe.com") else host
