"""Requests to GitHub's REST API. Import this late: the HTTP layer takes a tenth of a second.

The token goes to the API's own origin and to nowhere else: no redirect and no error message has it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from runnable_ci.errors import UsageError
from runnable_ci.github.api.credentials import ApiToken
from runnable_ci.github.api.errors import GitHubError, GitHubUnavailableError, RateLimitError
from runnable_ci.util.http import Session
from runnable_ci.util.network.waiting import Waiting
from runnable_ci.util.responses import LONGEST_WAIT_S, Response, TransientError, later, one_line, retry
from runnable_ci.util.urls import is_loopback, origin, safe_url

# The newest that GitHub Enterprise Server knows too. Source: GitHub docs, "API Versions".
API_VERSION: Final = "2022-11-28"
RESPONSE_MAX_BYTES: Final = 16 * 1024**2
"""A page of a hundred jobs with a hundred steps each has about 4 MB."""
MOST_REDIRECTS: Final = 3

M = TypeVar("M", bound=BaseModel)


class Rest:
    """One API, used with one token; not safe to share between threads."""

    def __init__(
        self,
        base: str,
        token: ApiToken,
        *,
        environ: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Set up the API; `say` receives a line when a rate limit makes it wait."""
        self.base = _checked(base)
        self._token = token
        self._sleep = sleep
        self._clock = clock
        self._say = say
        self._session = Session(
            environ=environ,
            unavailable=lambda failure: GitHubUnavailableError(failure.message, hint=failure.hint),
            protocol_error=GitHubError,
            response_max_bytes=RESPONSE_MAX_BYTES,
            waiting=Waiting(say),
        )

    @property
    def token_source(self) -> str:
        """Where the token was found."""
        return self._token.source

    def get(self, path: str, **query: str | int) -> Response:
        """Return the response, tried again while the network, GitHub or a rate limit is in the way.

        `path` is relative to the base, its parts made by `segment`. Raises `GitHubError`.
        """
        url = f"{self.base}{path}{'?' if query else ''}{urlencode(query)}"
        return self._retry(lambda: self._raise_if_transient(self._send("GET", url)))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Response:
        """Return the response to a request that starts something.

        It is sent again only if GitHub said that it did not take it. Raises `GitHubError`; it may have been done
        nevertheless where that is a `GitHubUnavailableError`.
        """
        content = None if body is None else json.dumps(body).encode()

        def once() -> Response:
            try:
                return self._raise_if_transient(self._send("POST", f"{self.base}{path}", content))
            except TransientError as failure:
                if isinstance(failure.error, RateLimitError):
                    raise
                raise failure.error from failure

        return self._retry(once)

    def patch(self, path: str, body: Mapping[str, Any]) -> Response:
        """Return the response to a change that may be made twice, tried again as `get` does it.

        Raises `GitHubError`.
        """
        content = json.dumps(body).encode()
        return self._retry(lambda: self._raise_if_transient(self._send("PATCH", f"{self.base}{path}", content)))

    def delete(self, path: str) -> Response:
        """Return the response to a removal, tried again as `get` does it: a second one finds nothing left.

        Raises `GitHubError`.
        """
        return self._retry(lambda: self._raise_if_transient(self._send("DELETE", f"{self.base}{path}")))

    def _retry(self, operation: Callable[[], Response]) -> Response:
        return retry(operation, sleep=self._sleep, waiting=self._report_rate_limit)

    def _report_rate_limit(self, failure: TransientError, delay_s: float, _number: int) -> None:
        if isinstance(failure.error, RateLimitError):
            self._say(f"GitHub's rate limit: continuing in {delay_s:.0f} s")

    def _send(self, method: str, url: str, body: bytes | None = None) -> Response:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self._token.secret}",
            "X-GitHub-Api-Version": API_VERSION,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        stream = self._session.open(
            method,
            url,
            headers=lambda _: headers,
            body=body,
            on_redirect=self._require_here,
            most_redirects=MOST_REDIRECTS,
        )
        response = stream.response(whole=True)
        return replace(response, body=response.body.replace(self._token.secret.encode(), b"***"))

    def _require_here(self, url: str) -> None:
        """Follow the redirect of a renamed repository, but send the token nowhere else."""
        if origin(url) != origin(self.base):
            raise GitHubError(
                f"{self.base} redirects to {safe_url(url)}; nothing was sent there",
                hint="if GitHub's API has moved there, set GITHUB_API_URL",
            )

    def _raise_if_transient(self, response: Response) -> Response:
        wait_s = rate_limit_wait_s(response, now_s=self._clock())
        if wait_s is not None:
            now_s = self._clock()
            error = RateLimitError(until_s=now_s + wait_s, now_s=now_s, message=error_message(response))
            if wait_s > LONGEST_WAIT_S:
                raise error
            raise TransientError(error, asked_s=wait_s)
        if later(response, message="", now_s=self._clock()):
            raise TransientError(
                GitHubUnavailableError(
                    f"{safe_url(response.url)} keeps failing: {described(response)}",
                    hint="https://www.githubstatus.com may say why",
                )
            )
        return response


def segment(text: str) -> str:
    """Return text as one part of a path."""
    return quote(text, safe="")


def error_message(response: Response) -> str:
    """Return what GitHub says went wrong, one printable line of at most 300 characters, perhaps empty."""
    return response.error_message(plain_text=False, max_length=300)


def described(response: Response) -> str:
    """Return status and message of a response."""
    message = error_message(response)
    return f"status {response.status}" + (f": {message}" if message else "")


def read_as(response: Response, model: type[M]) -> M:
    """Return the body, checked. Raises `GitHubError`."""
    try:
        return model.model_validate_json(response.body)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise GitHubError(
            f"{safe_url(response.url)} returned an unexpected response: {one_line(f'{place}: ' if place else '')}"
            f"{one_line(first['msg'])}",
            hint="is this GitHub's API? GITHUB_API_URL sets another",
        ) from e


def rate_limit_wait_s(response: Response, *, now_s: float) -> float | None:
    """Return how many seconds a rate limit wants us to wait; None where the response is no rate limit."""
    found = later(response, message=error_message(response), now_s=now_s)
    if found is None or not found.is_rate_limit:
        return None
    return LONGEST_WAIT_S if found.wait_s is None else found.wait_s


def _checked(base: str) -> str:
    """Return the base of an API, if it may have a token. Raises `UsageError`."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"GITHUB_API_URL: {safe_url(base)} is not the URL of an API", hint="https://HOST/api/v3")
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(f"{safe_url(base)} is plain http: no token is sent there", hint="use https")
    return base.rstrip("/")
