"""Requests to GitHub's REST API: the only importer of `requests`, which takes a tenth of a second; import this late.

The token goes to the API's own origin and to nowhere else: no redirect, no `~/.netrc`, no error message has it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import requests
from pydantic import BaseModel, ValidationError
from requests.adapters import HTTPAdapter

from runnable_ci.errors import UsageError
from runnable_ci.github.credentials import Token
from runnable_ci.github.refusals import GitHubError, GitHubProtocolError, GitHubUnavailableError, RateLimitError
from runnable_ci.http import CA_VARIABLES, tls_context
from runnable_ci.text import printable
from runnable_ci.urls import is_loopback, origin, proxy_of
from runnable_ci.urls import safe_url as shown

# The newest that GitHub Enterprise Server knows too. Source: GitHub docs, "API Versions".
API_VERSION: Final = "2022-11-28"
TRIES: Final = 5
TIMEOUT_S: Final = (10.0, 60.0)
"""To connect, and between two pieces of an answer."""
ANSWER_MAX_BYTES: Final = 16 * 1024**2
"""A page of a hundred jobs with a hundred steps each has about 4 MB."""
LONGEST_WAIT_S: Final = 60.0
"""For a rate limit; a longer one is an error that says until when."""
MOST_REDIRECTS: Final = 3
_KEEPING_METHOD: Final = (307, 308)
_REDIRECTS: Final = (301, 302, *_KEEPING_METHOD)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def message(self) -> str:
        """What GitHub says went wrong, one printable line of at most 300 characters, perhaps empty."""
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            return ""
        message = parsed.get("message") if isinstance(parsed, dict) else None
        return printable(" ".join(message.split())[:300]) if isinstance(message, str) else ""

    def read_as(self, model: type[M]) -> M:
        """The body, checked. Raises `GitHubProtocolError`."""
        try:
            return model.model_validate_json(self.body)
        except ValidationError as e:
            first = e.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise GitHubProtocolError(
                f"{shown(self.url)} answers as no GitHub does: {printable(place + ': ' if place else '')}"
                f"{printable(first['msg'])[:200]}",
                hint="is it GitHub's API? GITHUB_API_URL names another",
            ) from e

    def server_time_s(self, otherwise: float) -> float:
        """The server's clock when it answered, in seconds since 1970."""
        try:
            return parsedate_to_datetime(self.headers.get("Date", "")).timestamp()
        except (ValueError, OverflowError):
            return otherwise


class Rest:
    """One API, spoken to with one token; not safe to share between threads."""

    def __init__(
        self,
        base: str,
        token: Token,
        *,
        environ: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`say` gets a line where a rate limit makes us wait."""
        self.base = _checked(base)
        self._token = token
        self._sleep = sleep
        self._clock = clock
        self._say = say
        self._session = _Session()
        self._session.trust_env = False  # it would also read ~/.netrc, and put what is there in the token's place
        parts = urlsplit(self.base)
        if parts.scheme == "https":
            self._session.mount("https://", _Trusting(environ))
            self._session.verify = next((environ[name] for name in CA_VARIABLES if environ.get(name)), True)
        if proxy := proxy_of(self.base, environ):
            self._session.proxies = {parts.scheme: proxy}

    def get(self, path: str, **query: str | int) -> Answer:
        """The answer of any status that will not pass; tried again while the network, GitHub or a limit is in the way.

        `path` is relative to the base, its parts made by `segment`. Raises `GitHubError`.
        """
        parameters = {name: str(value) for name, value in query.items()}
        for attempt in range(TRIES - 1):
            try:
                return self._passed(self._send("GET", path, parameters, None))
            except _TryAgain as again:
                if again.delay_s is None:
                    self._sleep(_backoff_s(attempt))
                else:
                    self._pause(again.delay_s)
        try:
            return self._passed(self._send("GET", path, parameters, None))
        except _TryAgain as again:
            raise again.error from again

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """The answer to a request that starts something: sent again only if GitHub said that it did not take it.

        Raises `GitHubError`; it may have been done all the same where that is a `GitHubUnavailableError`.
        """
        for attempt in range(TRIES):
            try:
                answer = self._send("POST", path, {}, body)
            except _TryAgain as again:
                raise again.error from again
            wait = wait_s(answer, now_s=self._clock())
            if wait is None:
                if answer.status >= 500:
                    raise self._failing(answer)
                return answer
            if wait > LONGEST_WAIT_S or attempt == TRIES - 1:
                raise self._limited(answer, wait)
            self._pause(wait)
        raise AssertionError("the last try returns or raises")

    def _pause(self, wait: float) -> None:
        self._say(f"GitHub's rate limit: going on in {wait:.0f} s")
        self._sleep(wait)

    @property
    def token_source(self) -> str:
        """Where the token was found."""
        return self._token.source

    def _send(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Answer:
        url = f"{self.base}{path}"
        for _ in range(MOST_REDIRECTS + 1):
            answer = self._once(method, url, query, body)
            if answer.status not in (_REDIRECTS if method == "GET" else _KEEPING_METHOD):
                return answer
            url, query = self._redirected(answer), {}
        raise GitHubProtocolError(f"{shown(url)} redirects without end")

    def _once(self, method: str, url: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Answer:
        headers = {
            "Accept": "application/vnd.github+json",
            "Accept-Encoding": "identity",  # so that no small answer can become a large one
            "Authorization": f"Bearer {self._token.secret}",
            "User-Agent": "runnable-ci",
            "X-GitHub-Api-Version": API_VERSION,
        }
        try:
            with self._session.request(
                method,
                url,
                params=query,
                json=body,
                headers=headers,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = bytearray()
                for chunk in response.iter_content(1 << 16):
                    content += chunk
                    if len(content) > ANSWER_MAX_BYTES:
                        raise GitHubProtocolError(
                            f"the answer of {shown(url)} is longer than {ANSWER_MAX_BYTES // 1024**2} MiB"
                        )
                body_read = bytes(content).replace(self._token.secret.encode(), b"***")
                return Answer(response.status_code, response.headers, body_read, url)
        except requests.exceptions.SSLError as e:
            raise GitHubUnavailableError(
                f"no trusted TLS connection to {shown(url)}",
                hint="for a private certificate authority set SSL_CERT_FILE to its certificate",
            ) from e
        except requests.RequestException as e:
            raise _TryAgain(
                GitHubUnavailableError(
                    f"the connection to {shown(url)} failed: {_reason(e)}", hint="check the name and the network"
                )
            ) from e

    def _redirected(self, answer: Answer) -> str:
        """Where a repository that was renamed is now. Raises for anywhere but this API."""
        try:
            url = urljoin(answer.url, answer.headers.get("Location", ""))
            is_here = origin(url) == origin(self.base) and url != answer.url
        except ValueError:
            url, is_here = "", False
        if not is_here:
            raise GitHubProtocolError(
                f"{shown(answer.url)} leads to {shown(url) or 'nowhere'}; nothing was sent there",
                hint="if GitHub is there now, set GITHUB_API_URL",
            )
        return url

    def _passed(self, answer: Answer) -> Answer:
        wait = wait_s(answer, now_s=self._clock())
        if wait is not None:
            error = self._limited(answer, wait)
            if wait > LONGEST_WAIT_S:
                raise error
            raise _TryAgain(error, delay_s=wait)
        if answer.status in (408, 425) or answer.status >= 500:
            raise _TryAgain(self._failing(answer))
        return answer

    def _limited(self, answer: Answer, wait: float) -> RateLimitError:
        now = self._clock()
        return RateLimitError(until_s=now + wait, now_s=now, message=answer.message())

    def _failing(self, answer: Answer) -> GitHubUnavailableError:
        return GitHubUnavailableError(
            f"{shown(answer.url)} keeps failing: {described(answer)}", hint="https://www.githubstatus.com may say why"
        )


class _TryAgain(Exception):  # noqa: N818 (not an error: the error is inside)
    """A try failed in a way that may pass: `error` is what to report when it does not."""

    def __init__(self, error: GitHubError, *, delay_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.delay_s = delay_s


class _Session(requests.Session):
    """Leaves redirects alone: requests would read all of such an answer, however long, and trip over a bad URL."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """There is none."""


class _Trusting(HTTPAdapter):
    """Checks certificates against the authorities that the environment names, else the system's and certifi's."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._context = tls_context(environ)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """With our context."""
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """With our context."""
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)


def segment(text: str) -> str:
    """Text as one part of a path."""
    return quote(text, safe="")


def described(answer: Answer) -> str:
    """Status and message of an answer."""
    message = answer.message()
    return f"status {answer.status}" + (f": {message}" if message else "")


def wait_s(answer: Answer, *, now_s: float) -> float | None:
    """How many seconds a rate limit wants us to wait; None where the answer is no rate limit.

    Source: GitHub docs, "Rate limits for the REST API", exceeding the rate limit.
    """
    if answer.status not in (403, 429):
        return None
    after = answer.headers.get("Retry-After", "").strip()
    used_up = answer.headers.get("X-RateLimit-Remaining", "").strip() == "0"
    reset = answer.headers.get("X-RateLimit-Reset", "").strip()
    if after.isdecimal() and len(after) < 7:
        return float(after)
    if used_up and reset.isdecimal() and len(reset) < 12:
        return max(1.0, float(reset) - answer.server_time_s(now_s) + 1.0)
    if answer.status == 429 or "rate limit" in answer.message().lower():
        return LONGEST_WAIT_S
    return None


def _backoff_s(attempt: int) -> float:
    return float(2.0**attempt * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)


def _reason(error: requests.RequestException) -> str:
    """What went wrong, without URLs: a proxy's may hold a password."""
    match error:
        case requests.exceptions.ProxyError():
            return "the proxy does not answer"
        case requests.Timeout():
            return "no answer in time"
        case requests.ConnectionError():
            text = str(error)
            known = ("Name or service not known", "Temporary failure in name resolution", "Connection refused")
            return next((reason.lower() for reason in known if reason in text), "the connection broke")
        case _:
            return "the answer broke off"


def _checked(base: str) -> str:
    """The base of an API, if it may have a token. Raises `UsageError`."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"GITHUB_API_URL: {shown(base)} is not the URL of an API", hint="https://HOST/api/v3")
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(f"{shown(base)} is plain http: no token is sent there", hint="use https")
    return base.rstrip("/")
