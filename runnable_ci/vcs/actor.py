"""Who runs something, and for which commit of a pull request: what GitHub, git or the system says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from runnable_ci.errors import CodeIdentityError
from runnable_ci.util.console import is_actions
from runnable_ci.vcs.git import COMMIT


def find_actor(environ: Mapping[str, str], user_name: Callable[[], str]) -> str:
    """Return who runs something: GitHub's actor in a job, else git's user, else the system's.

    `user_name` asks git, and may raise `CodeIdentityError`.
    """
    if is_actions(environ):
        return environ.get("GITHUB_ACTOR", "")
    try:
        name = user_name()
    except CodeIdentityError:
        name = ""
    return " ".join(name.split())[:100] or environ.get("LOGNAME") or environ.get("USER") or ""


def is_pull_request(event_name: str) -> bool:
    """Return whether an event runs the code of a pull request: all that are named so, but one that runs the base's.

    Source: GitHub docs, "Events that trigger workflows"; Gitea and Forgejo have more of them, such as
    `pull_request_sync`.
    """
    return event_name.startswith("pull_request") and event_name != "pull_request_target"


def pull_request_head(environ: Mapping[str, str]) -> str:
    """Return the head commit of the pull request that GitHub runs for, "" where there is none.

    HEAD is then the merge commit.

    Source: GitHub docs, "Events that trigger workflows", `pull_request`.
    """
    if not is_pull_request(environ.get("GITHUB_EVENT_NAME", "")):
        return ""
    try:
        event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_bytes())
        sha = event["pull_request"]["head"]["sha"]
    except (OSError, ValueError, KeyError, TypeError):  # recording a second identity must never stop a run
        return ""
    return sha if isinstance(sha, str) and COMMIT.fullmatch(sha) else ""
