"""The attempts of an executor whose machines share no folder with this one: each has a worker of its own.

Its ticket goes by the registry before the launcher starts its worker, and what comes back is asked for rarely as long
as the launcher runs. Only once that has ended, and nothing is there, is the attempt lost.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from runnable_ci.engine.elsewhere.apart.carrier import Carrier, Sent
from runnable_ci.engine.elsewhere.launchers import Handle
from runnable_ci.engine.elsewhere.queues import Queue
from runnable_ci.engine.elsewhere.tickets import Ticket, read_private
from runnable_ci.errors import RegistryAuthError, RunnableError, UsageError
from runnable_ci.runs.elsewhere.fragment import Fragment, seal
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.util.clock import now
from runnable_ci.util.threads import start

_SENT_AT_ONCE: Final = 4
"""A server that many connect to at one moment turns some of them away: sshd does from ten on."""
_ASK_FIRST_S: Final = 5.0
_ASK_MAX_S: Final = 60.0
_ASK_LAST_S: Final = 1.0
_ASKS_LAST: Final = 3
"""How often, and after which pauses, it is asked for what came back once the launcher has ended."""
UNREACHABLE_S: Final = 900.0
"""How long the registry may be out of reach then, before the attempt is given up."""
_STOPPED_S: Final = 1.0
"""How long an answer may take once an attempt was asked to end and its launcher has ended."""
_LINGERS_S: Final = 10.0
"""How long a launcher may take to end after its attempt."""


class Errand:
    """Something that a thread does; its result is looked at by another one."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.is_over = False
        self.found: object = None
        self.error: RunnableError | OSError | None = None
        self._work = work
        if start(self._run, name="registry") is None:
            self._run()

    def _run(self) -> None:
        try:
            self.found = self._work()
        except (RunnableError, OSError) as e:
            self.error = e
        finally:
            self.is_over = True


@dataclass(slots=True, eq=False, repr=False)
class Journey:
    """One attempt that is sent, runs, and comes back."""

    folder: AttemptFolder
    worker: str
    errand: Errand | None = None
    handle: Handle | None = None
    """Its worker, once that was started."""
    asked_s: float = 0.0
    pause_s: float = _ASK_FIRST_S
    gone_s: float | None = None
    """When the launcher was found to have ended."""
    why: str = ""
    asks_left: int = _ASKS_LAST
    landed_s: float | None = None
    is_stopped: bool = False


@dataclass(slots=True, eq=False, repr=False)
class ApartQueue(Queue):
    """A queue whose tickets are sent."""

    carrier: Carrier | None = None
    journeys: dict[str, Journey] = field(default_factory=dict)
    """Worker → its attempt."""
    is_away: bool = False
    """Whether it was said that the registry cannot be asked."""

    def start_missing(self, waiting_s: Collection[float]) -> None:  # noqa: ARG002 - each has a worker of its own
        """Send the attempts that wait, as many as may run at a time, and a few at once."""
        flying = sum(it.landed_s is None for it in self.journeys.values())
        room = _SENT_AT_ONCE - sum(it.handle is None for it in self.journeys.values())
        if self.executor.max_parallel is not None:
            room = min(room, self.executor.max_parallel - flying)
        waiting = sorted((it for it in self.tickets.iterdir() if it.name[0] != "."), key=lambda it: it.stat().st_mtime)
        for ticket in waiting[: max(0, room)]:
            folder, worker = self.folder.attempt(ticket.name), f"{self.name}-{secrets.token_hex(8)}"
            ticket.rename(folder.ticket)
            folder.note("taken", worker=worker, host=self.executor.name, pid=0, job={})
            self.workers[worker] = Handle(worker, self.executor.name)
            key = secrets.token_hex(32)
            errand = Errand(partial(self._carrier.send, folder, worker, key))
            self.journeys[worker] = Journey(folder, worker, errand)

    def attach(self) -> None:
        """Follow the workers that an earlier invocation started."""
        if self.workers:
            return
        super(ApartQueue, self).attach()  # a class with slots has no cell for the short form
        for path in sorted((self.folder.path / "attempts").iterdir()):
            folder = self.folder.attempt(path.name)
            handle = self.workers.get(str(folder.noted("taken").get("worker")))
            if handle and Sent.read(folder):
                self.journeys[handle.worker] = Journey(folder, handle.worker, handle=handle)
        self.workers = {worker: handle for worker, handle in self.workers.items() if worker in self.journeys}

    def look(self, *, has_waiting: bool) -> None:  # noqa: ARG002 - a worker takes no other attempt than its own
        """Move each attempt on as far as it may be."""
        started = [it.handle for it in self.journeys.values() if it.handle and it.gone_s is None]
        moment = time.monotonic()
        if started and moment - self.looked_s >= self.launcher.look_s:
            self.looked_s = moment
            for worker, why in self.launcher.alive(started).items():
                journey = self.journeys[worker]
                journey.gone_s, journey.why, journey.asked_s, journey.pause_s = moment, why, 0.0, _ASK_LAST_S
        for journey in list(self.journeys.values()):
            self._move(journey, moment)

    def _move(self, journey: Journey, moment: float) -> None:
        if journey.landed_s is not None:
            self._see_off(journey, moment)
            return
        if journey.handle and not journey.is_stopped and journey.folder.stop.exists():
            journey.is_stopped = True
            self.launcher.stop([journey.handle])
        if journey.handle is None and journey.folder.stop.exists():
            self._lose(journey)  # what is being sent nobody reads
        elif errand := journey.errand:
            if errand.is_over:
                journey.errand = None
                (self._arrived if journey.handle else self._sent)(journey, errand, moment)
            elif journey.is_stopped and journey.gone_s is not None and moment - journey.gone_s > _STOPPED_S:
                self._lose(journey)  # the registry may not answer for long
        elif journey.handle is None or moment - journey.asked_s >= journey.pause_s:
            journey.asked_s = moment
            journey.errand = Errand(partial(self._carrier.take, journey.folder))

    def _sent(self, journey: Journey, errand: Errand, moment: float) -> None:
        """Start the worker of an attempt that is in the registry."""
        if errand.error:
            self._fail(journey, f"it cannot be sent: {_message(errand.error)}")
            return
        try:
            [handle] = self.launcher.start(str(errand.found), [journey.worker], self.share, stays=False)
        except RunnableError as e:
            self._fail(journey, f"no worker on {self.executor.name}: {e.message}")
            return
        handle.keep(self.folder)
        self.workers[journey.worker] = journey.handle = handle
        journey.asked_s = moment

    def _arrived(self, journey: Journey, errand: Errand, moment: float) -> None:
        """Know what was found when it was asked for what came back."""
        self._say_whether_away(errand.error)
        if errand.found:
            journey.landed_s = moment
        elif journey.gone_s is None or (
            not journey.is_stopped and self._is_unreachable(errand, moment - journey.gone_s)
        ):
            journey.pause_s = min(_ASK_MAX_S, journey.pause_s * 1.5)
        else:
            journey.asks_left -= 1
            journey.why = _message(errand.error) if errand.error else journey.why
            if journey.asks_left <= 0 or journey.is_stopped:
                self._lose(journey)

    def _say_whether_away(self, error: RunnableError | OSError | None) -> None:
        """Say once that nothing can be taken from the registry, and once that it answers again."""
        if bool(error) != self.is_away:
            self.is_away = bool(error)
            again = f"; it is asked again, for {UNREACHABLE_S / 60:.0f} min after the launcher has ended"
            what = f"cannot take what comes back: {_message(error)}{again}" if error else "the registry answers again"
            self._carrier.context.printer.say(f"{self.executor.name}: {what}")

    def _is_unreachable(self, errand: Errand, gone_s: float) -> bool:
        """Return whether the registry may answer later: that it does not is no reason to give work up at once."""
        return errand.error is not None and not _is_final(errand.error) and gone_s < UNREACHABLE_S

    def _see_off(self, journey: Journey, moment: float) -> None:
        """Let the launcher of an attempt end by itself, and end it where it does not."""
        if journey.handle and journey.gone_s is None and moment - (journey.landed_s or 0.0) < _LINGERS_S:
            return
        if journey.handle and journey.gone_s is None:
            self.launcher.stop([journey.handle])
        self._forget(journey)

    def _lose(self, journey: Journey) -> None:
        """Give an attempt up: its flight finds it without a worker."""
        self.last_words = journey.why or "its launcher ended, and nothing came back"
        if sent := Sent.read(journey.folder):
            Errand(partial(self._carrier.tidy, sent))
        self._forget(journey)

    def _forget(self, journey: Journey) -> None:
        self.journeys.pop(journey.worker, None)
        self.workers.pop(journey.worker, None)

    def _fail(self, journey: Journey, message: str) -> None:
        """End an attempt that was not begun."""
        ticket = read_private(journey.folder.ticket, Ticket)
        attempt = ticket.attempt.model_copy()
        attempt.end("failed", message)
        attempt.end_time = now()
        if journey.folder.end("near"):
            fragment = Fragment(step=ticket.step.name, attempt=attempt)
            seal(fragment, journey.folder.fragment, through=self._carrier.context.catalog.layout.temporaries)
        self._forget(journey)

    @property
    def _carrier(self) -> Carrier:
        assert self.carrier is not None  # noqa: S101 - for the type checker
        return self.carrier


def _is_final(error: RunnableError | OSError) -> bool:
    """Return whether asking again is no use."""
    return isinstance(error, RegistryAuthError | UsageError)


def _message(error: RunnableError | OSError) -> str:
    if not isinstance(error, RunnableError):
        return str(error)
    return f"{error.message} ({error.hint})" if error.hint else error.message
