"""What a dead worker leaves is ended on its own machine: nothing else can, and another try would run beside it.

At once by a process that only waits for the worker's end, however that comes; where that is gone too, by the worker
that begins the next try there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from runnable_ci.engine.elsewhere.tickets import Ticket
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.model import FOLDER, StepAttempt
from runnable_ci.runs.orphans import end_orphans
from runnable_ci.runs.products.step_products import StepProducts
from runnable_ci.runs.products.undo import AsideFolder
from runnable_ci.util.leftovers import VARIABLE, marks_like
from runnable_ci.util.process import end_outliving, processes_of_ps, start_time

_READ_BYTES: Final = 1 << 12
_FILES_MAX: Final = 1 << 16
_SEPARATOR: Final = "."


class Guard:
    """A process that ends a step once its worker is dead. Made before the worker has threads, files or locks.

    It holds the reading end of a pipe whose other end only the worker has: the system closes that with the worker.
    """

    def __init__(self) -> None:
        ear, self._pipe = os.pipe()
        self._pid = 0
        with suppress(OSError):  # the system allows no more processes: the next try's worker looks too
            self._pid = os.fork()
            if not self._pid:
                _wait(ear)
        os.close(ear)

    @contextmanager
    def over(self, processes: Path) -> Iterator[None]:
        """End a step whose processes are noted there, should this one die in the block."""
        self._say(os.fsencode(processes))
        try:
            yield
        finally:
            self._say(b"")

    def close(self) -> None:
        """Let it go: nothing of it is left once this returns."""
        os.close(self._pipe)
        with suppress(OSError):  # adopted processes are waited for elsewhere, and it may have been among them
            if self._pid:
                os.waitpid(self._pid, 0)

    def _say(self, line: bytes) -> None:
        with suppress(OSError):  # it was killed
            os.write(self._pipe, line + b"\n")


def _wait(ear: int) -> None:
    """Be that process. What belongs to the worker is let go: signals to its group, its output, all that it opened."""
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.dup2(ear, 3)
        os.closerange(4, min(os.sysconf("SC_OPEN_MAX"), _FILES_MAX))
        *_, last, _ = [b"", *b"".join(iter(lambda: os.read(3, _READ_BYTES), b"")).split(b"\n")]
        if last:
            end_orphans(Path(os.fsdecode(last)))
    finally:
        os._exit(0)


def with_mark(environ: Mapping[str, str], run_id: str, ticket: Ticket) -> Mapping[str, str]:
    """Return the environment of a step, with a mark that all inherit which it starts, and that names this worker.

    By that they are found where nothing else is left of the attempt. No attempt of another run has the same, though
    that have the same id.
    """
    step = ticket.step
    if step.background or step.container:  # as where a run here was killed: a server stays, a container has a name
        return environ
    own = os.getpid()
    mark = _SEPARATOR.join((_prefix(run_id, step.name, ticket.attempt), str(own), _started(own)))
    return {**environ, VARIABLE: ",".join(filter(None, (environ.get(VARIABLE), mark)))}


def end_left(folder: AttemptFolder) -> None:
    """End what an attempt left on this machine that is given up, where its worker was here and is dead."""
    taken = folder.noted("taken")
    is_here = taken.get("host") == socket.gethostname()
    if is_here and taken.get("pid") and start_time(int(taken["pid"])) != taken.get("started"):
        end_orphans(folder.processes)


def end_earlier(run_id: str, ticket: Ticket) -> str:
    """End what earlier attempts at a step left on this machine whose workers are dead: one that lives leaves itself.

    Return when the first of these began, empty where nothing was left.
    """
    past = ticket.past.attempts if ticket.past else ()
    earlier = {
        _prefix(run_id, ticket.step.name, it): it.start_time
        for it in past
        if it.executor and it.attempt_number < ticket.attempt.attempt_number
    }
    if not earlier:
        return ""
    marks = [mark.split(_SEPARATOR) for mark in marks_like(tuple(earlier), listed=processes_of_ps)]
    dead = [mark for mark in marks if _started(int(mark[1])) != mark[2]]
    end_outliving({}, {_SEPARATOR.join(mark) for mark in dead})
    return min((earlier[mark[0]] for mark in dead), default="")


def set_aside_since(products: StepProducts, moment: str) -> None:
    """Move what was written since a moment where the step writes: what the run had undone was written to afterwards."""
    catalog, since_s = products.of.catalog, datetime.fromisoformat(moment).timestamp()
    found = catalog.files.find(products.step.put, is_strict=False)
    aside = AsideFolder(catalog, products.of.folder / products.title)
    for name in sorted(found.all_names()):
        with suppress(OSError):  # it is gone
            if found.kind_of(name) != FOLDER and (catalog.workspace / name).lstat().st_mtime >= since_s:
                aside.move(name, found.kind_of(name))


def _prefix(run_id: str, step: str, attempt: StepAttempt) -> str:
    words = (run_id, step, str(attempt.attempt_number), attempt.start_time)
    return sha256("\0".join(words).encode()).hexdigest()[:32]


def _started(pid: int) -> str:
    return start_time(pid).replace(" ", "_")  # of macOS it has words, and so has the list of its processes
