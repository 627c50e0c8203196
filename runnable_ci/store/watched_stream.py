"""What a copy reads of its source."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from runnable_ci.errors import StoreError


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
