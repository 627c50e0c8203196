"""Blobs on their way: downloads that take up a lost connection where it broke, bodies of exactly the right length."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import BinaryIO, cast

from runnable_ci.errors import BlobCorruptError, RegistryProtocolError, StoreError
from runnable_ci.store.target import Descriptor
from runnable_ci.util.http import Stream
from runnable_ci.util.responses import TransientError, backoff_s, retry

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")
SKIP_BYTES = 1024 * 1024
# A connection that brought this much before it broke was worth a fresh set of tries.
PROGRESS_BYTES = 8 * 1024 * 1024


class BlobStream(io.RawIOBase):
    """The bytes of one blob, unchecked, at most one more than its size.

    `open_at(start)` returns a response whose body begins at that byte or at the first, as `begins_at` says.
    """

    def __init__(
        self,
        open_at: Callable[[int], Stream],
        descriptor: Descriptor,
        *,
        label: str,
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__()
        self._open_at = open_at
        self._descriptor = descriptor
        self._label = label
        self._sleep = sleep
        self._position = 0
        self._stream: Stream | None = None
        self._failures = 0
        self._failed_at = 0

    def open(self) -> None:
        """Connect now, so that a missing blob is known before the first `read`."""
        self._stream = retry(self._connect, sleep=self._sleep)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Continue from byte `offset`, counted from the first."""
        if whence != io.SEEK_SET or offset < 0:
            raise io.UnsupportedOperation("only seek(offset) from the start")
        if offset != self._position:
            self._disconnect()
            self._position = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes; none at the end. Raises `StoreError` once new connections do not help."""
        allowed = self._descriptor.size - self._position + 1
        wanted = allowed if size < 0 else min(size, allowed)
        while wanted > 0:
            if self._stream is None:
                self.open()
            try:
                chunk = cast("Stream", self._stream).read(wanted)
            except TransientError as failure:
                if self._position == self._descriptor.size:
                    return b""
                self._broken(failure)
                continue
            self._position += len(chunk)
            return chunk
        return b""

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _connect(self) -> Stream:
        start = self._position
        stream = self._open_at(start)
        try:
            self._require_plain(stream)
            begins = begins_at(stream)
            if begins not in (0, start):
                raise RegistryProtocolError(
                    f"{self._label} sends another range of {self._descriptor.digest} than requested"
                )
            self._require_length(stream, begins)
            _skip(stream, start - begins)
        except StoreError:
            stream.close()
            raise
        return stream

    def _require_plain(self, stream: Stream) -> None:
        encoding = stream.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise RegistryProtocolError(
                f"{self._label} sends {self._descriptor.digest} encoded as {encoding[:40]!r}, which was not requested"
            )

    def _require_length(self, stream: Stream, begins: int) -> None:
        length = stream.headers.get("Content-Length")
        if length is not None and length != str(self._descriptor.size - begins):
            raise BlobCorruptError(
                f"{self._descriptor.digest} in {self._label} should have {self._descriptor.size} bytes, "
                f"but the server announces {begins} + {length[:20]}"
            )

    def _broken(self, failure: TransientError) -> None:
        self._disconnect()
        if self._position - self._failed_at >= PROGRESS_BYTES:
            self._failures = 0
        self._failures += 1
        self._failed_at = self._position
        if self._failures >= failure.tries:
            failure.error.message += (
                f" ({self._position} of {self._descriptor.size} bytes of {self._descriptor.digest} read)"
            )
            raise failure.error from failure
        self._sleep(backoff_s(self._failures))

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class ExactReader(io.RawIOBase):
    """Content to be sent, perhaps several times, as exactly the bytes that its descriptor counts.

    Raises `BlobCorruptError` in place of sending a body that is shorter or longer than was announced.
    """

    def __init__(self, content: BinaryIO, descriptor: Descriptor) -> None:
        super().__init__()
        self._content = content
        self._descriptor = descriptor
        self._start = content.tell() if content.seekable() else 0
        self._left = descriptor.size

    def __len__(self) -> int:
        """Return the length, so that `requests` announces it and does not send chunks."""
        return self._descriptor.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._content.seekable()

    def tell(self) -> int:
        return self._descriptor.size - self._left

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Continue from byte `offset`, counted from the first."""
        if whence != io.SEEK_SET or not 0 <= offset <= self._descriptor.size:
            raise io.UnsupportedOperation("only seek(offset) from the start")
        self._content.seek(self._start + offset)
        self._left = self._descriptor.size - offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        parts = []
        try:
            while wanted and (part := self._content.read(wanted)):
                parts.append(part)
                wanted -= len(part)
            chunk = b"".join(parts)
            self._left -= len(chunk)
            longer = not self._left and bool(self._content.read(1))
        except OSError as error:
            raise StoreError(f"{self._descriptor.digest} cannot be read: {error}") from error
        if wanted or longer:
            raise BlobCorruptError(
                f"the copy of {self._descriptor.digest} here is {'shorter' if wanted else 'longer'} than its "
                f"{self._descriptor.size} bytes",
                hint="restore the file from another copy",
            )
        return chunk


class WatchedStream(io.RawIOBase):
    """A stream that tells of what is read, less what a seek takes back, and ends when the copy has failed elsewhere."""

    def __init__(self, content: BinaryIO, is_stopped: Callable[[], bool], moved: Callable[[int], None]) -> None:
        super().__init__()
        self._content = content
        self._is_stopped = is_stopped
        self._moved = moved
        self._counted = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._content.seekable()

    def tell(self) -> int:
        return self._content.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        position = self._content.seek(offset, whence)
        self._moved(position - self._counted)
        self._counted = position
        return position

    def read(self, size: int = -1, /) -> bytes:
        if self._is_stopped():
            raise StoreError("the copy was aborted: another blob failed")
        chunk = self._content.read(size)
        if chunk:
            self._counted += len(chunk)
            self._moved(len(chunk))
        return chunk


def begins_at(stream: Stream) -> int | None:
    """Return at which byte of the content a successful response begins; None where a part of it does not say.

    Where no part was asked for it is the whole, whatever the status.
    """
    stated_range = stream.headers.get("Content-Range", "")
    if stream.status != 206 or (not stated_range and "Range" not in stream.request_headers):
        return 0
    stated = CONTENT_RANGE.fullmatch(stated_range)
    return None if stated is None else int(stated[1])


def _skip(stream: Stream, count: int) -> None:
    while count > 0 and (chunk := stream.read(min(count, SKIP_BYTES))):
        count -= len(chunk)
