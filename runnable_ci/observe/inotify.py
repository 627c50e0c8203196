"""Linux's inotify, as far as a workspace needs it: one watch a folder, an ordered list of what happened below them.

A reader of our own, since the usual ones drop the event of an overflowed queue, and with it the fact that
something was not seen. Source: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

ACCESS: Final = 0x01
"""Read from; a file that is only mapped into memory causes no such event."""
ATTRIBUTES: Final = 0x04
"""Mode, owner or times; not the content."""
OPEN: Final = 0x20
WRITTEN: Final = 0x08
"""Closed after it was open for writing."""
CLOSED_UNWRITTEN: Final = 0x10
"""Closed after it was open for reading alone."""
CREATE: Final = 0x100
DELETE: Final = 0x200
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
FOLDER: Final = 0x4000_0000
"""The event is about a folder: opened means listed."""
OVERFLOW: Final = 0x4000
UNSURE: Final = 1 << 32
"""No event of the kernel's: another process of this program may have caused it."""
_IGNORED: Final = 0x8000
"""The watch is gone: its folder was removed."""
_ONLY_FOLDERS: Final = 0x0100_0000
CHANGES: Final = WRITTEN | CREATE | DELETE | MOVED_FROM | MOVED_TO | ATTRIBUTES
_MASK: Final = ACCESS | OPEN | CLOSED_UNWRITTEN | CHANGES
_HEADER: Final = struct.Struct("iIII")
_BUFFER_BYTES: Final = 1 << 16
"""For a larger buffer the C library maps and unmaps memory at each read."""
_EVENT_MAX_BYTES: Final = _HEADER.size + 256


class RawEvent(NamedTuple):
    """One event of the kernel; `name` is empty where it is about the watched folder or file itself."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of events. Raises `OSError` where the system has none to give."""

    def __init__(self) -> None:
        if os.uname().sysname != "Linux":
            raise OSError(errno.ENOSYS, "this system has no inotify")
        libc = ctypes.CDLL(None, use_errno=True)
        self._add_watch = libc.inotify_add_watch
        self._add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self.descriptor = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, *, folder: bool = True) -> int:
        """Watch a folder, or a file; the number of the watch. Raises `OSError` (`ENOSPC`: the user's limit)."""
        mask = _MASK | (_ONLY_FOLDERS if folder else 0)
        return _checked(self._add_watch(self.descriptor, os.fsencode(path), mask))

    def read(self, timeout_s: float = 0.0) -> Iterator[RawEvent]:
        """Yield what is in the queue, waiting for a first event at most so long."""
        if timeout_s:
            ready = select.poll()
            ready.register(self.descriptor, select.POLLIN)
            if not ready.poll(timeout_s * 1000):
                return
        is_more = True
        while is_more:
            try:
                buffer = os.read(self.descriptor, _BUFFER_BYTES)
            except BlockingIOError:
                return
            is_more = len(buffer) > _BUFFER_BYTES - _EVENT_MAX_BYTES  # else all that was there has come
            position = 0
            while position < len(buffer):
                watch, mask, _cookie, length = _HEADER.unpack_from(buffer, position)
                position += _HEADER.size
                name = buffer[position : position + length].rstrip(b"\0")
                position += length
                if not mask & _IGNORED:
                    yield RawEvent(watch, mask, os.fsdecode(name))

    def close(self) -> None:
        """Give the queue back; the kernel removes its watches."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
