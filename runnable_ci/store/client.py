"""Requests to one repository of one registry: authorised, redirected, tried again where that can help.

Credentials go to the registry itself and to the token server that it names, never to where a redirect, an upload
location or a next page leads.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

from runnable_ci.errors import RegistryProtocolError, StoreError
from runnable_ci.store.auth import Actions, Advice, Authorizer
from runnable_ci.store.certificates import certificate_folder
from runnable_ci.store.reference import Credentials, Reference, find_credentials
from runnable_ci.util.console import console
from runnable_ci.util.http import Failure, Session, Stream
from runnable_ci.util.network.tls import speaks_tls
from runnable_ci.util.network.waiting import Waiting
from runnable_ci.util.responses import TRIES, Response, TransientError, later
from runnable_ci.util.urls import is_loopback, origin, safe_url

API_HOSTS = {"docker.io": "registry-1.docker.io"}
API_HEADER = "Docker-Distribution-Api-Version"
TLS_PROBE_S = 5.0
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
        advice: Advice | None,
        waiting: Waiting | None,
        mounts_from: str = "",
    ) -> None:
        self._host = where.host
        self.label = where.repository
        self.sleep = sleep
        self._clock = clock
        self._server_ahead_s = 0.0
        self._session = Session(
            environ=environ,
            unavailable=_unavailable,
            protocol_error=RegistryProtocolError,
            plain_http=plain_http,
            connections=connections,
            timeout_s=timeout_s,
            waiting=waiting or Waiting(console.err),
            certificates=lambda host: certificate_folder(host, environ),
        )
        self._may_be_tls = not plain_http and is_loopback(urlsplit(f"//{where.host}").hostname or "")
        scheme = "http" if plain_http or self._may_be_tls else "https"
        self.base = f"{scheme}://{API_HOSTS.get(where.host, where.host)}/v2/{where.path}/"
        self._auth = Authorizer(
            host=where.host,
            path=where.path,
            credentials=lambda: credentials or find_credentials(where.host, environ, path=where.path),
            ask=self._ask_token_server,
            require_allowed=lambda url: self._session.require_allowed(url, coming_from=self.base),
            clock=clock,
            advice=advice,
            mounts_from=mounts_from,
        )

    def request(
        self,
        method: str,
        path: str,
        actions: Actions,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        at_most: int | None = None,
        follow: bool = True,
        tries: int = TRIES,
    ) -> Response:
        """Return the response to a small request, tried again where that can help."""

        def once() -> Response:
            stream = self.open(method, path, actions, headers=headers, body=body, follow=follow)
            response = stream.response(at_most=at_most)
            here_s = self._clock()
            self._server_ahead_s = response.server_time_s(here_s) - here_s
            return self.raise_if_transient(response)

        return self.retry(once, tries=tries)

    def server_now_s(self) -> float:
        """Return the server's clock, as far as its last answer tells; in seconds since 1970."""
        return self._clock() + self._server_ahead_s

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
    ) -> Stream:
        """Try once: return the first response that is neither a challenge nor a redirect, unread.

        The server may think `longer_s` seconds longer than usual.
        """
        url, logins, is_last = urljoin(self.base, path), 0, False

        def authorized(url: str) -> Mapping[str, str]:
            authorization = self._auth.header(actions) if self.is_ours(url) else None
            return dict(headers or {}) | ({"Authorization": authorization} if authorization else {})

        while True:
            maybe_tls, self._may_be_tls = self._may_be_tls, False
            try:
                stream = self._session.open(
                    method,
                    url,
                    headers=authorized,
                    body=body,
                    on_redirect=_may_be_anywhere if follow else None,
                    longer_s=longer_s,
                )
            except TransientError:
                if not maybe_tls or isinstance(body, io.IOBase) or not self._finds_tls():
                    self._may_be_tls = maybe_tls  # as there was no answer yet
                    raise
                url = urljoin(self.base, path)
                continue
            if stream.status == 401 and self.is_ours(stream.url) and logins < LOGINS:
                logins += 1
                response = stream.response()
                self._auth.challenged(response, sent=stream.request_headers.get("Authorization"))
                if isinstance(body, io.IOBase):
                    raise TransientError(self._auth.refusal(response), delay_s=0.0, tries=LOGINS + 1)
            elif (
                stream.status in (401, 403)
                and not is_last
                and self._auth.can_do_without(actions, sent=stream.request_headers.get("Authorization"))
            ):
                is_last = True
                self.raise_if_transient(stream.response())
                self._auth.read_anonymously()
            elif stream.status == 400 and maybe_tls and API_HEADER not in stream.headers and self._finds_tls():
                stream.close()
                url = urljoin(self.base, path)
            else:
                return stream

    def be_silent(self) -> None:
        """Say nothing from now on of servers that are waited for."""
        self._session.waiting = Waiting(lambda _text: None)

    def give_up_after(self, silent_s: float) -> None:
        """From now on give a server up that is silent for so long."""
        self._session.timeout_s = silent_s

    def retry(self, operation: Callable[[], T], *, tries: int = TRIES) -> T:
        """Call `operation` again while it raises `TransientError`."""
        return self._session.waiting.retry(self._host, operation, sleep=self.sleep, tries=tries)

    def raise_if_transient(self, response: Response) -> Response:
        """Return the same response; raise `TransientError` for one that may be another one later."""
        found = later(response, message=response.error_message(), now_s=self._clock())
        if found is not None:
            raise TransientError(self.unexpected(response), asked_s=found.wait_s)
        return response

    def require_ok(self, response: Response) -> None:
        """Raise the error for a response that is no success."""
        if not response.ok:
            raise self.unexpected(response)

    def location(self, response: Response) -> str:
        """Return where a response's `Location` points to, perhaps nowhere. Raises for a forbidden server."""
        if not response.headers.get("Location"):
            return ""
        url = self.join(response.url, response.headers["Location"])
        self._session.require_allowed(url, coming_from=response.url)
        return url

    def join(self, base: str, location: str) -> str:
        """Return where a location leads from a URL. Raises `RegistryProtocolError` where that is no URL at all."""
        return self._session.join(base, location)

    def is_ours(self, url: str) -> bool:
        """Return whether the registry's credentials may be sent there."""
        return origin(url) == origin(self.base)

    def error_message(self, response: Response) -> str:
        """Return what the server says went wrong, without any of our secrets."""
        return self._auth.error_message(response)

    def unexpected(self, response: Response) -> StoreError:
        """Return the error for a response that was not hoped for, by its cause."""
        message = self.error_message(response)
        where = f"{self.label} (status {response.status}{': ' + message if message else ''})"
        if not self.is_ours(response.url):
            return StoreError(
                f"{safe_url(response.url)}, the blob storage of {self.label}, returned status {response.status}",
                hint="run the same command again: finished blobs are kept",
            )
        match response.status:
            case 401 | 403:
                return self._auth.refusal(response)
            case 404:
                return RegistryProtocolError(f"no such repository: {where}", hint="check its name, and `docker login`")
            case 405 | 501:
                return RegistryProtocolError(f"not supported by {where}", hint="use the registry's own interface")
            case 413:
                return RegistryProtocolError(f"too large for {where}", hint="ask the registry's operator for its limit")
            case status if status in (408, 425, 429) or status >= 500:
                return StoreError(
                    f"{where} keeps failing", hint="run the same command again later: finished blobs are kept"
                )
            case _:
                return RegistryProtocolError(f"unexpected response of {where}", hint="is it an OCI registry?")

    def _finds_tls(self) -> bool:
        """Return whether a server of this machine that makes nothing of plain HTTP speaks TLS; it is used then."""
        _, host, port = origin(self.base)
        found = speaks_tls(host, port, timeout_s=min(TLS_PROBE_S, self._session.timeout_s))
        if found:
            self.base = "https" + self.base.removeprefix("http")
        return found

    def _ask_token_server(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        response = self._session.open(method, url, headers=lambda _: headers, body=body).response()
        if 300 <= response.status < 400:
            raise RegistryProtocolError(
                f"the token server {safe_url(url)} redirects to another server; no credentials were sent there"
            )
        return self.raise_if_transient(response)


def _may_be_anywhere(_url: str) -> None:
    """Allow a registry to store its blobs on any permitted server."""


def _unavailable(failure: Failure) -> StoreError:
    then = "then run the same command"
    match failure.kind:
        case "refused":
            return StoreError(f"connection refused by {failure.host}", hint=f"{failure.hint}; {then}")
        case "lost":
            return StoreError(failure.message, hint=f"{failure.hint}, {then}: finished blobs are kept")
        case "untrusted":
            return StoreError(failure.message, hint=failure.hint)
