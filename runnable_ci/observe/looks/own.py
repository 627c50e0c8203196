"""What the program itself opens and lists while it watches: no step has read it thereby.

Where several paths lead to a file, the one that is used must be the one without links: else the opening counts as a
step's.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from contextlib import suppress
from typing import Final

from runnable_ci.observe.looks.openings import listen, unlisten
from runnable_ci.observe.looks.shared import Announced, Announcer, stop_announcing

_HEARD_MAX: Final = 100_000
_OTHERS_S: Final = 0.5
"""How long after another process has said so its opening may have its event."""


class OwnLooks:
    """The openings of files and folders by this process, each until its event has come.

    Paths are relative to a root, also those of what is `around` it. `shared` is a file in which this process and others
    of this program announce theirs.
    """

    def __init__(self, root: str, around: str = "", shared: str = "") -> None:
        self._root = root
        self._around = around or root
        # Safe in threads without a lock, which a hook must not wait for. What is too much counts as a step's.
        self._heard: deque[bytes] = deque(maxlen=_HEARD_MAX)
        self._waiting: Counter[str] = Counter()
        self._others: deque[tuple[float, str]] = deque(maxlen=_HEARD_MAX)
        """What other processes have said that they open, and when it was heard."""
        self._announced: Announced | None = None
        self._announcer: Announcer | None = None
        stop_announcing()
        with suppress(OSError):  # the disk is full, or the file another user's: all that is opened counts as a step's
            if shared:
                self._announcer = Announcer(shared, self._around)  # from now on: others watch already
                self._announced = Announced(shared)
        self._emptied_s = 0.0
        self.others_ask_git = False
        """Whether a git that another process asks may have caused some of the events that come now."""

    def listen(self) -> None:
        """Begin."""
        listen(self._heard.append)

    def hear_others(self, emptied_s: float) -> None:
        """Take what other processes have said. After this come the events since the moment that was last given here.

        `emptied_s` is the moment until which all events have come, in seconds of the machine's clock.
        """
        if self._announced is None:
            return
        moment = time.monotonic()
        for path in self._announced.take():
            if (heard := self._relative(path)) is not None:
                self._others.append((moment, heard))
        while self._others and self._others[0][0] < moment - _OTHERS_S:
            self._others.popleft()
        self.others_ask_git = self._announced.asked_git_since(self._emptied_s)
        self._emptied_s = emptied_s

    def take(self, path: str) -> bool:
        """Return whether an opening of a path, relative to the root, was the program's own; each counts once."""
        while self._heard:
            if (heard := self._relative(os.fsdecode(self._heard.popleft()))) is not None:
                self._waiting[heard] += 1
        if not self._waiting[path]:
            del self._waiting[path]
            return self._is_others(path)
        self._waiting[path] -= 1
        return True

    def _is_others(self, path: str) -> bool:
        found = next((one for one in self._others if one[1] == path), None)
        if found is not None:
            self._others.remove(found)
        return found is not None

    def clear(self) -> None:
        """Expect none of the events that have not come until now: two like ones may come as one."""
        self._heard.clear()
        self._waiting.clear()

    def close(self) -> None:
        """Listen no more."""
        unlisten(self._heard.append)
        self.clear()
        for shared in (self._announcer, self._announced):
            if shared is not None:
                shared.close()

    def _relative(self, heard: str) -> str | None:
        path = os.path.normpath(heard)
        if path == self._root:
            return ""
        if path.startswith(f"{self._root}/"):
            return path[len(self._root) + 1 :]
        is_around = path == self._around or path.startswith(f"{self._around}/")
        return os.path.relpath(path, self._root) if is_around else None
