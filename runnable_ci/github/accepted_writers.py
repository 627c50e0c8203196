"""Whose parts of a published run are used here: what a person set, else in a job those of its own branches."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.config import Settings
from runnable_ci.github.job import Context
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters


def accepted_writers(settings: Settings, environ: Mapping[str, str]) -> AcceptedWriters:
    """Return them by `--writers` or `RUNNABLE_CI_WRITERS`, else by the job; outside of a job everybody is accepted.

    Raises `UsageError`.
    """
    if settings.writers is not None:
        return AcceptedWriters.parse(settings.writers)
    context = Context.of(environ)
    return AcceptedWriters(refs=context.accepted_refs) if context else EVERYBODY
