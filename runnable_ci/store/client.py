"""Requests to one repository of one registry: authorised, redirected by hand, tried again where that can help.

Credentials go to the registry itself and to the token server that it names, never to where a redirect, an upload
location or a next page leads.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3

from runnable_ci.errors import StoreError
from runnable_ci.store.access import Credentials, Reference, find_credentials
from runnable_ci.store.auth import Actions, Authorizer
from runnable_ci.store.transport import (
    ANSWER_MAX_BYTES,
    TRIES,
    Answer,
    RegistryProtocolError,
    RegistryUnavailableError,
    Transport,
    TryAgain,
    is_loopback,
    joined,
    origin,
    persist,
    read_answer,
    shown,
    try_again_after,
)

API_HOSTS = {"docker.io": "registry-1.docker.io"}
API_HEADER = "Docker-Distribution-Api-Version"
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
LOGINS = 2  # the first, and one for a token that has expired

T = TypeVar("T")


class Client:
    """Safe to share between threads.

    `path` is relative to the repository's `…/v2/NAME/`, or a whole URL that `require_allowed` has let pass.
    """

    def __init__(
        self,
        where: Reference,
        *,
        environ: Mapping[str, str],
        credentials: Credentials | None,
        plain_http: bool,
        connections: int,
        timeout_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.label = where.repository
        self.sleep = sleep
        self._clock = clock
        self._transport = Transport(
            environ=environ, plain_http=plain_http, connections=connections, timeout_s=timeout_s
        )
        self._may_be_tls = not plain_http and is_loopback(urlsplit(f"//{where.host}").hostname or "")
        scheme = "http" if plain_http or self._may_be_tls else "https"
        self.base = f"{scheme}://{API_HOSTS.get(where.host, where.host)}/v2/{where.path}/"
        self._auth = Authorizer(
            host=where.host,
            path=where.path,
            credentials=lambda: credentials or find_credentials(where.host, environ),
            ask=self._ask_token_server,
            require_allowed=lambda url: self.require_allowed(url, coming_from=self.base),
            clock=clock,
        )

    def ask(
        self,
        method: str,
        path: str,
        actions: Actions,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        at_most: int = ANSWER_MAX_BYTES,
        follow: bool = True,
        tries: int = TRIES,
    ) -> Answer:
        """The answer to a small request, tried again where that can help."""

        def once() -> Answer:
            response, url = self.open(method, path, actions, headers=headers, body=body, follow=follow)
            return self.passing(read_answer(response, url, at_most=at_most))

        return self.persist(once, tries=tries)

    def open(
        self,
        method: str,
        path: str,
        actions: Actions,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
        follow: bool = True,
        longer_s: float = 0.0,
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """One try: the first response that is neither a challenge nor a redirect, unread, and its URL.

        The server may think `longer_s` seconds longer than usual.
        """
        url, logins, hops = urljoin(self.base, path), 0, 0
        while True:
            ours = self.is_ours(url)
            authorization = self._auth.header(actions) if ours else None
            sent = dict(headers or {}) | ({"Authorization": authorization} if authorization else {})
            response = self._transport.send(method, url, headers=sent, body=body, longer_s=longer_s)
            maybe_tls, self._may_be_tls = self._may_be_tls, False
            if ours and response.status == 401 and logins < LOGINS:
                answer = read_answer(response, url)
                self._auth.challenged(answer, sent=authorization)
                logins += 1
                if isinstance(body, io.IOBase):
                    raise TryAgain(self._auth.refusal(answer), delay_s=0.0)
            elif response.status == 400 and maybe_tls and API_HEADER not in response.headers:
                url = self._over_tls(read_answer(response, url))
            elif follow and method in ("GET", "HEAD") and response.status in REDIRECTS:
                hops += 1
                url = self._redirected(read_answer(response, url), hops)
            else:
                return response, url

    def persist(self, operation: Callable[[], T], *, tries: int = TRIES) -> T:
        """What `operation` returns, called again while it raises `TryAgain`."""
        return persist(operation, sleep=self.sleep, tries=tries)

    def passing(self, answer: Answer) -> Answer:
        """The same answer; raises `TryAgain` where it is one that may pass."""
        again, delay_s = try_again_after(answer, now=self._clock())
        if again:
            raise TryAgain(self.unexpected(answer), delay_s=delay_s)
        return answer

    def require(self, answer: Answer, status: int) -> None:
        """Raise the error for an answer with any other status."""
        if answer.status != status:
            raise self.unexpected(answer)

    def require_allowed(self, url: str, *, coming_from: str) -> None:
        """Raise for a URL that may not be spoken to after `coming_from`."""
        self._transport.require_allowed(url, coming_from=coming_from)

    def is_ours(self, url: str) -> bool:
        """Whether the registry's credentials may be sent there."""
        return url.startswith(self.base) or origin(url) == origin(self.base)

    def unexpected(self, answer: Answer) -> StoreError:
        """The error for an answer that was not hoped for, by its cause."""
        where = f"{self.label} (status {answer.status}"
        complaint = self._auth.redacted(answer.complaint())
        where += f": {complaint})" if complaint else ")"
        if not self.is_ours(answer.url):
            return RegistryUnavailableError(
                f"{shown(answer.url)}, where {self.label} keeps its blobs, answers with status {answer.status}",
                hint="run the same command again: finished blobs are kept",
            )
        match answer.status:
            case 401 | 403:
                return self._auth.refusal(answer)
            case 404:
                return RegistryProtocolError(f"no such repository: {where}", hint="check its name, and `docker login`")
            case 405 | 501:
                return RegistryProtocolError(f"not supported by {where}", hint="use the registry's own interface")
            case 413:
                return RegistryProtocolError(f"too large for {where}", hint="ask who runs the registry for its limit")
            case status if status in (408, 425, 429) or status >= 500:
                return RegistryUnavailableError(
                    f"{where} keeps failing", hint="run the same command again later: finished blobs are kept"
                )
            case _:
                return RegistryProtocolError(f"unexpected answer of {where}", hint="is it an OCI registry?")

    def _over_tls(self, answer: Answer) -> str:
        """The same URL by https: how a TLS server on this machine answers a first plain request (no secrets in it).

        A HEAD request's answer has no body that would tell; if it is no TLS server either, the next error says so.
        """
        self.base = "https" + self.base.removeprefix("http")
        return "https" + answer.url.removeprefix("http")

    def _redirected(self, answer: Answer, hops: int) -> str:
        location = answer.headers.get("Location", "")
        if hops > MOST_REDIRECTS or not location:
            raise RegistryProtocolError(f"{shown(answer.url)} redirects without end")
        url = joined(answer.url, location)
        self.require_allowed(url, coming_from=answer.url)
        return url

    def _ask_token_server(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        answer = read_answer(self._transport.send(method, url, headers=headers, body=body), url)
        if answer.status in REDIRECTS:
            raise RegistryProtocolError(
                f"the token server {shown(url)} leads elsewhere; no credentials were sent there"
            )
        return self.passing(answer)
