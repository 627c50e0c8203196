"""What the commands that speak to GitHub have in common: the repository, the token, following a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runnable_ci.cli.terminal import Printer
from runnable_ci.cli.watch import INTERRUPTED, RunWatcher, closing, exit_code
from runnable_ci.config import Settings
from runnable_ci.errors import UsageError
from runnable_ci.github.api.actions import Actions, Started
from runnable_ci.github.api.client import Rest
from runnable_ci.github.api.credentials import find_token
from runnable_ci.github.api.repository import Repository, api_of, of_folder, parse_repository
from runnable_ci.util.console import console, is_actions


@dataclass(frozen=True, slots=True)
class Connection:
    """A repository on its server."""

    repository: Repository
    actions: Actions
    is_local: bool
    """Whether the folder at hand is a clone of it."""


def connect(repo: str | None, *, settings: Settings, environ: Mapping[str, str]) -> Connection:
    """The repository that is meant: `repo`, else the git remote's, else that of the job that we run in."""
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


def watch(
    actions: Actions, find: Callable[[], Started], *, every_s: float, after_attempt: int, offer: str | None
) -> int:
    """Follow a run to its end, whose result the exit code is; Ctrl-C ends the following, not the run."""
    printer = Printer.of_process(no_colour="NO_COLOR" in os.environ)
    url = ""
    try:
        started = find()
        url = started.url
        follower = RunWatcher(actions, started.run, url, printer=printer, every_s=every_s)
        run = follower.follow(after_attempt=after_attempt)
    except KeyboardInterrupt:
        printer.say(f"stopped watching; the run goes on: {url}" if url else "stopped watching; the run goes on")
        return INTERRUPTED
    printer.say(closing(run, url))
    if offer:
        printer.say(f"to have it here: {offer}")
    return exit_code(run)


def show_link(url: str) -> None:
    """A link, as the output of a command, at once: a watch may follow."""
    console.out(url)
