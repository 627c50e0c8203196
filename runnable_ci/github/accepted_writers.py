"""Whose parts of a published run are used here: what a person set, else in a job those of its own branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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


def accepted_by_a_part(settings: Settings, environ: Mapping[str, str]) -> AcceptedWriters:
    """Return them for a job of a run that several jobs share: also what other jobs of its workflow run made.

    These all run for the same branch or pull request; but what they checked out may be no branch. Raises `UsageError`.
    """
    accepted, context = accepted_writers(settings, environ), Context.of(environ)
    return accepted if context is None else replace(accepted, workflow_run=context.run_id)
