"""What the program itself opens and lists while it watches: no step has read it thereby.

Python tells each opening before it happens, in any thread (PEP 578), so that nobody need say it. Where several paths
lead to a file, the one that is used must be the one without links: else the opening counts as a step's.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.observe.inotify import UNSURE

if TYPE_CHECKING:
    from runnable_ci.observe.shared_looks import SharedLooks

_HEARD_MAX: Final = 100_000
_OTHERS_S: Final = 0.5
"""How long after another process has said so its opening may have its event."""
_EVENTS: Final = frozenset({"open", "os.listdir", "os.scandir"})
_listening: list[deque[object]] = []
_sharing: list[SharedLooks] = []
_hooks: list[object] = []


class OwnLooks:
    """The openings of files and folders below a root by this process, each until its event has come."""

    def __init__(self, root: str, shared: Path | None = None) -> None:
        self._root = root
        self._shared: SharedLooks | None = None
        if shared is not None:
            from runnable_ci.observe.shared_looks import SharedLooks  # most runs are one process

            self._shared = SharedLooks(shared, root)
            _sharing.append(self._shared)  # from now on: others watch already
            _hook()
        # Safe in threads without a lock, which a hook must not wait for. What is too much counts as a step's.
        self._heard: deque[object] = deque(maxlen=_HEARD_MAX)
        self._waiting: Counter[str] = Counter()
        self._others: deque[tuple[float, str]] = deque(maxlen=_HEARD_MAX)
        """What other processes have said that they open, and when it was heard."""

    def listen(self) -> None:
        """Begin."""
        _hook()
        _listening.append(self._heard)

    def doubt(self) -> int:
        """Return the mark for what may be of a git that another process asks, which looks into all folders; else 0."""
        return UNSURE if self.others_ask_git() else 0

    def take(self, path: str) -> bool:
        """Return whether an opening of a path, relative to the root, was the program's own; each counts once."""
        self._take_others()
        while self._heard:
            if (heard := self._relative(self._heard.popleft())) is not None:
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

    def _take_others(self) -> None:
        if self._shared is None:
            return
        moment = time.monotonic()
        for path in self._shared.take():
            if (heard := self._relative(path)) is not None:
                self._others.append((moment, heard))
        while self._others and self._others[0][0] < moment - _OTHERS_S:
            self._others.popleft()

    def ask_git(self, *, begins: bool) -> None:
        """Let other processes of this program know that this one asks git, or does no more."""
        if self._shared:
            self._shared.ask_git(begins)

    def others_ask_git(self) -> bool:
        """Return whether another one does: what happens in `.git` is not a step's."""
        self._take_others()
        return self._shared is not None and self._shared.others_ask_git()

    def clear(self) -> None:
        """Expect none of the events that have not come until now: two like ones may come as one."""
        self._heard.clear()
        self._waiting.clear()

    def close(self) -> None:
        """Listen no more."""
        _listening[:] = [one for one in _listening if one is not self._heard]
        self.clear()
        if self._shared:
            _sharing[:] = [one for one in _sharing if one is not self._shared]
            self._shared.close()

    def _relative(self, heard: object) -> str | None:
        if not isinstance(heard, str | bytes | os.PathLike):
            return None  # a descriptor
        path = os.path.normpath(os.fsdecode(heard))
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else None


def _hook() -> None:
    if not _hooks:  # it cannot be taken away again
        sys.addaudithook(_hear)
        _hooks.append(_hear)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if (_listening or _sharing) and event in _EVENTS:
        for heard in _listening:
            heard.append(arguments[0])
        for shared in _sharing:
            shared.say(arguments[0])
