"""Why GitHub says no, by cause, each with what mends it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from runnable_ci.errors import RunnableError

PERMISSION: Final = "permissions:\n  actions: write"
TRIGGER: Final = """on:
  workflow_dispatch:
    inputs:
      run-id: { type: string, required: true }
      ref: { type: string }
      from-step: { type: string }
      parameters: { type: string }"""


class GitHubError(RunnableError):
    """GitHub cannot be reached, keeps failing, or answers in a way that it should not."""


class GitHubUnavailableError(GitHubError):
    """GitHub cannot be reached or keeps failing; the same command may work later."""


class GitHubProtocolError(GitHubError):
    """The server answers as no GitHub does; nothing of the answer was used."""


class RateLimitError(GitHubError):
    """No more requests until `until_s`, in seconds since 1970."""

    def __init__(self, *, until_s: float, now_s: float, message: str) -> None:
        minutes = max(1, round((until_s - now_s) / 60))
        until = datetime.fromtimestamp(until_s, UTC)
        super().__init__(
            f"GitHub's rate limit: no more requests until {until:%H:%M:%S} UTC, in {minutes} min"
            + (f" ({message})" if message else ""),
            hint="try again then; a token of your own has more requests an hour than a workflow's GITHUB_TOKEN",
        )
        self.until_s = until_s


class WatchLostError(GitHubError):
    """How a run ends cannot be known any more; it goes on."""


class RunNotSeenError(GitHubError):
    """A run was started, but which one it is cannot be told."""


class RefusedError(GitHubError):
    """GitHub says no, and nothing was started."""

    exit_code = 2


class TokenMissingError(RefusedError):
    """There is no token that may be used."""


class TokenRefusedError(RefusedError):
    """401: the token is wrong, expired or revoked."""


class PermissionMissingError(RefusedError):
    """403: the token may not do this."""


class SingleSignOnError(RefusedError):
    """403: the organisation wants the token authorised by single sign-on."""


class RepositoryNotFoundError(RefusedError):
    """404: no such repository, or the token does not see it."""


class WorkflowNotFoundError(RefusedError):
    """404: the workflow is not on the default branch."""


class WorkflowRunNotFoundError(RefusedError):
    """404: no such workflow run."""


class RefNotFoundError(RefusedError):
    """The branch, tag or commit is not on the server."""


class NotPushedError(RefusedError):
    """The commit at hand is not on the server."""


class InputsUnknownError(RefusedError):
    """422: the workflow has no such input."""


class InputsMissingError(RefusedError):
    """422: the workflow wants an input, or another value for one."""


class TriggerMissingError(RefusedError):
    """422: the workflow does not start by `workflow_dispatch`."""


class WorkflowDisabledError(RefusedError):
    """422: the workflow, or Actions as a whole, is switched off."""


class RunInProgressError(RefusedError):
    """The workflow run is not over yet."""


class NothingFailedError(RefusedError):
    """The workflow run succeeded."""


class RunTooOldError(RefusedError):
    """GitHub re-runs for 30 days only."""


class TooManyAttemptsError(RefusedError):
    """GitHub re-runs 50 times at most."""


class NotRetriableError(RefusedError):
    """GitHub will not re-run this run for a reason of its own."""
