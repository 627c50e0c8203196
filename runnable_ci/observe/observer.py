"""What is seen of the attempts of an invocation: one watcher, and a window of it for each attempt."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.observe.looks import shared_file
from runnable_ci.observe.looks.own import OwnLooks
from runnable_ci.observe.trace import Trace, Window, trace
from runnable_ci.observe.watcher import Event, Watcher

BYTECODE_ELSEWHERE: Final = "PYTHONPYCACHEPREFIX"
"""Where it is set, Python keeps compiled modules where nothing is watched, and does not open their sources."""


class Sight(NamedTuple):
    """What was seen of one attempt; `trace` is None where it was not, for `reason`."""

    trace: Trace | None
    reason: str
    started_ns: int
    links: dict[str, str]
    overlapping: frozenset[str]
    """Steps that ran at the same time."""
    later: Callable[[], Sequence[Event]] = tuple
    """What happened since, as long as it is kept: until this is asked."""


@dataclass(slots=True, eq=False, repr=False)
class _Attempt:
    step: str
    start: int
    started_ns: int
    end: int | None = None
    overlapping: set[str] = field(default_factory=set)
    is_recorded: bool = True
    """Whether nobody asks any more what happened since its end."""


class Observer:
    """Watches a workspace while attempts run. Safe in threads; `scratch` is a folder of the program's own.

    `around` is the repository that the workspace is in.
    """

    def __init__(self, workspace: Path, scratch: Path, around: Path | None = None) -> None:
        whole = os.path.realpath(around or workspace)
        own = OwnLooks(os.path.realpath(workspace), whole, shared_file(whole))
        self._watcher = Watcher(workspace, scratch, around, own)
        self._lock = threading.Lock()
        self._attempts: list[_Attempt] = []

    @property
    def root(self) -> str:
        """The workspace, without links on the way to it."""
        return self._watcher.root

    @property
    def around(self) -> str:
        """The repository around it, else the workspace."""
        return self._watcher.around

    def begin(self, step: str) -> None:
        """Watch an attempt from now on."""
        with self._lock:
            new = _Attempt(step, self._watcher.mark(), time.time_ns())
            for other in self._attempts:
                if other.end is None:
                    other.overlapping.add(step)
                    new.overlapping.add(other.step)
            self._attempts.append(new)

    def end(self, step: str) -> Sight:
        """Return what was seen of the running attempt at a step, which has ended."""
        with self._lock:
            attempt = next(found for found in reversed(self._attempts) if found.step == step and found.end is None)
            attempt.end = self._watcher.mark()
            window = Window(attempt.start, attempt.end)
            others = [
                Window(other.start, attempt.end if other.end is None else other.end, own=not other.step)
                for other in self._attempts
                if other is not attempt
            ]
            first = min((other.start for other in others if other.overlaps(window)), default=attempt.start)
            first = min(first, attempt.start)
            events = self._watcher.between(first, attempt.end)
            attempt.is_recorded = events is None or not attempt.overlapping
            self._forget()
        found = None if events is None else trace(events, window, others, first=first)
        reason = "" if found else self._watcher.reason or "more happened at once than the system could tell"
        beside, links = frozenset(attempt.overlapping), self._watcher.links
        return Sight(found, reason, attempt.started_ns, links, beside, partial(self._since, attempt))

    def _since(self, attempt: _Attempt) -> Sequence[Event]:
        """Return what happened since an attempt ended; nothing where that is not kept."""
        with self._lock:
            if attempt.is_recorded or attempt.end is None:
                return ()
            attempt.is_recorded = True
            events = self._watcher.between(attempt.end, self._watcher.mark())
            self._forget()
            return events or ()

    @contextmanager
    def other_work(self) -> Iterator[None]:
        """Within the block the program looks at the workspace itself: what attempts read meanwhile is only possible."""
        with self._lock:
            own = _Attempt("", self._behind(), time.time_ns())
            self._attempts.append(own)
        try:
            yield
        finally:
            with self._lock:
                own.end = self._behind()
                self._watcher.forget_git()
                self._forget()

    def changed(self) -> set[str] | None:
        """Return the paths that were changed since this was asked last, None where they are not known.

        `.git` is among them where a git was at work, but for what the program itself asked.
        """
        return self._watcher.take_changed()

    def close(self) -> None:
        """Stop watching."""
        self._watcher.close()

    def _behind(self) -> int:
        """Return a position behind all that running attempts did until now."""
        is_watched = any(attempt.end is None and attempt.step for attempt in self._attempts)
        return self._watcher.mark() if is_watched else self._watcher.position()

    def _forget(self) -> None:
        """Drop what neither a running attempt's window reaches nor that of one beside it."""
        needed = [a.start if a.end is None else a.end for a in self._attempts if a.end is None or not a.is_recorded]
        if not needed:
            self._attempts.clear()
            self._watcher.forget(self._watcher.position())
            return
        first = min(needed)
        self._attempts = [a for a in self._attempts if a.end is None or not a.is_recorded or a.end > first]
        self._watcher.forget(min(a.start for a in self._attempts))
