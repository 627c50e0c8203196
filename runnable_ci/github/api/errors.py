"""What can go wrong with GitHub's API: classes only where the difference matters to a caller."""

from __future__ import annotations

from datetime import UTC, datetime

from runnable_ci.errors import RunnableError


class GitHubError(RunnableError):
    """GitHub answers in a way that it should not; nothing of the response was used."""


class GitHubUnavailableError(GitHubError):
    """GitHub cannot be reached or keeps failing; the same command may work later."""


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


class RefusedError(GitHubError):
    """GitHub says no, and nothing was started."""

    exit_code = 2


class PermissionMissingError(RefusedError):
    """A token may not do what it was to do."""


class InputsUnknownError(RefusedError):
    """A workflow does not take an input that it was given."""

    names: frozenset[str] = frozenset()
    """Which ones, as far as GitHub says it."""
