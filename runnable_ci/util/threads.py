"""Threads that may be refused: where the system allows no more of them, work is done by fewer.

All are daemons and none is waited for without bound once something has failed: a thread that hangs in a read must not
keep the program from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self, TypeVar

CLEAN_UP_S: Final = 5.0
"""How long threads may take to end after a failure."""
_TICK_S = 0.1

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def start(work: Callable[[], None], *, name: str) -> threading.Thread | None:
    """Return a started thread; None where the system has no room for one."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return None
    return thread


def join_all(threads: Iterable[threading.Thread], *, timeout_s: float) -> None:
    """Wait for threads to end, `timeout_s` seconds at most for all of them."""
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class Workers:
    """Threads that do one piece of work after another: to start one takes as long as a small piece."""

    def __init__(self, *, name: str) -> None:
        self._name = name
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def do(self, work: Callable[[], None], *, busy: int) -> bool:
        """Have one do this, where `busy` of them have work; False where the system has no room for another one."""
        if busy == len(self._threads):
            thread = start(self._work, name=self._name)
            if thread is None:
                return False
            self._threads.append(thread)
        self._waiting.put(work)
        return True

    def is_one_lost(self) -> bool:
        """Return whether one ended that was to continue."""
        return not all(thread.is_alive() for thread in self._threads)

    def end(self, *, timeout_s: float) -> None:
        """Let all end, `timeout_s` seconds at most after the work that they have."""
        for _ in self._threads:
            self._waiting.put(None)
        join_all(self._threads, timeout_s=timeout_s)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            work()


def map_all(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    jobs: int,
    name: str,
    on_failure: Callable[[], None] = lambda: None,
) -> list[_Result]:
    """Return `function` of each item, in their order, by up to `jobs` threads, of which this one is the first.

    The first failure is raised: no further item is begun then, `on_failure` is called from the thread that failed, and
    the others have `CLEAN_UP_S` seconds to end.
    """
    waiting = deque(enumerate(items))
    results: dict[int, _Result] = {}
    failures: list[BaseException] = []

    def work() -> None:
        while waiting and not failures:
            try:
                index, item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                results[index] = function(item)
            except BaseException as e:  # noqa: BLE001 - handed over to the thread that asked, which raises it
                failures.append(e)
                on_failure()

    total, helpers = len(waiting), list[threading.Thread]()
    try:
        while len(helpers) < min(jobs, total) - 1 and (helper := start(work, name=name)):
            helpers.append(helper)
        work()
        while not failures and (running := [helper for helper in helpers if helper.is_alive()]):
            running[0].join(_TICK_S)
    except BaseException as e:  # noqa: BLE001 - an interruption: raised below, once the others had time to end
        failures.append(e)
        on_failure()
    if failures:
        join_all(helpers, timeout_s=CLEAN_UP_S)
        raise next((failure for failure in failures if not isinstance(failure, Exception)), failures[0])
    return [results[index] for index in range(total)]


class LateError(Exception):
    """Work was not done in time; it may still be under way."""


def within(work: Callable[[], _Result], *, limit_s: float, name: str) -> _Result:
    """Return what `work` returns, or raise what it raises; `LateError` after `limit_s` seconds.

    Its thread is left to itself then: nothing else ends what hangs in a system call. Without room for a thread it is
    done in this one, and without a limit.
    """
    results: list[_Result] = []
    failures: list[BaseException] = []

    def do() -> None:
        try:
            results.append(work())
        except BaseException as e:  # noqa: BLE001 - handed over to the thread that asked, which raises it
            failures.append(e)

    thread = start(do, name=name)
    if thread is None:
        return work()
    thread.join(limit_s)
    if failures:
        raise failures[0]
    if not results:
        raise LateError
    return results[0]


class Background:
    """Does one piece of work after another in a second thread, or in this one where no other is available.

    Use as a context. At most `ahead` pieces wait. The first failure is raised by what is called next.
    """

    def __init__(self, *, ahead: int, name: str) -> None:
        self._room = threading.Semaphore(ahead)
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._failures: list[BaseException] = []
        self._thread = start(self._work, name=name)

    def do(self, piece: Callable[[], object]) -> None:
        """Queue this, after what was queued before."""
        if self._thread is None:
            piece()
            return
        while not self._room.acquire(timeout=_TICK_S):
            if not self._thread.is_alive():
                raise RuntimeError(f"the thread {self._thread.name} ended unexpectedly")
        self._raise()
        self._waiting.put(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(None if kind is None else CLEAN_UP_S)
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _work(self) -> None:
        while (piece := self._waiting.get()) is not None:
            try:
                if not self._failures:
                    piece()
            except BaseException as e:  # noqa: BLE001 - handed over to the thread that asked, which raises it
                self._failures.append(e)
            self._room.release()
