"""Work in threads: in order, ended by the first failure, and done by fewer threads where the system has no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

import pytest

from runnable_ci.util import threads
from runnable_ci.util.threads import Background, LateError, Workers, map_all, start, within

SLACK_S = 20.0
ALLOWED = [0, 1, 2, 15, 100]


@contextmanager
def allowed(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[list[str]]:
    """Let no more than that many threads start, as a limit of the system does; the names of those that did."""
    begun: list[str] = []
    real = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(begun) == number:
            raise RuntimeError("can't start new thread")
        begun.append(thread.name)
        real(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        yield begun


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_start_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The caller learns it at once, and the work is not begun."""
    begun: list[int] = []

    def refuse(_thread: threading.Thread) -> None:
        raise error

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert start(lambda: begun.append(1), name="never") is None
    assert begun == []


def test_a_thread_does_not_keep_the_program_from_ending() -> None:
    """It is a daemon."""
    thread = start(lambda: None, name="one")
    assert thread
    assert thread.daemon
    thread.join(SLACK_S)


@pytest.mark.parametrize("number", ALLOWED)
@pytest.mark.parametrize("items", [0, 1, 2, 50])
def test_map_all_gives_the_results_in_order(monkeypatch: pytest.MonkeyPatch, items: int, number: int) -> None:
    """However many threads the system allows, each item is worked on once."""
    seen: list[int] = []

    def square(item: int) -> int:
        seen.append(item)
        time.sleep(0.001)
        return item * item

    with allowed(monkeypatch, number) as begun:
        assert map_all(square, range(items), jobs=8, name="squares") == [i * i for i in range(items)]
    assert sorted(seen) == list(range(items))
    assert len(begun) == max(0, min(number, items - 1, 7))


def test_map_all_works_side_by_side() -> None:
    """Four items that wait for each other need four threads, this one among them."""
    meeting = threading.Barrier(4, timeout=SLACK_S)

    def meet(_item: int) -> int:
        return meeting.wait()

    assert sorted(map_all(meet, range(4), jobs=4, name="meet")) == [0, 1, 2, 3]


@pytest.mark.parametrize("number", ALLOWED)
def test_map_all_raises_the_first_failure(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The others are told, nothing further is begun, and what they raise then does not count."""
    begun: list[int] = []
    told = threading.Event()

    def fail(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise ZeroDivisionError
        assert told.wait(SLACK_S)
        raise ValueError(item)

    with allowed(monkeypatch, number), pytest.raises(ZeroDivisionError):
        map_all(fail, range(1000), jobs=4, name="fail", on_failure=told.set)
    assert len(begun) <= 4


def test_map_all_waits_only_so_long_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that hangs does not hide that another one has failed."""
    monkeypatch.setattr(threads, "CLEAN_UP_S", 0.2)
    over, both = threading.Event(), threading.Barrier(2, timeout=SLACK_S)
    main = threading.get_ident()

    def hang(_item: int) -> None:
        both.wait()
        if threading.get_ident() == main:
            raise ZeroDivisionError
        over.wait(SLACK_S)

    try:
        with pytest.raises(ZeroDivisionError):
            map_all(hang, range(2), jobs=2, name="hang")
        assert not over.is_set()
    finally:
        over.set()


def test_an_interruption_goes_before_other_failures() -> None:
    """Ctrl-C in this thread ends the others, and is what is raised."""
    both = threading.Barrier(2, timeout=SLACK_S)
    main = threading.get_ident()

    def fail(_item: int) -> None:
        both.wait()
        raise KeyboardInterrupt if threading.get_ident() == main else ZeroDivisionError

    with pytest.raises(KeyboardInterrupt):
        map_all(fail, range(2), jobs=2, name="fail")


@pytest.mark.parametrize("number", [0, 1])
def test_background_does_all_in_order(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whether there is a second thread or not, all is done when the block ends."""
    done: list[int] = []

    with allowed(monkeypatch, number), Background(ahead=3, name="side") as side:
        for i in range(100):
            side.do(partial(done.append, i))
    assert done == list(range(100))


def test_background_is_only_so_far_behind() -> None:
    """What waits to be done does not grow: two pieces here, beside the one that is being done."""
    go, given = threading.Event(), []

    def give() -> None:
        with Background(ahead=3, name="side") as side:
            for i in range(10):
                side.do(partial(go.wait, SLACK_S))
                given.append(i)

    giver = start(give, name="giver")
    assert giver
    giver.join(0.5)
    assert len(given) == 3
    go.set()
    giver.join(SLACK_S)
    assert len(given) == 10


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("error", [OSError, MemoryError, ZeroDivisionError])
def test_a_failure_in_the_background_is_raised(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """Whatever kind it is of, it neither hangs the one who gives nor is it lost; nothing more is done."""
    done: list[int] = []

    def fail() -> None:
        raise error

    def give() -> None:
        with Background(ahead=2, name="side") as side:
            side.do(fail)
            for i in range(10):
                side.do(partial(done.append, i))

    with allowed(monkeypatch, number), pytest.raises(error):
        give()
    assert done == []


def test_background_that_hangs_is_left_where_the_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of the block is not kept waiting by what is done beside it."""
    monkeypatch.setattr(threads, "CLEAN_UP_S", 0.2)
    over = threading.Event()
    try:
        with pytest.raises(ZeroDivisionError), Background(ahead=1, name="side") as side:
            side.do(partial(over.wait, SLACK_S))
            raise ZeroDivisionError
        assert not over.is_set()
    finally:
        over.set()


def test_work_within_its_time_gives_its_result() -> None:
    """Or its failure; in this thread where there is no room for another."""
    assert within(lambda: 1, limit_s=SLACK_S, name="quick") == 1
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 // 0, limit_s=SLACK_S, name="quick")


def test_work_is_done_without_a_limit_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Done late is better than not at all."""
    with allowed(monkeypatch, 0):
        assert within(threading.get_ident, limit_s=0.0, name="here") == threading.get_ident()


def test_work_that_takes_longer_is_left_behind() -> None:
    """Whatever it hangs in, the caller does not."""
    over = threading.Event()
    with pytest.raises(LateError):
        within(lambda: over.wait(SLACK_S), limit_s=0.01, name="slow")
    over.set()


def test_workers_take_one_piece_of_work_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are as many as had work at the same time."""
    done: SimpleQueue[int] = SimpleQueue()
    workers = Workers(name="worker")
    with allowed(monkeypatch, 2) as begun:
        for number in range(10):
            assert workers.do(partial(done.put, number), busy=number % 2)
            assert done.get(timeout=SLACK_S) == number
    assert begun == ["worker", "worker"]
    assert not workers.is_one_lost()
    workers.end(timeout_s=SLACK_S)
    assert workers.is_one_lost()


def test_a_worker_that_cannot_start_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is not begun, and those that there are continue."""
    done: SimpleQueue[int] = SimpleQueue()
    workers = Workers(name="worker")
    with allowed(monkeypatch, 1):
        assert workers.do(partial(done.put, 1), busy=0)
        assert not workers.do(partial(done.put, 2), busy=1)
        assert workers.do(partial(done.put, 3), busy=0)
    assert [done.get(timeout=SLACK_S) for _ in range(2)] == [1, 3]
    workers.end(timeout_s=SLACK_S)
