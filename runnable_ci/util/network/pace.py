"""The least pace of a connection: a peer that takes or gives next to nothing counts as a silent one.

A socket's time-out is for one call, and begins again with each byte. Here a response, from its status line to its end,
and every piece of a request have to move on, as with git's `http.lowSpeedLimit`.
"""

from __future__ import annotations

import io
import time
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from runnable_ci.util.network.waiting import moved

LEAST_BYTES_A_SECOND = 1024
SENT_PIECE_BYTES = 32 * 1024
"""What has to be taken within a socket's time-out, 30 s: 1 KiB a second."""


class SlowError(TimeoutError):
    """What comes, comes too slowly."""

    def __init__(self, size_bytes: int, waited_s: float) -> None:
        super().__init__(f"timed out: {size_bytes} bytes in {waited_s:.0f} s")


class PacedResponse(HTTPResponse):
    """A response that is given up where it brings less than `LEAST_BYTES_A_SECOND` for a whole time-out."""

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_PacedReader(self.fp.detach(), sock.gettimeout()))


class PacedConnection(HTTPConnection):
    """Mixed into a connection: what it sends and what comes back keep the pace."""

    response_class = PacedResponse

    def send(self, data: Any) -> None:
        """Send, in pieces that each have the whole time-out."""
        if not isinstance(data, bytes) or len(data) <= SENT_PIECE_BYTES:
            super().send(data)
            moved(len(data) if isinstance(data, bytes) else 0)
            return
        view = memoryview(data)
        for start in range(0, len(view), SENT_PIECE_BYTES):
            super().send(view[start : start + SENT_PIECE_BYTES])
            moved(SENT_PIECE_BYTES)


class _PacedReader(io.RawIOBase):
    """Raises `SlowError` where a whole time-out was spent waiting for next to nothing.

    Only time spent in reading counts, so that a caller who reads slowly does not find the server slow; and the silence
    before the first byte is the socket's own matter: a server may think.
    """

    def __init__(self, raw: io.RawIOBase, timeout_s: float | None) -> None:
        super().__init__()
        self._raw = raw
        self._timeout_s = timeout_s
        self._began = False
        self._read_bytes = 0
        self._waited_s = 0.0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        began_s = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._began and count and self._timeout_s:
            self._require_pace(count, time.monotonic() - began_s, self._timeout_s)
        self._began = True
        moved(count or 0)
        return count

    def close(self) -> None:
        super().close()
        self._raw.close()

    def _require_pace(self, size_bytes: int, waited_s: float, timeout_s: float) -> None:
        self._read_bytes += size_bytes
        self._waited_s += waited_s
        if self._waited_s < timeout_s:
            return
        if self._read_bytes < LEAST_BYTES_A_SECOND * self._waited_s:
            raise SlowError(self._read_bytes, self._waited_s)
        self._read_bytes, self._waited_s = 0, 0.0
