"""A response as it was read: what it says, and whether the same request may work later."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from runnable_ci.errors import RunnableError
from runnable_ci.util.text import printable

TRIES = 5
LONGEST_WAIT_S = 60.0
_RETRY_MESSAGE = re.compile(r"retry[- ]after:?\s*([0-9.]+)\s*(µs|ms|s|m)?", re.IGNORECASE)
_SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}

T = TypeVar("T")


class TransientError(Exception):
    """A try failed in a way that may pass: `error` is what to raise when it does not within `tries` tries.

    `asked_s` is the wait that the server asks for; `delay_s` the one that we choose, in place of growing ones.
    """

    def __init__(
        self,
        error: RunnableError,
        *,
        asked_s: float | None = None,
        delay_s: float | None = None,
        tries: int = TRIES,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.asked_s = asked_s
        self.delay_s = delay_s
        self.tries = tries

    def wait_s(self, attempt: int) -> float:
        """Return the seconds to wait after try number `attempt`.

        A server may ask for more than we would wait by ourselves, within bounds, but not for less: it has just failed.
        """
        if self.delay_s is not None:
            return self.delay_s
        return max(backoff_s(attempt), min(self.asked_s or 0.0, LONGEST_WAIT_S))


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose body was read, at most as many bytes as were asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def ok(self) -> bool:
        """Whether the request was successful: servers differ in which status of 2xx they choose to say so."""
        return 200 <= self.status < 300

    def error_message(self, *, plain_text: bool = True, max_length: int = 200) -> str:
        """Return what the server says went wrong as one printable line, perhaps empty.

        A body of `plain_text` counts too, unless it is HTML.
        Source: OCI distribution-spec v1.1, error codes; GitHub docs, "Troubleshooting the REST API".
        """
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError):
            text = self.body if plain_text and b"<" not in self.body else b""
            return one_line(text.decode("utf-8", "replace"), max_length)
        match parsed:
            case {"message": str(message)}:
                return one_line(message, max_length)
            case {"errors": [{**error}, *_]}:
                return one_line(f"{error.get('code', '')}: {error.get('message', '')}", max_length)
            case _:
                return ""

    def error_codes(self) -> frozenset[str]:
        """Return the codes of a registry's errors. Source: OCI distribution-spec v1.1, error codes."""
        try:
            return frozenset(error["code"] for error in json.loads(self.body)["errors"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return frozenset()

    def server_time_s(self, otherwise: float) -> float:
        """Return the server's clock when it answered, in seconds since 1970."""
        try:
            return parsedate_to_datetime(self.headers.get("Date", "")).timestamp()
        except (ValueError, OverflowError):
            return otherwise


@dataclass(frozen=True, slots=True)
class Later:
    """The same request may work later."""

    is_rate_limit: bool
    wait_s: float | None
    """What the server asks for; it may be hours."""


def later(response: Response, *, message: str, now_s: float) -> Later | None:
    """Return whether, and when, the same request may work later; `message` is what the server says went wrong.

    GitHub and its container registry say 403 where they mean 429 ("secondary rate limit"), some with the wait in the
    message; a response to HEAD has none, and only a header tells.
    Source: RFC 9110, Retry-After; GitHub docs, "Rate limits for the REST API", exceeding the rate limit.
    """
    wait_s = _stated_wait_s(response, message, now_s)
    if response.status == 403 and (wait_s is not None or "rate limit" in message.lower()):
        return Later(is_rate_limit=True, wait_s=LONGEST_WAIT_S if wait_s is None else wait_s)
    if response.status == 429:
        return Later(is_rate_limit=True, wait_s=wait_s)
    if response.status in (408, 425) or (response.status >= 500 and response.status not in (501, 505)):
        return Later(is_rate_limit=False, wait_s=wait_s)
    return None


def retry(
    operation: Callable[[], T],
    *,
    sleep: Callable[[float], None],
    tries: int = TRIES,
    waiting: Callable[[TransientError, float, int], None] = lambda _failure, _delay_s, _number: None,
) -> T:
    """Call `operation` again, after growing, jittered waits, each time that it raises `TransientError`.

    `waiting` gets each failure, the seconds until the next try, and that try's number.
    """
    attempt = 1
    while True:
        try:
            return operation()
        except TransientError as failure:
            if attempt >= min(tries, failure.tries):
                raise failure.error from failure
            delay_s = failure.wait_s(attempt)
            attempt += 1
            waiting(failure, delay_s, attempt)
            sleep(delay_s)


def backoff_s(attempt: int) -> float:
    """Return the seconds to wait after try number `attempt`, from 1: 1, 2, 4, 8, … less up to half by chance."""
    longest = min(LONGEST_WAIT_S, 2.0 ** (attempt - 1))
    return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)


def one_line(text: str, max_length: int = 200) -> str:
    """Return text of a server as one printable line."""
    return printable(" ".join(text[: 4 * max_length].split())).strip(" :")[:max_length]


def _stated_wait_s(response: Response, message: str, now_s: float) -> float | None:
    stated = response.headers.get("Retry-After", "").strip()
    if stated.isdecimal() and len(stated) < 10:
        return float(stated)
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - now_s)
    except (ValueError, OverflowError):
        pass
    reset = response.headers.get("X-RateLimit-Reset", "").strip()
    if response.headers.get("X-RateLimit-Remaining", "").strip() == "0" and reset.isdecimal() and len(reset) < 12:
        return max(1.0, float(reset) - response.server_time_s(now_s) + 1.0)
    if found := _RETRY_MESSAGE.search(message):
        try:
            return float(found[1]) * _SECONDS[(found[2] or "s").lower()]
        except ValueError:
            return None
    return None
