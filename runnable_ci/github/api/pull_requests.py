"""What a job says on its pull request: one comment, which is updated, and a check. Source: GitHub docs, REST API."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from runnable_ci.github.api.client import Rest, described, read_as
from runnable_ci.github.api.errors import GitHubError, RefusedError
from runnable_ci.github.api.repository import Repository
from runnable_ci.util.responses import Response

COMMENT_MAX: Final = 65_536
"""Characters of a comment. Source: the API's own refusal, "body is too long (maximum is 65536 characters)"."""
BOT: Final = "github-actions[bot]"
"""Who writes with a job's token: a comment of anyone else is not ours, whatever is in it."""
Conclusion = Literal["success", "failure", "neutral"]
_PAGE: Final = 100
_PAGES_MAX: Final = 20


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _User(_Read):
    login: str


class _Comment(_Read):
    id: int
    html_url: str
    body: str | None = None
    user: _User | None = None


class _Comments(_Read):
    comments: tuple[_Comment, ...]


class _Made(_Read):
    html_url: str | None = None


class PullRequest:
    """A pull request, for a job that has a token of its repository."""

    def __init__(self, rest: Rest, repository: Repository, number: int) -> None:
        self._rest = rest
        self._path = repository.path
        self._number = number

    def put_comment(self, marker: str, body: str) -> str:
        """Write the comment that begins with `marker`, or update it; return its page.

        Raises `RefusedError` where the token may not, `GitHubError`.
        """
        found = self._find(marker)
        if found is None:
            response = self._rest.post(f"{self._path}/issues/{self._number}/comments", {"body": body})
        else:
            response = self._rest.patch(f"{self._path}/issues/comments/{found.id}", {"body": body})
        self._require(response, "pull-requests: write")
        return read_as(response, _Made).html_url or ""

    def _find(self, marker: str) -> _Comment | None:
        """Return our own comment with a marker; the first one, should there be several."""
        for page in range(1, _PAGES_MAX + 1):
            path = f"{self._path}/issues/{self._number}/comments"
            response = self._rest.get(path, per_page=_PAGE, page=page)
            self._require(response, "pull-requests: write")
            listed = response.body if response.body.startswith(b"[") else b"[]"
            found = _Comments.model_validate_json(b'{"comments":' + listed + b"}").comments
            for comment in found:
                if comment.user and comment.user.login == BOT and (comment.body or "").startswith(marker):
                    return comment
            if len(found) < _PAGE:
                break
        return None

    def put_check(self, name: str, sha: str, conclusion: Conclusion, *, title: str, summary: str, page: str) -> str:
        """Add a check to the commit `sha` of the pull request; return its page. Raises as `put_comment` does."""
        body = {
            "name": name[:100],
            "head_sha": sha,
            "status": "completed",
            "conclusion": conclusion,
            "details_url": page,
            "output": {"title": title[:255], "summary": summary[: COMMENT_MAX - 1]},
        }
        response = self._rest.post(f"{self._path}/check-runs", body)
        self._require(response, "checks: write")
        return read_as(response, _Made).html_url or ""

    def _require(self, response: Response, permission: str) -> None:
        if response.status in (200, 201):
            return
        if response.status in (403, 404):
            raise RefusedError(
                f"GitHub refuses: {described(response)}", hint=f"give the job the permission `{permission}`"
            )
        raise GitHubError(f"GitHub answers with {described(response)}")
