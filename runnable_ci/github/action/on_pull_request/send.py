"""The action's step that writes the comment and the check, once it is known whether the report has an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.errors import RunnableError
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.on_pull_request.message import Check, Message, report_link, take
from runnable_ci.github.api.errors import RefusedError
from runnable_ci.github.summary import Notice, alert

if TYPE_CHECKING:
    from runnable_ci.github.api.pull_requests import PullRequest

PERMISSION: Final = "permissions:\n  contents: read\n  packages: write\n  pull-requests: write\n  checks: write"
_TITLE: Final = "Not all was written on the pull request"


def send(environ: Mapping[str, str]) -> None:
    """Write what the step before has prepared. Nothing is raised: the run has ended as it has."""
    job = Job.of(environ)
    message = take(Path(job.inputs.message))
    if message is None:
        _warn(job, Notice(_TITLE, "What was to be written is gone: a step of the job has removed or changed it"))
        return
    pull = _Connected(job, message, report_link(job.inputs.report_url, job.context.server_url))
    if message.is_comment:
        _try(job, pull.comment, is_optional=job.inputs.comment == "auto")
    if (check := message.check) is not None:
        _try(job, lambda: pull.check(check), is_optional=False)


@dataclass(frozen=True)
class _Connected:
    """What is to be said, and the pull request."""

    job: Job
    message: Message
    report: str
    """The report's address; empty where there is none."""

    @cached_property
    def pull(self) -> PullRequest:
        """The pull request, for the job's token."""
        from runnable_ci.github.api.connection import connect_pull_request  # late: HTTP

        if not self.job.inputs.job_token:
            raise RefusedError("the job has no token", hint="the runner is to set `github.token`")
        return connect_pull_request(self.job.inputs.job_token, self.message.number, self.job.environ)

    def comment(self) -> str:
        """Write the comment, or update it; return a line for the log."""
        page = self.pull.put_comment(self.message.marker, self.message.text_with(self.report))
        return f"comment on the pull request: {page}"

    def check(self, check: Check) -> str:
        """Add the check; return a line for the log."""
        summary = self.message.text_with(self.report).removeprefix(self.message.marker).lstrip()
        page = self.report or self.message.page
        url = self.pull.put_check(
            check.name, check.sha, check.conclusion, title=check.title, summary=summary, page=page
        )
        return f"check on {check.sha[:12]}, {check.conclusion}: {url}"


def _try(job: Job, write: Callable[[], str], *, is_optional: bool) -> None:
    """Do it and print the line, or why not: where it is optional a missing permission is no warning."""
    try:
        job.say(write())
    except RefusedError as e:
        if is_optional:
            job.say(f"note: no comment on the pull request: {e.message}; {e.hint}")
        else:
            _warn(job, Notice(_TITLE, f"{e.message}. {e.hint}", PERMISSION))
    except RunnableError as e:
        _warn(job, Notice(_TITLE, ". ".join(filter(None, (e.message, e.hint)))))


def _warn(job: Job, notice: Notice) -> None:
    clean = Notice(notice.title, job.clean(notice.text), notice.fix)
    job.warn(clean.title, "\n".join(filter(None, (clean.text, clean.fix))))
    if job.inputs.summary:
        job.summarise(f"\n{alert(clean)}\n")
