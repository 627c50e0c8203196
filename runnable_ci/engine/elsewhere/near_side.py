"""Attempts elsewhere, followed from here by one thread: launched, read as they run, and taken once they are sealed."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from runnable_ci.engine.attempt import AttemptResult, ExecutionContext
from runnable_ci.engine.elsewhere.flights import Flight
from runnable_ci.engine.elsewhere.launchers import CommandLauncher, Launcher
from runnable_ci.engine.elsewhere.life import LifeSeen
from runnable_ci.engine.elsewhere.messages import MessageReader
from runnable_ci.engine.elsewhere.queues import Queue, queue_name
from runnable_ci.engine.elsewhere.slurm import SlurmLauncher
from runnable_ci.engine.elsewhere.ticket_contents import ticket_of
from runnable_ci.engine.elsewhere.tickets import Setting, Ticket, read_private, write_private
from runnable_ci.engine.planner import Scope
from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.errors import RunnableError, StepError
from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.keys.resources import Share, share_of
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.elsewhere.places import ElsewhereFolder
from runnable_ci.runs.events import AttemptSaved, Event
from runnable_ci.runs.files.checkpoint_model import Checkpoint
from runnable_ci.runs.model import PROCESSING, RunLog, StepAttempt
from runnable_ci.runs.paths import in_flight
from runnable_ci.runs.products.step_products import StepProducts
from runnable_ci.util.threads import CLEAN_UP_S, start

if TYPE_CHECKING:
    from runnable_ci.engine.elsewhere.apart.carrier import Carrier
    from runnable_ci.engine.outliving.time_budget import TimeBudget

_TICK_S: Final = 0.02
_CALM_TICK_S: Final = 0.2
_CALM_AFTER_S: Final = 10.0
_STOP_S: Final = 30.0
"""How long an attempt may take to end that was asked to, before its worker is ended."""

Tell = Callable[
    [str, "AttemptResult | BaseException | Callable[[RunLog, list[Callable[[], None]]], list[Event]]"], None
]


@dataclass(slots=True, eq=False, repr=False)
class AttemptsElsewhere:
    """All attempts of an invocation that run elsewhere. `launch` and `attach` are called by the loop's thread."""

    context: ExecutionContext
    folder: ElsewhereFolder
    executors: Mapping[str, Executor]
    setting: Setting
    tell: Tell
    carrier: Carrier | None = None
    """Carries attempts to machines that share no folder with this one."""
    _new: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)
    _flights: dict[str, Flight] = field(default_factory=dict)
    _queues: dict[str, Queue] = field(default_factory=dict)
    _launchers: dict[str, Launcher] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _is_over: threading.Event = field(default_factory=threading.Event)
    _waiting_s: dict[str, float] = field(default_factory=dict)
    """Attempt that waits for a worker → since when."""

    # -- called by the loop

    def launch(
        self,
        step: Step,
        attempt: StepAttempt,
        scope: Scope,
        log: RunLog,
        state: PlanState,
        *,
        number: int,
    ) -> None:
        """Send an attempt to its executor; the try has this `number` in the invocation."""
        context = self.context
        products = context.products.attempt(step, attempt.attempt_number, log.steps.get(step.name))
        context.printer.started(step.shown)
        context.reads.observer.begin(step.name)
        flight, share = self._flight(step, attempt, products), share_of(step.resources, number)
        flight.queue = queue_name(step.executor, share)
        ticket = ticket_of(step, attempt, scope, products, state, context, known=self.setting.secrets)
        self._new.put(lambda: self._place(flight, ticket, share))
        self._begin()

    def attach(self, log: RunLog) -> set[str]:
        """Follow what an earlier invocation sent to its executor and nobody saw end; the names of these steps."""
        found = set()
        for title in sorted(in_flight(self.context.catalog.layout, self.setting.run_id)):
            folder = self.folder.attempt(title)
            step_name, _, number = title.rpartition(".")
            recorded = log.steps.get(step_name)
            attempt = recorded.attempts[-1] if recorded and recorded.attempts else None
            if (
                recorded is None
                or attempt is None
                or attempt.status != PROCESSING
                or str(attempt.attempt_number) != number
            ):
                shutil.rmtree(folder.path, ignore_errors=True)  # its end was recorded
                continue
            queue = str(folder.noted("note").get("queue", ""))
            waiting = self.folder.queue(queue).waiting / title
            ticket = read_private(waiting if waiting.exists() else folder.ticket, Ticket)
            products = self.context.products.attempt(ticket.step, attempt.attempt_number, recorded)
            flight = self._flight(ticket.step, attempt, products)
            flight.is_attached = True
            flight.queue = queue
            self.context.printer.say(f"attached to attempt {number} on {attempt.executor}", step=ticket.step.shown)
            self._new.put(partial(self._follow, flight))
            found.add(step_name)
        if found:
            self._begin()
        return found

    def close(self) -> None:
        """End all that is still there, within seconds, and give back what was allocated."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(CLEAN_UP_S)

    def _flight(self, step: Step, attempt: StepAttempt, products: StepProducts) -> Flight:
        context, folder = self.context, self.folder.attempt(products.title)

        def checkpoint(made: Checkpoint, number: int) -> None:
            def events(log: RunLog, once_recorded: list[Callable[[], None]]) -> list[Event]:
                past = log.steps[step.name]
                saved = past.attempts[-1].model_copy(update={"checkpoint": made})
                once_recorded.append(lambda: folder.note("recorded", number=number))
                return [AttemptSaved(step=step.name, attempt=saved, data_catalog=past.data_catalog)]

            self.tell(step.name, events)

        reader = MessageReader(
            folder.messages,
            say=context.printer.say,
            output=context.printer.output,
            mask=context.masks.learn,
            checkpoint=checkpoint,
        )
        executor = attempt.executor or step.executor
        flight = Flight(step, attempt, products, folder, executor, "", context.redactor.learned, reader)
        if self.carrier and executor in self.executors and self.executors[executor].project:
            flight.land = self.carrier.land
        flight.begin()
        return flight

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = start(self._work, name="elsewhere")
            if self._thread is None:
                raise StepError("cannot start a thread", hint="attempts elsewhere are followed by one")

    # -- in the thread

    def _work(self) -> None:
        try:
            self.folder.create()
            while not self._is_over.is_set():
                self._take_new()
                moved = self._look()
                self._wait(moved)
            self._end()
        except BaseException as e:  # noqa: BLE001 - handed over to the main thread, which raises it
            self.tell("", e)

    def _take_new(self) -> None:
        while True:
            try:
                self._new.get(block=False)()
            except Empty:
                return

    def _wait(self, moved: bool) -> None:
        if not self._flights:
            try:
                self._new.get(timeout=_CALM_TICK_S)()
            except Empty:
                return
        elif not moved:
            newest = max((queue.started_s for queue in self._queues.values()), default=0.0)
            calm = time.monotonic() - newest > _CALM_AFTER_S and not self._waiting_s
            time.sleep(_CALM_TICK_S if calm else _TICK_S)

    def _place(self, flight: Flight, ticket: Ticket, share: Share) -> None:
        """Write the ticket of an attempt where its workers look for it."""
        if self.context.taken is not None:
            try:
                self.context.taken.bring(ticket.step, ticket.scope)
            except RunnableError as e:
                self._give(flight, flight.lost(e.message, "failed"))
                return
        queue = self._queue(flight.queue, flight.executor, share)
        queue.open()
        setting = self.folder.setting(self.setting.invocation)
        if not setting.exists():
            write_private(setting, self.setting)
        flight.prepare(share, self.setting.invocation)
        write_private(queue.tickets / flight.products.title, ticket)
        self._flights[flight.products.title] = flight
        self._waiting_s[flight.products.title] = time.monotonic()

    def _follow(self, flight: Flight) -> None:
        """Follow an attempt of an earlier invocation: its worker may run yet, or its fragment be there."""
        title, noted = flight.products.title, flight.folder.noted("note")
        self._flights[title] = flight
        if flight.executor not in self.executors or not noted:
            flight.why = "its executor is in the pipeline file no more"
            if self._call_back(flight):
                self._give(flight, flight.lost(flight.why))
            flight.folder.end("near")  # a worker that has it leaves by that
            return
        try:
            share = Share(*map(int, noted.get("share", ())))
        except (TypeError, ValueError):
            share = Share()
        queue = self._queue(flight.queue, flight.executor, share)
        queue.attach()
        if not flight.taken() and self._call_back(flight):  # else it would run what the files here are by now
            self._give(flight, flight.lost("no worker had begun it"))
        elif not flight.worker:
            self._waiting_s[title] = time.monotonic()

    def _queue(self, name: str, executor_name: str, share: Share) -> Queue:
        if name not in self._queues:
            executor = self.executors[executor_name]
            launcher = self._launcher(executor)
            if executor.project:
                from runnable_ci.engine.elsewhere.apart.queue import ApartQueue  # most machines share their folders

                self._queues[name] = ApartQueue(name, executor, share, launcher, self.folder, carrier=self.carrier)
            else:
                self._queues[name] = Queue(name, executor, share, launcher, self.folder)
        return self._queues[name]

    def _launcher(self, executor: Executor) -> Launcher:
        if executor.name not in self._launchers:
            kind = SlurmLauncher if executor.slurm is not None else CommandLauncher
            here = ("runnable-ci",) if executor.project else (sys.executable, "-P", "-m", "runnable_ci")
            program = executor.program or here
            self._launchers[executor.name] = kind(
                executor._replace(program=tuple(program)),
                self.context.supervisor,
                self.folder,
                self.setting.workspace,
                self.setting.environ,
                socket.gethostname(),
            )
        return self._launchers[executor.name]

    def _look(self) -> bool:
        """Look at all attempts once; whether one has come to its end."""
        moved, supervisor = False, self.context.supervisor
        for title, flight in list(self._flights.items()):
            flight.reader.read()
            if title in self._waiting_s and flight.taken():
                flight.waited_s = time.monotonic() - self._waiting_s.pop(title)
                if flight.queue in self._queues:
                    self._queues[flight.queue].prove(flight.worker, flight.folder.noted("taken").get("job") or {})
            if result := flight.landed(partial(self._reason, flight.queue)):
                self._give(flight, result)
                moved = True
            elif supervisor.cancelled_by:
                self._cancel(flight, supervisor.cancelled_by)
            elif title in self._waiting_s and self.context.budget:
                self._hold(flight, self.context.budget)
        for queue in self._queues.values():
            self._look_at(queue)
        for flight in [it for it in self._flights.values() if it.queue not in self._queues]:
            self._may_be_lost(flight, flight.why)
        return moved

    def _look_at(self, queue: Queue) -> None:
        """Find out which workers of a queue are gone, and start those that are missing."""
        titles = [title for title, it in self._flights.items() if it.queue == queue.name]
        waiting = [title for title in titles if title in self._waiting_s]
        queue.look(has_waiting=bool(waiting))
        queue.see_off({self._flights[title].worker for title in titles})
        for flight in [self._flights[title] for title in titles]:
            if flight.taken() and flight.worker not in queue.workers:
                self._may_be_lost(flight, queue.last_words)
        if waiting and not self.context.supervisor.cancelled_by:
            if why := queue.refusal():
                self._refuse(waiting, why)
            else:
                queue.start_missing([self._waiting_s[title] for title in waiting])
                if news := queue.news([self._waiting_s[title] for title in waiting]):
                    self.context.printer.say(f"waits for {news}", step=self._flights[waiting[0]].step.shown)
        elif not waiting:
            queue.withdraw()

    def _reason(self, queue: str, worker: str) -> str | None:
        """Return why a worker's scheduler ended it; None where there is none."""
        found = self._queues.get(queue)
        return found.launcher.reason(worker) if found else None

    def _give(self, flight: Flight, result: AttemptResult) -> None:
        """Hand a result over to the loop, which has it recorded."""
        title = flight.products.title
        self._flights.pop(title, None)
        self._waiting_s.pop(title, None)
        if not flight.is_attached:
            self.context.reads.observer.end(flight.step.name)
        result.forget = flight.forget
        self.tell(flight.step.name, result)

    def _may_be_lost(self, flight: Flight, why: str) -> None:
        """Give an attempt up whose launcher is gone, and whose worker neither lives nor left a fragment."""
        if flight.folder.fragment.exists():
            return  # it counts, and is taken at the next look
        if flight.life is None:
            flight.life, flight.why = LifeSeen(flight.folder), flight.unsealed() or why or "its worker is gone"
        found = flight.life.look()
        if found == "lost":
            is_stopped, queue = flight.stopped_s is not None, self._queues.get(flight.queue)
            said = queue.launcher.last_reason(flight.worker) if queue and not is_stopped else ""
            if said is not None:  # else the scheduler may find out yet
                lost = flight.lost("cancelled", "cancelled") if is_stopped else flight.lost(said or flight.why)
                self._give(flight, lost)
        elif found == "lives":
            self.context.printer.say("its launcher has ended, its worker continues", step=flight.step.shown)

    def _refuse(self, waiting: Collection[str], why: str) -> None:
        """Fail attempts for which no worker can be started."""
        for title in waiting:
            flight = self._flights[title]
            if self._call_back(flight):
                self._give(flight, flight.lost(why, "failed"))

    def _hold(self, flight: Flight, budget: TimeBudget) -> None:
        """Leave an attempt to the next invocation that waits for others here, and could not end in time any more."""
        queue = self._queues.get(flight.queue)
        if queue and queue.proven and (late := budget.too_late(flight.step)) and self._call_back(flight):
            budget.hold(flight.step.name)
            self._give(flight, flight.lost(late, "cancelled"))

    def _call_back(self, flight: Flight) -> bool:
        """Take a ticket back; False where a worker was faster."""
        try:
            (self.folder.queue(flight.queue).waiting / flight.products.title).unlink()
        except FileNotFoundError:
            return False
        return True

    def _cancel(self, flight: Flight, by: signal.Signals) -> None:
        """Ask an attempt to end; what does not within half a minute is ended with its worker."""
        moment = time.monotonic()
        if flight.products.title in self._waiting_s and self._call_back(flight):
            flight.stopped_s = moment
            self._give(flight, flight.lost("cancelled", "cancelled"))
            return
        again = self.context.supervisor.is_killing
        if flight.stopped_s is None or again:
            text = f"{int(by)}{' again' if again else ''}"
            flight.stopped_s = flight.stopped_s or moment
            if not flight.folder.stop.exists() or flight.folder.stop.read_text() != text:
                flight.folder.stop.write_text(text)
        if moment - flight.stopped_s > _STOP_S:
            flight.stopped_s = moment
            queue = self._queues.get(flight.queue)
            if queue and (handle := queue.workers.get(flight.worker)):
                queue.launcher.stop([handle])
            elif flight.taken():
                flight.folder.end("near")  # its worker ends the step by that

    def _end(self) -> None:
        """Have all workers end: those that are idle by themselves, others at once."""
        for queue in self._queues.values():
            queue.close()
            queue.withdraw(at_once=True)
            queue.see_off(())
        busy = {it.worker for it in self._flights.values() if it.worker}
        for flight in self._flights.values():
            if flight.folder.path.exists():
                flight.folder.stop.write_text(f"{int(signal.SIGKILL)} again")
        until = time.monotonic() + CLEAN_UP_S / 2
        left = {q.name: q for q in self._queues.values() if q.workers}
        while left and time.monotonic() < until:
            for queue in list(left.values()):
                for worker in queue.launcher.alive(list(queue.workers.values())):
                    del queue.workers[worker]
                if not queue.workers:
                    del left[queue.name]
            time.sleep(_TICK_S)
        for queue in left.values():
            queue.launcher.stop(list(queue.workers.values()))
        if not busy and not in_flight(self.context.catalog.layout, self.setting.run_id):
            shutil.rmtree(self.folder.path, ignore_errors=True)
