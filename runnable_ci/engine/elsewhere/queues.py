"""The attempts of one executor that take the same resources, and the workers that take them one after the other."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.engine.elsewhere.launchers import Handle, Launcher
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.runs.elsewhere.places import ElsewhereFolder

PATIENCE_S: Final = 2.0
"""How long an attempt waits for a worker that is there, before there is another one."""
_SETTLED_S: Final = 0.1
"""So long no attempt has come when those that came together are counted."""
_TELL_S: Final = 5.0
"""How long attempts wait until it is said for what."""
_STARTS_MAX: Final = 3
"""So many workers in a row may end without having taken anything."""


@dataclass(slots=True, eq=False, repr=False)
class Queue:
    """A queue of attempts; used by one thread."""

    name: str
    executor: Executor
    share: Share
    launcher: Launcher
    folder: ElsewhereFolder
    workers: dict[str, Handle] = field(default_factory=dict)
    """Those that run, as far as is known."""
    started_s: float = 0.0
    """When a worker was started last."""
    has_first: bool = False
    """Whether one of them stays as long as the run continues."""
    proven: set[str] = field(default_factory=set)
    """Workers that have taken an attempt, or that will take none."""
    failed_starts: int = 0
    """How many in a row ended without that."""
    last_words: str = ""
    gone: dict[str, Handle] = field(default_factory=dict)
    """Workers that are gone, and whose scheduler may keep something for them."""
    looked_s: float = 0.0
    news_s: float = 0.0
    """When it was last asked what workers wait for; infinite once that was said."""
    waited_s: float = 0.0
    """When an attempt was last seen to wait."""

    @property
    def tickets(self) -> Path:
        """Where tickets wait for a worker."""
        return self.folder.queue(self.name).waiting

    def open(self) -> None:
        """Have the folder to which tickets come."""
        self.tickets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.queue(self.name).closed.unlink(missing_ok=True)

    def close(self) -> None:
        """Let workers leave once they have nothing to do."""
        if self.tickets.is_dir():
            self.folder.queue(self.name).closed.touch()

    def attach(self) -> None:
        """Follow the workers that an earlier invocation started."""
        if not self.workers:
            handles = [Handle.read(path) for path in sorted((self.folder.path / "workers").glob("*.json"))]
            known = [it for it in handles if it and it.worker.startswith(f"{self.name}-")]
            self.launcher.attach(known)
            self.workers = {it.worker: it for it in known}
            self.has_first = bool(known)

    def prove(self, worker: str, job: Mapping[str, str]) -> None:
        """Know that a worker has taken an attempt, and in which job of a scheduler it is."""
        self.failed_starts = 0
        self.proven.add(worker)
        self.launcher.know_job(worker, job)

    def look(self, *, has_waiting: bool) -> None:
        """Find out which workers are gone, not more often than the launcher may be asked."""
        moment = time.monotonic()
        if not self.workers or moment - self.looked_s < self.launcher.look_s:
            return
        self.looked_s = moment
        for worker, why in self.launcher.alive(list(self.workers.values())).items():
            handle = self.workers.pop(worker)
            if not self.folder.has_left(worker):
                self.gone[worker] = handle
            self.has_first = bool(self.workers) and self.has_first
            if worker not in self.proven and not self.folder.has_left(worker):
                self.failed_starts += has_waiting
            self.last_words = why

    def see_off(self, holding: Collection[str]) -> None:
        """Have nothing kept for workers that are gone, but for those that hold an attempt: they may be alive."""
        if over := [handle for worker, handle in self.gone.items() if worker not in holding]:
            self.gone = {worker: handle for worker, handle in self.gone.items() if worker in holding}
            self.launcher.stop(over)

    def news(self, waiting_s: Collection[float]) -> str:
        """Return what workers wait for that do not come, once; empty as long as nobody knows."""
        moment = time.monotonic()
        if moment - max(min(waiting_s), self.news_s) < _TELL_S:
            return ""
        self.news_s = moment
        coming = [handle for worker, handle in self.workers.items() if worker not in self.proven]
        news = self.launcher.awaited(coming) if coming else ""
        self.news_s = math.inf if news else moment
        return news

    def refusal(self) -> str:
        """Return why no worker can be started; empty as long as one may be."""
        if self.failed_starts < _STARTS_MAX:
            return ""
        self.failed_starts = 0
        said = self.last_words or "its command ended at once, and said nothing"
        return f"no worker on {self.executor.name}: {said}"

    def start_missing(self, waiting_s: Collection[float]) -> None:
        """Start workers for attempts that wait since these moments.

        The first one is started at once, and so are more for attempts that came together, where many are started as
        easily as one: as soon as more wait than there are workers. Else those that are there have a while to take them.
        """
        self.waited_s = moment = time.monotonic()
        is_late = not self.workers or moment - max(self.started_s, min(waiting_s)) >= PATIENCE_S
        is_crowd = len(waiting_s) > len(self.workers) and moment - max(waiting_s) >= _SETTLED_S
        if not is_late and not (is_crowd and self.launcher.starts_many):
            return
        count = self.lacks(len(waiting_s))
        if not self.launcher.starts_many:
            count = min(count, max(1, len(self.workers)))
        if count <= 0:
            return
        names = [f"{self.name}-{secrets.token_hex(4)}" for _ in range(count)]
        self.started_s = moment
        try:
            path = self.folder.queue(self.name).path
            handles = self.launcher.start(path, names, self.share, stays=not self.has_first)
        except RunnableError as e:
            self.failed_starts, self.last_words = _STARTS_MAX, e.message
            return
        self.has_first = True
        for handle in handles:
            handle.keep(self.folder)
            self.workers[handle.worker] = handle

    def withdraw(self, *, at_once: bool = False) -> None:
        """Let go of workers that a scheduler has not begun yet, once nothing has waited for a while, or `at_once`."""
        coming = [handle for worker, handle in self.workers.items() if worker not in self.proven]
        if coming and (at_once or time.monotonic() - self.waited_s >= PATIENCE_S):
            self.launcher.withdraw(coming)
            self.proven.update(handle.worker for handle in coming)

    def lacks(self, waiting: int) -> int:
        """Return how many workers are missing for so many attempts that wait: those that are to come will take some."""
        if not self.workers:
            return 1
        coming = len(self.workers.keys() - self.proven)
        most = self.executor.max_parallel
        return min(waiting - coming, waiting if most is None else most - len(self.workers))


def queue_name(executor: str, share: Share) -> str:
    """Return what the queue of an executor's attempts with these resources is called."""
    return f"{executor}-{share.cpus}-{share.memory}-{share.gpus}"
