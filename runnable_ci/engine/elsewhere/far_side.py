"""A worker: takes attempts from a queue of the store that it shares with the run's own machine, one after the other."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.engine.elsewhere.far_attempt import Repeating, environments_of, run_far
from runnable_ci.engine.elsewhere.guard import Guard
from runnable_ci.engine.elsewhere.life import SIGN_LOOK_S, Sign
from runnable_ci.engine.elsewhere.tickets import Setting, Ticket, read_private
from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.errors import RunnableError, StoreError
from runnable_ci.runs.elsewhere.fragment import Fragment, seal
from runnable_ci.runs.elsewhere.places import AttemptFolder, ElsewhereFolder, QueueFolder
from runnable_ci.runs.paths import is_running, shared
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.process import Supervisor, start_time
from runnable_ci.util.signals import cancelling

_LOOK_S: Final = 0.05
_STOP_LOOK_S: Final = 0.2
IDLE_S: Final = 10.0
"""How long a worker waits for another attempt which is not the only one of its queue, or whose run is gone."""
_IDLE_FIRST_S: Final = 1.0
"""How long one waits that found none when it began: others were faster."""
_DRIVER_LOOK_S: Final = 2.0
SCHEDULER_JOB: Final = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURMD_NODENAME")
"""Variables by which a scheduler's job is named."""


@dataclass(slots=True, eq=False, repr=False)
class Worker:
    """One worker of a queue."""

    queue: QueueFolder
    name: str
    layout: Layout
    run_id: str
    stays: bool
    """Whether it waits as long as its run continues; else it leaves when there is nothing to do for a while."""
    _asked_s: float = 0.0
    """When it was looked last whether the run continues."""
    _described: dict[int, StepEnvironments] = field(default_factory=dict)
    """Invocation → what describes the environments of its steps."""

    def work(self, environ: Mapping[str, str]) -> int:
        """Run attempts until there is nothing more to do; the exit code."""
        with closing(Guard()) as guard, shared(self.layout):
            idle_since, idle_max_s = time.monotonic(), _IDLE_FIRST_S
            while True:
                if folder := self._take():
                    if not self._run(folder, environ, guard):
                        return 1
                    idle_since, idle_max_s = time.monotonic(), IDLE_S
                elif self._may_leave(time.monotonic() - idle_since, idle_max_s):
                    break
                else:
                    time.sleep(_LOOK_S)
            with suppress(FileNotFoundError):  # the run is over
                self.queue.whole.left(self.name).touch(mode=0o600)
            return 0

    def _may_leave(self, idle_s: float, idle_max_s: float) -> bool:
        """Return whether a worker has nothing to wait for: one that `stays` has as long as its run continues."""
        if self.queue.closed.exists() or not self.queue.waiting.is_dir():
            return True
        if not self.stays:
            return idle_s >= idle_max_s
        if idle_s < IDLE_S or time.monotonic() - self._asked_s < _DRIVER_LOOK_S:
            return False
        self._asked_s = time.monotonic()
        return not is_running(self.layout, self.run_id)

    def _take(self) -> AttemptFolder | None:
        """Take the attempt that waits longest; None where none does."""
        try:
            titles = sorted((entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(self.queue.waiting))
        except FileNotFoundError:
            return None
        for _, title in titles:
            if title.startswith("."):
                continue
            folder = self.queue.whole.attempt(title)
            with suppress(FileNotFoundError):  # another worker was faster, or it was called back
                (self.queue.waiting / title).rename(folder.ticket)
                job = {name: os.environ[name] for name in SCHEDULER_JOB if name in os.environ}
                me = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_time(os.getpid())}
                folder.note("taken", worker=self.name, job=job, **me)
                return folder
        return None

    def _run(self, folder: AttemptFolder, environ: Mapping[str, str], guard: Guard) -> bool:
        """Run an attempt; whether another one may follow."""
        supervisor = Supervisor()
        sign = Sign(folder, supervisor)
        try:
            ticket = read_private(folder.ticket, Ticket)
            setting = read_private(self.queue.whole.setting(_invocation_of(folder, ticket)), Setting)
        except (RunnableError, OSError) as e:
            console.err(str(e))
            return False
        stopping = Repeating(_Stopping(folder.stop, supervisor).look, every_s=_STOP_LOOK_S)
        living = Repeating(sign.look, every_s=SIGN_LOOK_S)
        with closing(supervisor), guard.over(folder.processes), living, cancelling(supervisor.cancel), stopping:
            try:
                environments = self._environments(setting, environ)
                run_far(setting, ticket, folder, supervisor, environ, environments, end=sign.end)
            except (RunnableError, OSError) as e:
                message = e.message if isinstance(e, RunnableError) else str(e)
                ticket.attempt.end("failed", f"the worker failed: {message}")
                if sign.is_ended or sign.end():  # what it gave may have had no room where this has
                    failed = Fragment(step=ticket.step.name, attempt=ticket.attempt, host=socket.gethostname())
                    try:
                        seal(failed, folder.fragment, through=self.layout.temporaries)
                    except (RunnableError, OSError):
                        with suppress(OSError):
                            folder.unsealed.touch()
                        raise
        return supervisor.cancelled_by is None or folder.stop.exists()

    def _environments(self, setting: Setting, environ: Mapping[str, str]) -> StepEnvironments:
        if setting.invocation not in self._described:
            self._described[setting.invocation] = environments_of(setting, environ)
        return self._described[setting.invocation]


def _invocation_of(folder: AttemptFolder, ticket: Ticket) -> int:
    return int(folder.noted("note").get("setting", ticket.attempt.invocation))


class _Stopping:
    """Ends what a supervisor runs once a file asks for it, and harder where it asks again."""

    def __init__(self, file: Path, supervisor: Supervisor) -> None:
        self._file, self._supervisor = file, supervisor
        self._sent = ""

    def look(self) -> None:
        """Look at the file."""
        with suppress(OSError, ValueError):
            asked = self._file.read_text()
            if asked and asked != self._sent:
                self._supervisor.cancel(signal.Signals(int(asked.split()[0])))
                self._sent = asked


def open_worker(queue: Path, name: str, *, stays: bool) -> Worker:
    """Return the worker of a queue. Raises `StoreError` where that is none."""
    folder = QueueFolder(queue.resolve())
    whole: ElsewhereFolder = folder.whole
    store = whole.path.parent.parent
    if folder.path.parent.name != "queues" or not (store / "oci-layout").exists():
        raise StoreError(f"{queue} is no queue of a run", hint="a run starts this command itself, through an executor")
    return Worker(folder, name, Layout(store), whole.path.name, stays)
