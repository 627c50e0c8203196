"""The one HTTP layer, on the adapter of `requests`: TLS, proxies, time-outs, bounded bodies, redirects.

A `requests.Session` is not used: it follows redirects by reading whole bodies, keeps cookies, takes proxies from the
process's environment, and sends what `~/.netrc` has in place of our token. Import this late: it takes 0.1 s.
"""

from __future__ import annotations

import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.util.network.pace import PacedConnection, SlowError
from runnable_ci.util.network.request_log import log_request
from runnable_ci.util.network.tls import tls_context, tls_hint
from runnable_ci.util.network.waiting import Waiting
from runnable_ci.util.responses import TRIES, Response, TransientError, one_line
from runnable_ci.util.urls import host_of, is_loopback, origin, proxy_of, safe_url

CONNECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 60.0
SILENT_TRIES = 3
"""For a server that says nothing: each of these takes as long as the time-out."""
MOST_REDIRECTS = 5
RESPONSE_MAX_BYTES = 64 * 1024
SEND_BYTES = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPING_METHOD = (307, 308)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no response, in words that hold no secret."""

    kind: Literal["refused", "untrusted", "lost"]
    """Nothing listens there; TLS says that it is another; anything else, which may pass."""
    host: str
    message: str
    hint: str


class Session:
    """Connections to servers, kept open and shared by threads. Nothing is sent again by itself.

    `environ` has proxies (`HTTPS_PROXY`, `NO_PROXY`, …) and certificate authorities (`REQUESTS_CA_BUNDLE`,
    `CURL_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR`; the system's and certifi's where none is set).
    `unavailable` makes the error for a server that cannot be reached, `protocol_error` that for one that misbehaves.
    `waiting` says for whom we wait. `certificates` returns the folder that a host, with its port as a URL has it, has
    of its own.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        unavailable: Callable[[Failure], RunnableError],
        protocol_error: type[RunnableError],
        plain_http: bool = False,
        connections: int = 1,
        timeout_s: float = READ_TIMEOUT_S,
        response_max_bytes: int = RESPONSE_MAX_BYTES,
        waiting: Waiting | None = None,
        certificates: Callable[[str], Path | None] = lambda _: None,
    ) -> None:
        self.waiting = waiting or Waiting(lambda _: None)
        self.timeout_s = timeout_s
        self.response_max_bytes = response_max_bytes
        self.protocol_error = protocol_error
        self._unavailable = unavailable
        self._environ = environ
        self._plain_http = plain_http
        self._connections = connections
        self._certificates = certificates
        self._adapters: dict[tuple[str, Path | None], HTTPAdapter] = {}
        self._lock = threading.Lock()

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Callable[[str], Mapping[str, str]],
        body: bytes | BinaryIO | None = None,
        on_redirect: Callable[[str], None] | None = None,
        most_redirects: int = MOST_REDIRECTS,
        longer_s: float = 0.0,
    ) -> Stream:
        """Send a request, and return the first response that is no redirect, its body unread.

        `headers` are made for each URL, so that credentials reach their own origin only. `on_redirect` gets each
        URL that the server redirects to, and raises where it may not be followed; without it a redirect is returned.
        The server may be silent for `longer_s` seconds longer than usual.
        Raises `TransientError`, `protocol_error`, `UsageError`.
        """
        for _ in range(most_redirects + 1):
            stream = self._send(method, url, headers(url), body, longer_s)
            redirects = _REDIRECTS if method in ("GET", "HEAD") else _KEEPING_METHOD
            if on_redirect is None or stream.status not in redirects:
                return stream
            if isinstance(body, io.IOBase):
                if not body.seekable():
                    return stream
                body.seek(0)
            url = self._redirected(stream)
            on_redirect(url)
        raise self.protocol_error(f"{safe_url(url)} redirects in a loop")

    def require_allowed(self, url: str, *, coming_from: str = "") -> None:
        """Refuse plain http to other machines, and any step down from https to http."""
        parts = urlsplit(self.join(url, ""))
        if parts.scheme == "https" and parts.hostname:
            return
        if parts.scheme != "http" or not parts.hostname or coming_from.startswith("https:"):
            raise self.protocol_error(
                f"{safe_url(coming_from) or 'the server'} redirects to {safe_url(url) or 'nowhere'}, "
                "which is not https",
                hint="nothing was sent there; ask the server's operator",
            )
        if not self._plain_http and not is_loopback(parts.hostname):
            raise UsageError(
                f"{safe_url(url)} is plain http", hint="use https, or --plain-http only on a trusted network"
            )

    def join(self, base: str, location: str) -> str:
        """Return where a location leads from a URL. Raises `protocol_error` where that is no URL at all."""
        try:
            url = urljoin(base, location)
            origin(url)
        except ValueError as error:
            raise self.protocol_error(
                f"{safe_url(base)} redirects to an unusable URL: {one_line(str(error))}"
            ) from error
        return url

    def as_transient_error(self, error: Exception, url: str) -> TransientError:
        """Return the network's failure as a reason to try again; raise at once what a new try cannot fix."""
        causes = list(_causes(error))
        reason = _reason(causes)
        if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError) for cause in causes):
            hint = next(filter(None, map(tls_hint, causes)), "")
            failure = Failure(
                "untrusted", host_of(url), f"no trusted TLS connection to {safe_url(url)}: {reason}", hint
            )
            raise self._unavailable(failure) from error
        by_proxy = any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes)
        refused = not by_proxy and any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        hint = "check that it is running, and the port" if refused else "check the name and the network"
        message = f"the connection to {safe_url(url)} failed: {reason}"
        failure = Failure("refused" if refused else "lost", host_of(url), message, hint)
        is_silence = any(isinstance(cause, TimeoutError) for cause in causes)
        return TransientError(self._unavailable(failure), tries=SILENT_TRIES if is_silence else TRIES)

    def _redirected(self, stream: Stream) -> str:
        location = stream.response(whole=True).headers.get("Location", "")
        if not location:
            raise self.protocol_error(f"{safe_url(stream.url)} redirects without a location")
        url = self.join(stream.url, location)
        self.require_allowed(url, coming_from=stream.url)
        return url

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None, longer_s: float
    ) -> Stream:
        self.require_allowed(url)
        usual = {"User-Agent": "runnable-ci", "Accept-Encoding": "identity"}  # so that nothing small becomes large
        scheme, proxy = urlsplit(url).scheme, proxy_of(url, self._environ)
        timeout = (min(CONNECT_TIMEOUT_S, self.timeout_s), self.timeout_s + longer_s)
        began_s, outcome = time.monotonic(), "no response"
        try:
            # without `auth` a user and password in a URL that a server sent would take our header's place
            request = requests.Request(method, url, headers={**usual, **headers}, data=body, auth=lambda it: it)
            with self.waiting.on(host_of(url)):
                reply = self._adapter(url).send(
                    request.prepare(), stream=True, timeout=timeout, proxies={scheme: proxy} if proxy else {}
                )
            outcome = f"status {reply.status_code}"
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            if proxy is None:
                raise self.protocol_error(f"{safe_url(url)} is not a usable URL") from error
            raise UsageError(f"the proxy {safe_url(proxy)} cannot be used", hint="only http(s) proxies can") from error
        except (requests.RequestException, HTTPError) as error:
            raise self.as_transient_error(error, url) from error
        finally:
            log_request(method, url, outcome, began_s=began_s)
        return Stream(self, reply.raw, url, headers)

    def _adapter(self, url: str) -> HTTPAdapter:
        is_tls = urlsplit(url).scheme == "https"
        own = ("https", self._certificates(host_of(url))) if is_tls else ("http", None)
        with self._lock:
            if own not in self._adapters:
                context = tls_context(self._environ, own[1]) if is_tls else None
                self._adapters[own] = _Adapter(context, connections=self._connections)
            return self._adapters[own]


class Stream:
    """An open response, its body to be read once."""

    def __init__(self, session: Session, raw: BaseHTTPResponse, url: str, request_headers: Mapping[str, str]) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = url
        self.request_headers = request_headers
        self._session = session
        self._raw = raw

    def read(self, size: int, *, decode: bool = False) -> bytes:
        """Return up to `size` bytes, none at the end. Raises `TransientError` where the connection breaks."""
        try:
            with self._session.waiting.on(host_of(self.url)):
                return self._raw.read1(size, decode_content=decode)
        except HTTPError as error:
            self.close()
            raise self._session.as_transient_error(error, self.url) from error

    def response(self, *, at_most: int | None = None, whole: bool = False) -> Response:
        """Return the response with the start of its body; a connection with more to come is closed.

        A server may compress what it was asked not to: what it unpacks to is bounded. With `whole` a longer body raises
        the session's `protocol_error`.
        """
        limit = self._session.response_max_bytes if at_most is None else at_most
        body = bytearray()
        while len(body) <= limit and (chunk := self.read(limit + 1 - len(body), decode=True)):
            body += chunk
        if len(body) > limit:
            self.close()
            if whole:
                size = f"{limit // 1024**2} MiB" if limit >= 1024**2 else f"{limit // 1024} KiB"
                raise self._session.protocol_error(f"the response of {safe_url(self.url)} is longer than {size}")
        return Response(self.status, self.headers, bytes(body[:limit]), self.url)

    def close(self) -> None:
        """End the connection, unless the body was read to its end."""
        self._raw.close()


class _Connection(PacedConnection, HTTPConnection):
    """Plain http."""


class _TlsConnection(PacedConnection, HTTPSConnection):
    """The same through TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}


class _Adapter(HTTPAdapter):
    """Checks certificates by one context, made once, and sends bodies in large pieces."""

    def __init__(self, context: ssl.SSLContext | None, *, connections: int) -> None:
        self._pool_options: dict[str, Any] = {"blocksize": SEND_BYTES} | ({"ssl_context": context} if context else {})
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Make connections with our options."""
        super().init_poolmanager(connections, maxsize, block, **{**options, **self._pool_options})
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Make connections through a proxy with our options."""
        manager = super().proxy_manager_for(proxy, **{**options, **self._pool_options})
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, *_: Any) -> None:
        """Leave a connection's authorities to the context: `requests` would load certifi's again for each one."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it came of: `requests` and urllib3 keep those in four places."""
    pending, seen = [error], set[int]()
    while pending:
        cause = pending.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
            pending += [each for each in inner if isinstance(each, BaseException)]


def _reason(causes: list[BaseException]) -> str:
    """Return what went wrong, without any text that may hold a URL: one of a proxy or a storage may have a secret."""
    for cause in causes:
        match cause:
            case requests.exceptions.ProxyError():
                return "the proxy does not answer"
            case SlowError():
                return str(cause)
            case TimeoutError():
                return "timed out"
            case ssl.SSLCertVerificationError():
                return cause.verify_message
            case ssl.SSLError():
                return (cause.reason or "TLS error").replace("_", " ").lower()
    system = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
    return system[:1].lower() + system[1:] or "the connection was closed"
