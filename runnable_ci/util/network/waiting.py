"""What is said while a server is waited for: a line after some seconds, and when a new try begins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from runnable_ci.util.responses import TRIES, TransientError, retry
from runnable_ci.util.threads import start

AFTER_S = 5.0
AGAIN_S = 30.0
MOVING_BYTES = 16 * 1024
"""Who has sent or received so much is not waiting; an error's short response is no progress."""

T = TypeVar("T")
_of_thread = threading.local()


@dataclass(slots=True)
class _Wait:
    """What one thread waits for."""

    host: str
    since_s: float
    next_try: str = ""
    moved_bytes: int = 0


class Waiting:
    """Says which server is waited for; safe to share between threads.

    One thread looks after all who wait, and ends when nobody does. The same is said again after `AGAIN_S` seconds.
    """

    def __init__(self, say: Callable[[str], None], *, after_s: float = AFTER_S) -> None:
        self._say = say
        self._after_s = after_s
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []
        self._said: dict[tuple[str, str], float] = {}
        self._is_watched = False

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """Count the block as waiting for a server, or, within such a block of this thread, as a part of that wait."""
        outer: _Wait | None = getattr(_of_thread, "wait", None)
        if outer is not None:
            before, outer.host = outer.host, host
            try:
                yield
            finally:
                outer.host = before
            return
        _of_thread.wait = wait = _Wait(host, time.monotonic())
        with self._lock:
            self._waits.append(wait)
            to_start, self._is_watched = not self._is_watched, True
        if to_start and start(self._watch, name="waiting") is None:
            self._is_watched = False
        try:
            yield
        finally:
            _of_thread.wait = None
            with self._lock:
                self._waits.remove(wait)

    def retry(self, host: str, operation: Callable[[], T], *, sleep: Callable[[float], None], tries: int = TRIES) -> T:
        """Call `operation` again while it raises `TransientError`, as `responses.retry` does; its tries are counted."""

        def count(failure: TransientError, delay_s: float, number: int) -> None:
            wait: _Wait = _of_thread.wait
            asks = f", which asks to wait {failure.asked_s:.0f} s" if (failure.asked_s or 0.0) >= delay_s else ""
            wait.next_try = f"{asks}, try {number} of {min(tries, failure.tries)}"

        with self.on(host):
            return retry(operation, sleep=sleep, tries=tries, waiting=count)

    def _watch(self) -> None:
        is_idle = False
        while True:
            time.sleep(self._after_s / 5)
            with self._lock:
                if not self._waits and is_idle:
                    self._is_watched = False
                    return
                is_idle = not self._waits
                lines = self._due(time.monotonic())
            for line in lines:
                self._say(line)

    def _due(self, now_s: float) -> list[str]:
        lines = []
        for wait in self._waits:
            what, waited_s = (wait.host, wait.next_try), now_s - wait.since_s
            if waited_s >= self._after_s and now_s - self._said.get(what, -AGAIN_S) >= AGAIN_S:
                self._said[what] = now_s
                lines.append(f"waiting for {wait.host}{wait.next_try} ({waited_s:.0f} s)")
        return lines


def moved(size_bytes: int) -> None:
    """Count bytes that this thread has sent or received: it is not waiting."""
    wait: _Wait | None = getattr(_of_thread, "wait", None)
    if wait is None:
        return
    wait.moved_bytes += size_bytes
    if wait.moved_bytes >= MOVING_BYTES:
        wait.moved_bytes, wait.since_s = 0, time.monotonic()
