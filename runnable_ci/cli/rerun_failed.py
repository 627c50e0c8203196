"""`runnable-ci rerun-failed`: GitHub's own re-run of the failed jobs of a workflow run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runnable_ci.cli.github import connect, show_link, watch
from runnable_ci.config import Settings
from runnable_ci.errors import UsageError
from runnable_ci.github.api.actions import Started
from runnable_ci.store.target import TAG
from runnable_ci.util.shell_command import command

_LINK = re.compile(r"(https?://[^/\s]+/[^/\s]+/[^/\s]+)/actions/runs/([0-9]+)(?:[/?#].*)?")


def rerun_failed(
    given: str,
    *,
    repo: str | None,
    watching: bool,
    every_s: float,
    settings: Settings,
    environ: Mapping[str, str],
) -> int:
    """Run the failed jobs of a workflow run again, given its number or its URL; the URL is printed."""
    link = _LINK.fullmatch(given)
    number = link[2] if link else given
    if not re.fullmatch(r"[1-9][0-9]{0,18}", number):
        at = ["--repo", repo] if repo else []
        other = f"; a run id of ours is for `{command('dispatch', given, *at)}`" if TAG.fullmatch(given) else ""
        raise UsageError(
            f"`{given}` is not the number of a workflow run",
            hint=f"it is the number at the end of a run's URL{other}",
        )
    connection = connect(repo or (link[1] if link else None), settings=settings, environ=environ)
    actions = connection.actions
    run = actions.run(int(number))
    actions.rerun_failed(run)
    url = actions.link_of(run)
    show_link(url)
    if not watching:
        return 0
    started = Started(run.id, url)
    return watch(actions, lambda: started, every_s=every_s, after_attempt=run.run_attempt, offer=None)
