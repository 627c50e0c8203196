"""What the program itself opens and lists while it watches: no step has read it thereby.

Python tells each opening before it happens, in any thread (PEP 578), so that nobody need say it. Where several paths
lead to a file, the one that is used must be the one without links: else the opening counts as a step's.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from typing import Final

_HEARD_MAX: Final = 100_000
_EVENTS: Final = frozenset({"open", "os.listdir", "os.scandir"})
_listening: list[deque[object]] = []
_hooks: list[object] = []


class OwnLooks:
    """The openings of files and folders below a root by this process, each until its event has come."""

    def __init__(self, root: str) -> None:
        self._root = root
        # Safe in threads without a lock, which a hook must not wait for. What is too much counts as a step's.
        self._heard: deque[object] = deque(maxlen=_HEARD_MAX)
        self._waiting: Counter[str] = Counter()

    def listen(self) -> None:
        """Begin."""
        if not _hooks:  # it cannot be taken away again
            sys.addaudithook(_hear)
            _hooks.append(_hear)
        _listening.append(self._heard)

    def take(self, path: str) -> bool:
        """Return whether an opening of a path, relative to the root, was the program's own; each counts once."""
        while self._heard:
            if (heard := self._relative(self._heard.popleft())) is not None:
                self._waiting[heard] += 1
        if not self._waiting[path]:
            del self._waiting[path]
            return False
        self._waiting[path] -= 1
        return True

    def clear(self) -> None:
        """Expect none of the events that have not come until now: two like ones may come as one."""
        self._heard.clear()
        self._waiting.clear()

    def close(self) -> None:
        """Listen no more."""
        _listening[:] = [one for one in _listening if one is not self._heard]
        self.clear()

    def _relative(self, heard: object) -> str | None:
        if not isinstance(heard, str | bytes | os.PathLike):
            return None  # a descriptor
        path = os.path.normpath(os.fsdecode(heard))
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event in _EVENTS:
        for heard in _listening:
            heard.append(arguments[0])
