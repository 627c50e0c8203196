"""Whether what a container opens is seen from here: its first act is to open a file that is watched."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.observe.inotify import OPEN, Inotify

VARIABLE: Final = "RUNNABLE_CANARY"
_UNSEEN: Final = "what its container opened is not seen from here"


class ContainerCanary:
    """A file that a container opens. No event of that comes from another machine, or from a machine within this one."""

    def __init__(self, file: Path) -> None:
        self._watch: Inotify | None = None
        with suppress(OSError):  # then nothing is seen of any step
            file.touch(mode=0o600)
            self._watch = Inotify()
            self._watch.add(str(file), folder=False)

    def not_seen(self) -> str:
        """Return why nothing was seen of the container that has ended; empty where it was. Asked once."""
        watch, self._watch = self._watch, None
        if watch is None:
            return _UNSEEN
        try:
            return "" if any(event.mask & OPEN for event in watch.read()) else _UNSEEN
        except OSError:
            return _UNSEEN
        finally:
            watch.close()
