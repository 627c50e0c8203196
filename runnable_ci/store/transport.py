"""HTTP as a registry needs it: streamed, with time-outs, through the usual proxies and certificates.

Nothing is followed, inflated, tried again or authorised behind the caller's back, and `~/.netrc` is not read: this is
urllib3, which `requests` itself sends with, without its own retries, redirects and decoding (and at half the cost of
`requests` for a small blob).
"""

from __future__ import annotations

import ipaddress
import json
import random
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # missing in typeshed

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError

from runnable_ci.errors import StoreError, UsageError

TRIES = 5
CONNECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 120.0
LONGEST_WAIT_S = 60.0
ANSWER_MAX_BYTES = 64 * 1024
SEND_BYTES = 256 * 1024
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
UNREADABLE = re.compile(r"[^\x20-\x7e]+")
RETRY_MESSAGE = re.compile(r"retry[- ]after:?\s*([0-9.]+)\s*(µs|ms|s|m)?", re.IGNORECASE)
SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}

T = TypeVar("T")


class RegistryAuthError(StoreError):
    """The registry does not let us in, or not that far."""


class RegistryUnavailableError(StoreError):
    """The registry cannot be reached or keeps failing; the same command may work later."""


class RegistryProtocolError(StoreError):
    """The server answers in a way that no registry should; nothing of the answer was used."""


class TryAgain(Exception):  # noqa: N818 (not an error: what `persist` acts upon; the error is inside)
    """A try failed in a way that may pass: `error` is what to report when it does not."""

    def __init__(self, error: StoreError, *, delay_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read: at most as many bytes of its body as were asked for, never decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def complaint(self) -> str:
        """What the server says went wrong, one printable line of at most 200 characters, perhaps empty.

        Source: OCI distribution-spec v1.1, error codes.
        """
        try:
            error = json.loads(self.body)["errors"][0]
            text = f"{error.get('code', '')}: {error.get('message', '')}"
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            text = "" if b"<" in self.body else self.body.decode("utf-8", "replace")
        return UNREADABLE.sub(" ", text).strip(" :")[:200]


class Transport:
    """The connections of one client, kept open and shared by its threads.

    `environ` gives proxies (`HTTPS_PROXY`, `NO_PROXY`, …) and certificate authorities (`REQUESTS_CA_BUNDLE`,
    `CURL_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR`; the system's and certifi's where none is set).
    """

    def __init__(self, *, environ: Mapping[str, str], plain_http: bool, connections: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._environ = environ
        self._plain_http = plain_http
        self._connections = connections
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | BinaryIO | None = None,
        longer_s: float = 0.0,
    ) -> urllib3.BaseHTTPResponse:
        """One request, one response, its body unread. Raises `TryAgain` where the network fails."""
        self.require_allowed(url)
        try:
            return self._pool(url).urlopen(
                method,
                url,
                body=body,
                headers={"User-Agent": "runnable-ci", "Accept-Encoding": "identity", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(
                    connect=min(CONNECT_TIMEOUT_S, self._timeout_s), read=self._timeout_s + longer_s
                ),
            )
        except HTTPError as error:
            raise lost(error, url) from error

    def require_allowed(self, url: str, *, coming_from: str = "") -> None:
        """Refuse plain http to other machines, and any step down from https to http."""
        parts = urlsplit(joined(url, ""))
        if parts.scheme == "https" and parts.hostname:
            return
        if parts.scheme != "http" or not parts.hostname or coming_from.startswith("https:"):
            raise RegistryProtocolError(
                f"{shown(coming_from) or 'the registry'} leads to {shown(url)}, which is not https",
                hint="nothing was sent there; ask who runs the registry",
            )
        if not self._plain_http and not is_loopback(parts.hostname):
            raise UsageError(f"{shown(url)} is plain http", hint="use https, or --plain-http if nobody can listen in")

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc.rpartition("@")[2])
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(parts.scheme, proxy_of(*key, self._environ))
            return self._pools[key]

    def _new_pool(self, scheme: str, proxy: str | None) -> urllib3.PoolManager:
        context = tls_context(self._environ) if scheme == "https" else None
        if proxy is None:
            return urllib3.PoolManager(maxsize=self._connections, blocksize=SEND_BYTES, ssl_context=context)
        try:
            userinfo = urllib3.util.parse_url(proxy).auth
            return urllib3.ProxyManager(
                proxy,
                maxsize=self._connections,
                blocksize=SEND_BYTES,
                ssl_context=context,
                proxy_headers=urllib3.make_headers(proxy_basic_auth=userinfo) if userinfo else None,
            )
        except HTTPError as error:
            raise UsageError(f"the proxy {shown(proxy)} cannot be used", hint="only http(s) proxies can") from error


def read_answer(response: urllib3.BaseHTTPResponse, url: str, *, at_most: int = ANSWER_MAX_BYTES) -> Answer:
    """The response with the start of its body; a connection with more to come is closed, not drained."""
    try:
        body = response.read(at_most + 1, decode_content=False)
        if len(body) > at_most:
            response.close()
        else:
            response.release_conn()
    except HTTPError as error:
        raise lost(error, url) from error
    return Answer(response.status, response.headers, body[:at_most], url)


def lost(error: HTTPError, url: str) -> TryAgain:
    """The network's failure as a reason to try again; raises at once what a new try cannot mend."""
    if isinstance(error, NewConnectionError) and isinstance(error.__cause__, ConnectionRefusedError):
        host = UNREADABLE.sub("?", urlsplit(url).netloc.rpartition("@")[2])
        hint = "check that it runs, and the port; then run the same command: finished blobs are kept"
        return TryAgain(RegistryUnavailableError(f"connection refused by {host}", hint=hint))
    reason = redacted(UNREADABLE.sub(" ", str(getattr(error, "reason", None) or error)))[:200]
    where = shown(url)
    if isinstance(error, SSLError) or "CERTIFICATE_VERIFY_FAILED" in reason:
        raise RegistryUnavailableError(
            f"no trusted TLS connection to {where}: {reason}",
            hint="for a private certificate authority set SSL_CERT_FILE to its certificate"
            if "CERTIFICATE" in reason
            else "if it speaks plain http, and nobody can listen in: --plain-http",
        ) from error
    return TryAgain(
        RegistryUnavailableError(
            f"the connection to {where} failed: {reason}",
            hint="check the name and the network, then run the same command: finished blobs are kept",
        )
    )


def persist(operation: Callable[[], T], *, sleep: Callable[[float], None], tries: int = TRIES) -> T:
    """What `operation` returns, called again (with growing, jittered waits) each time that it raises `TryAgain`."""
    for attempt in range(tries - 1):
        try:
            return operation()
        except TryAgain as again:
            sleep(backoff_s(attempt) if again.delay_s is None else again.delay_s)
    try:
        return operation()
    except TryAgain as again:
        raise again.error from again


def backoff_s(attempt: int) -> float:
    """Seconds to wait after try number `attempt`, counted from 0: 1, 2, 4, 8, … less up to half by chance."""
    return float(min(LONGEST_WAIT_S, 2.0**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)


def try_again_after(answer: Answer, *, now: float) -> tuple[bool, float | None]:
    """Whether the same request may work later, and the wait in seconds (at most 60) that the server asks for.

    GitHub's container registry says 403 where it means 429 ("secondary rate limit"), with the wait in its message; an
    answer to HEAD has none, and only the header tells.
    """
    limited = answer.status == 403 and (b"rate limit" in answer.body.lower() or "Retry-After" in answer.headers)
    passing = answer.status in (408, 425, 429) or (answer.status >= 500 and answer.status not in (501, 505))
    if not (limited or passing):
        return False, None
    wait = _stated_wait(answer, now)
    if wait is None:
        return True, LONGEST_WAIT_S if limited else None
    return True, min(max(wait, 0.0), LONGEST_WAIT_S)


def _stated_wait(answer: Answer, now: float) -> float | None:
    stated = answer.headers.get("Retry-After", "").strip()
    if stated.isdecimal() and len(stated) < 10:
        return float(stated)
    if stated:
        try:
            return parsedate_to_datetime(stated).timestamp() - now
        except (ValueError, OverflowError):
            return None
    if told := RETRY_MESSAGE.search(answer.body.decode("utf-8", "replace")):
        try:
            return float(told[1]) * SECONDS[(told[2] or "s").lower()]
        except ValueError:
            return None
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, no port) is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def joined(base: str, location: str) -> str:
    """Where a location leads from a URL. Raises `RegistryProtocolError` where that is no URL at all."""
    try:
        url = urljoin(base, location)
        _ = urlsplit(url).port
    except ValueError as error:
        raise RegistryProtocolError(
            f"{shown(base)} leads to an unusable URL: {UNREADABLE.sub('?', str(error))}"
        ) from error
    return url


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def shown(url: str) -> str:
    """A URL as an error may print it: no user, no query (signed URLs carry secrets there), no odd characters."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unusable URL"
    return UNREADABLE.sub("?", f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]) if url else ""


def redacted(text: str) -> str:
    """Text of another library without the query of any URL in it, and without users in front of hosts."""
    return re.sub(r"//[^/@\s]*@", "//***@", re.sub(r"\?[^\s)\"']*", "?…", text))


def proxy_of(scheme: str, netloc: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the usual variables name for a host, or None."""
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if proxy_bypass_environment(netloc, {"no": bypass}):
        return None
    for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if value := environ.get(name):
            return value if "://" in value else f"http://{value}"
    return None


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Certificates checked against the authorities that the environment names, else the system's and certifi's."""
    for name in CA_VARIABLES:
        if place := environ.get(name):
            path = Path(place)
            try:
                return ssl.create_default_context(
                    cafile=None if path.is_dir() else place, capath=place if path.is_dir() else None
                )
            except OSError as error:
                raise UsageError(f"{name} names {place}, which cannot be read: {error}") from error
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
