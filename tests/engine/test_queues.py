"""When workers are started for attempts that wait, and when they are let go. Without any: a launcher writes down."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support import wait_until

from runnable_ci.engine.elsewhere import queues
from runnable_ci.engine.elsewhere.apart.carrier import Carrier
from runnable_ci.engine.elsewhere.apart.queue import ApartQueue
from runnable_ci.engine.elsewhere.launchers import Handle, Launcher
from runnable_ci.engine.elsewhere.queues import PATIENCE_S, Queue
from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.runs.elsewhere.places import AttemptFolder, ElsewhereFolder


@dataclass
class Noting:
    """Starts nothing, and knows what it was asked for."""

    starts_many: bool = True
    look_s: float = 0.0
    started: list[tuple[int, bool]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    gone: dict[str, str] = field(default_factory=dict)

    def start(self, queue: Path | str, workers: Sequence[str], share: Share, *, stays: bool) -> list[Handle]:  # noqa: ARG002
        self.started.append((len(workers), stays))
        return [Handle(worker, "it") for worker in workers]

    def alive(self, handles: Collection[Handle]) -> Mapping[str, str]:
        return {it.worker: self.gone[it.worker] for it in handles if it.worker in self.gone}

    def know_job(self, worker: str, job: Mapping[str, str]) -> None: ...

    def reason(self, worker: str) -> str | None: ...

    def last_reason(self, worker: str) -> str | None: ...

    def awaited(self, handles: Sequence[Handle]) -> str:
        return f"{len(handles)} workers"

    def withdraw(self, handles: Collection[Handle]) -> None:
        self.withdrawn += [it.worker for it in handles]

    def stop(self, handles: Collection[Handle]) -> None: ...

    def attach(self, handles: Collection[Handle]) -> None: ...


@dataclass
class Waiting:
    """A queue, the time as it has it, and since when its attempts wait."""

    queue: Queue
    launcher: Noting
    now_s: float = 100.0
    since_s: list[float] = field(default_factory=list)

    def come(self, count: int) -> None:
        self.since_s += [self.now_s] * count

    def taken(self, workers: Collection[str]) -> None:
        for worker in workers:
            self.queue.prove(worker, {})
            self.since_s.pop(0)

    def look(self, after_s: float) -> list[tuple[int, bool]]:
        """Let time pass; what was started by then: how many, and whether they stay."""
        self.now_s += after_s
        self.queue.look(has_waiting=bool(self.since_s))
        if self.since_s:
            self.queue.start_missing(self.since_s)
        else:
            self.queue.withdraw()
        found, self.launcher.started = self.launcher.started, []
        return found


def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None = None, *, many: bool = True) -> Waiting:
    folder, launcher = ElsewhereFolder(tmp_path / "r"), Noting(many)
    folder.path.parent.mkdir(exist_ok=True)
    folder.create()
    made = Waiting(Queue("q", Executor("it", max_parallel=most), Share(), launcher, folder), launcher)
    monkeypatch.setattr(queues, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def test_a_crowd_has_one_worker_and_the_others_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one stays; the others come together, once all are there, and no more follow."""
    it = waiting(tmp_path, monkeypatch)
    it.come(3)
    assert it.look(0.0) == [(1, True)]
    it.come(17)
    assert it.look(0.02) == []
    assert it.look(0.1) == [(19, False)]
    assert it.look(PATIENCE_S + 1) == []


def test_no_more_than_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as `max-parallel` says, however long the others wait."""
    it = waiting(tmp_path, monkeypatch, 4)
    it.come(20)
    assert it.look(0.0) == [(1, True)]
    assert it.look(0.2) == [(3, False)]
    assert it.look(PATIENCE_S + 1) == []


def test_a_chain_has_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the time to take the next attempt; another one comes if it does not."""
    it = waiting(tmp_path, monkeypatch)
    it.come(1)
    assert it.look(0.0) == [(1, True)]
    for _ in range(5):
        it.taken(it.queue.workers)
        assert it.look(1.0) == []
        it.come(1)
        assert it.look(0.5) == []
    it.taken(it.queue.workers)
    it.come(1)
    assert it.look(PATIENCE_S + 0.1) == [(1, False)]


def test_processes_are_started_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each worker is a process here too: as many again as there are, as long as attempts wait."""
    it = waiting(tmp_path, monkeypatch, many=False)
    it.come(20)
    assert it.look(0.0) == [(1, True)]
    assert it.look(1.0) == []
    assert [it.look(PATIENCE_S) for _ in range(5)] == [
        [(1, False)],
        [(2, False)],
        [(4, False)],
        [(8, False)],
        [(4, False)],
    ]


def test_what_is_not_needed_is_called_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that have not begun when nothing has waited for a while: neither they nor their end count any more."""
    it = waiting(tmp_path, monkeypatch)
    it.come(6)
    it.look(0.0)
    it.look(0.2)
    first, *others = it.queue.workers
    it.taken([first, *others[:2]] * 2)
    assert it.look(0.5) == []
    assert it.launcher.withdrawn == []
    it.look(PATIENCE_S)
    assert it.launcher.withdrawn == others[2:]
    it.come(1)
    it.launcher.gone = dict.fromkeys(others[2:], "")
    assert it.look(0.1) == []
    assert not it.queue.refusal()
    assert it.look(PATIENCE_S) == [(1, False)]


def test_what_is_awaited_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before a while, not for workers that came, and not again."""
    it = waiting(tmp_path, monkeypatch)
    it.queue.workers = {name: Handle(name, "it") for name in ("first", "second")}
    it.queue.prove("first", {})
    said = []
    for now_s in (100.0, 104.0, 105.0, 106.0, 200.0):
        it.now_s = now_s
        said.append(it.queue.news([100.0, 103.0]))
    assert said == ["", "", "1 workers", "", ""]


def test_a_worker_that_left_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that end before they take anything are a refusal; not those that found nothing to do."""
    it = waiting(tmp_path, monkeypatch)
    it.come(5)
    it.look(0.0)
    it.look(0.2)
    for worker in it.queue.workers:
        it.queue.folder.left(worker).touch()
    it.launcher.gone = dict.fromkeys(it.queue.workers, "")
    assert it.look(0.1) == [(1, True)]
    assert not it.queue.refusal()
    it.look(0.1)
    it.launcher.gone |= dict.fromkeys(it.queue.workers, "no such file")
    it.look(0.1)
    assert it.queue.refusal() == "no worker on it: no such file"


class Sending:
    """Sends nothing, and does so once it is allowed to."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def send(self, folder: AttemptFolder, worker: str, key: str) -> str:
        """Wait, and return an address."""
        self.may.wait(30)
        return f"{folder.title}@{worker}#{key}"


@pytest.mark.parametrize(("most", "first", "then"), [(None, 4, 8), (5, 4, 5)])
def test_attempts_that_are_sent_begin_step_by_step(tmp_path: Path, most: int | None, first: int, then: int) -> None:
    """A server that many connect to at once turns some away: a few are sent together, as many as may run in all."""
    folder, launcher, sending = ElsewhereFolder(tmp_path / "r"), Noting(), Sending()
    folder.create()
    executor = Executor("it", command=("sh", "-c", "{}"), max_parallel=most, project="/there")
    queue = ApartQueue("it", executor, Share(), cast("Launcher", launcher), folder, carrier=cast("Carrier", sending))
    queue.open()
    for number in range(9):
        (queue.tickets / f"s{number}.1").touch()
        folder.attempt(f"s{number}.1").path.mkdir()
    queue.start_missing([0.0])
    queue.start_missing([0.0])
    assert len(queue.journeys) == first
    sending.may.set()
    wait_until(lambda: all(it.errand and it.errand.is_over for it in queue.journeys.values()), "they are sent")
    queue.look(has_waiting=True)
    assert len(launcher.started) == first
    queue.start_missing([0.0])
    assert len(queue.journeys) == then
