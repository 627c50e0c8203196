"""The loop: decide on each step, do it, append what happened to the run log, continue until nothing is left to do."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from runnable_ci.engine.attempt import AttemptResult, ExecutionContext, run_attempt
from runnable_ci.engine.code.code_recorder import CodeRecorder
from runnable_ci.engine.planning.first_look import first_look
from runnable_ci.engine.planning.plan import PlanState
from runnable_ci.engine.planning.schedule import Schedule, Tries, first_needs
from runnable_ci.engine.provenance.changes import Decision, Outcome
from runnable_ci.engine.provenance.pending_reads import Hashing, KeptReads
from runnable_ci.engine.reporter import Reporter
from runnable_ci.engine.step_output import LateMasks
from runnable_ci.errors import TOO_LITTLE, RunnableError, StepError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.events import AttemptSaved, Decided, Event, InvocationFinished, PackStored
from runnable_ci.runs.model import JOB, SUCCESS, RunLog, RunOutcome, StepAttempt, StepLog, status_of
from runnable_ci.runs.products.history import products_of
from runnable_ci.runs.recorder import Recorder
from runnable_ci.util.clock import now
from runnable_ci.util.console import console
from runnable_ci.util.threads import CLEAN_UP_S, Workers

if TYPE_CHECKING:
    from runnable_ci.engine.elsewhere.near_side import AttemptsElsewhere
    from runnable_ci.engine.planning.room import Room

_TICK_S = 1.0
_LAST_STEPS_S = 300.0
"""How long a step may run that runs though the run was cancelled; GitHub gives these as long."""

Result = AttemptResult | KeptReads | BaseException | Callable[[RunLog, list[Callable[[], None]]], list[Event]]
"""An attempt that is over, what one read, or what is to be recorded of one that runs, and done once it is."""


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """One invocation of a pipeline on an open run."""

    pipeline: Pipeline
    recorder: Recorder
    context: ExecutionContext
    code: CodeRecorder
    environment: Callable[[Step], str]
    """The key of a step's environment in the run log; waits until it is known."""
    printer: Reporter
    jobs: int
    state: PlanState
    room: Room | None = None
    """What this machine has for steps, where any says what it takes."""
    elsewhere: AttemptsElsewhere | None = None
    """Runs the steps that have an executor."""
    _away: set[str] = field(default_factory=set)
    """Of those that run the ones that do so elsewhere: they take nothing of this machine."""
    _held: set[str] = field(default_factory=set)
    """Steps that are decided on once an attempt is over that an earlier invocation began elsewhere."""
    _running: dict[str, bool] = field(default_factory=dict)
    """The steps whose attempt's result was not taken yet → whether a thread has it; else it is here already."""
    _workers: Workers = field(default_factory=lambda: Workers(name="step"))
    _once_recorded: list[Callable[[], None]] = field(default_factory=list)
    """What is done, and said, then: a terminal that is gone must not lose a finished attempt."""
    _results: SimpleQueue[tuple[str, Result]] = field(default_factory=SimpleQueue)
    _hashing: Hashing = field(init=False)
    _schedule: Schedule = field(default_factory=Schedule)
    _tries: Tries = field(default_factory=Tries)
    _maybe: frozenset[str] = frozenset()
    """The steps of which it was not known before the first one ran whether they are reused."""
    _masks: LateMasks = field(init=False)

    def __post_init__(self) -> None:
        """Let what was hashed come as attempts do."""
        self.context.products.report = self.tell
        self._masks = LateMasks(self.recorder, self.code)
        self._hashing = Hashing(self.tell, lambda: self.context.supervisor.cancelled_by)

    def tell(self, step: str, result: Result) -> None:
        """Take the result of a step, from any thread."""
        self._results.put((step, result))

    def execute(self) -> str:
        """Run the pipeline to its end; the status of the run. Nothing of it still runs when this returns or raises."""
        try:
            makers = self.context.catalog.products.steps
            look = first_look(self.pipeline, self.recorder.log, self.state, makers)
            self._maybe = frozenset(step.name for step in look.maybe)
            self._away = self.elsewhere.attach(self.recorder.log) if self.elsewhere else set()
            self._running |= dict.fromkeys(self._away, False)
            aside = [step for step in look.maybe if step.name not in self._away]
            if self.context.products.set_aside(aside, look.kept):
                self.code.code.forget()
            return self._loop()
        except BaseException:
            self.context.supervisor.cancel(signal.SIGKILL)
            if self.elsewhere:
                self.elsewhere.close()
            self._workers.end(timeout_s=CLEAN_UP_S)
            with suppress(RunnableError, OSError):
                self._masks.redact_past()
                self._masks.redact_outputs()
            raise

    def _loop(self) -> str:
        state, schedule = self.state, self._schedule
        for each in self.pipeline.steps.values():
            schedule.add(each.name, first_needs(each), state.position(each.name))
        events: list[Event] = []
        while True:
            if not events:  # what is recorded of a try decides on the next
                self._try_again()
            launches: list[tuple[Step, StepAttempt, Decision]] = []
            while step := self._next_step(sum(not it[1].executor for it in launches)):
                if step.branching is not None and (over := self._branches(step)) is not None:
                    events += over
                    continue
                with self.context.reads.observer.other_work():
                    decision = self._placed(step, self._decide(step))
                    if decision is None:
                        continue
                    looked = self.code.look() if decision.action == "run" else []
                step = state.prepared[step.name].step
                if decision.action != "run":
                    events += self._pass(step, decision)
                    schedule.settle(step.name)
                else:
                    events += looked
                    attempt = self._begin(step, decision)
                    events.append(AttemptSaved(step=step.name, attempt=attempt))
                    launches.append((step, attempt, decision))
            if events:
                self.recorder.record(*events)
            for do in self._once_recorded:
                do()
            self._once_recorded.clear()
            alone = not self._running and len(launches) == 1 and not self._tries
            for step, attempt, decision in launches:
                self._launch(step, attempt, decision.refusal, alone=alone)
            if not self._running and self._hashing.is_over() and not self._tries:
                return self._end()
            events = []
            if (came := self._next()) is None:
                continue
            name, result = came
            if self.recorder.restore() is not None:  # another step removed the store since this one ended
                from runnable_ci.runs.products.lost import restored_note

                self.printer.say(restored_note(self.recorder.layout))
            if isinstance(result, KeptReads):
                self._hashing.end(name)
                events = [result.saved(self.recorder.log.steps[name])]
            elif callable(result):
                events = result(self.recorder.log, self._once_recorded)
            else:
                events = self._finish(result)
                del self._running[name]
                self._away.discard(name)
                if self.room:
                    self.room.leave(name)
                if isinstance(result, AttemptResult) and result.is_attached:
                    events = self._record_attached(name, events)
                elif name not in self._tries:
                    schedule.settle(name)

    def _record_attached(self, step: str, events: list[Event]) -> list[Event]:
        """Record an attempt of an earlier invocation at once: what is recorded of it decides on its step."""
        self.recorder.record(*events)
        if step in self._held:
            self._held.remove(step)
            self._schedule.begin(step, self.state.position(step))
        return []

    def _try_again(self) -> None:
        """Let the steps begin of which another try is due; where the run was cancelled there is none."""
        if self.context.supervisor.cancelled_by:
            for name in self._tries.dropped():
                if self.context.budget:
                    self.context.budget.hold(name)
                self.state.record_outcome(self.state.steps[name], Outcome.FAILED, None)
                self._schedule.settle(name)
        elif self._tries and self._hashing.is_over():  # what a try read is recorded with it
            for name in self._tries.due(time.monotonic()):
                self._schedule.begin(name, self.state.position(name))

    def _next_step(self, launched: int) -> Step | None:
        """Return the step that begins next, when so many more are about to run here; None where none may."""
        found, busy, passed = None, len(self._running) - len(self._away) + launched, list[str]()
        if busy >= self.jobs and self.elsewhere is None:
            return None
        for name in self.room.due() if self.room else ():  # they waited for room, and there is some
            self._schedule.begin(name, self.state.position(name))
        while found is None and self._schedule and not (self.room and self.room.is_full and not self.elsewhere):
            step = self.state.steps[self._schedule.next()]
            if step.name in self._running:
                self._held.add(step.name)
            elif busy < self.jobs or step.runs_elsewhere:
                found = step
            else:
                passed.append(step.name)
        for name in passed:
            self._schedule.begin(name, self.state.position(name))
        return found

    def _placed(self, step: Step, decision: Decision) -> Decision | None:
        """Return the decision on a step that there is room for; None for one that waits, to be decided on then."""
        if self.room is None or step.runs_elsewhere:
            return decision
        placed = self.room.placed(step, decision, self._tries.number(step.name), self.printer.say)
        if placed is None and self.context.budget:
            self.context.budget.finished(step.name)
        return placed

    def _branches(self, step: Step) -> list[Event] | None:
        """Begin the branches of a step, or another round, or end it; None where it is itself to be decided on then."""
        from runnable_ci.engine.planning.advance import advance  # few pipelines have branches

        return advance(self.state, self._schedule, step, self.recorder.log, self._pass, self.printer.say)

    def _decide(self, step: Step) -> Decision:
        cancelled, budget = self.context.supervisor.cancelled_by, self.context.budget
        is_over = budget is not None and budget.follows_held(step)
        is_elsewhere = self.state.inputs.job is not None and bool(self.state.cancelled)
        self.state.is_cancelled = cancelled is not None or is_over or is_elsewhere
        decision = self.state.decide(step, self.recorder.log)
        if budget and decision.action == "run":
            decision = budget.decide(step, decision)
        if cancelled and decision.action == "run" and not decision.runs_though_cancelled:
            return Decision("skip", f"the run was cancelled by {cancelled.name}")
        return decision

    def _pass(self, step: Step, decision: Decision) -> list[Event]:
        """Settle a step that does not run; what is recorded of it."""
        if decision.action == "reuse":
            found, taken = decision.found, self.context.taken
            is_here = found is None or taken is None or taken.take(found)
            self.state.record_outcome(step, decision.outcome(), self.recorder.log.steps[step.name])
            if is_here:
                self.context.products.put_back(step.name)
            if is_here and step.name in self._maybe:
                self._restore(self.recorder.log.steps[step.name])
        else:
            self.state.record_outcome(step, decision.outcome(), None)
        self._once_recorded.append(lambda: self.printer.say(f"{decision.action}: {decision.reason}", step=step.shown))
        if self.state.is_left(step.name):
            from runnable_ci.engine.spread.collecting import decided_elsewhere  # few runs are shared by jobs

            return decided_elsewhere(step.name, decision, self.state, self.recorder.log)
        return [Decided(step=step.name, decision=decision.record(self.recorder.log, step.name))]

    def _restore(self, step: StepLog) -> None:
        """Bring back what a step made that is reused after all: in another clone it never was in the workspace."""
        for name in self.context.catalog.get(products_of(step))[1]:
            self.printer.say(self.context.catalog.describe_replaced(name))

    def _begin(self, step: Step, decision: Decision) -> StepAttempt:
        past = self.recorder.log.steps.get(step.name)
        attempt = StepAttempt(
            attempt_number=past.attempts[-1].attempt_number + 1 if past and past.attempts else 1,
            start_time=now(),
            code_identities=self.code.identities(step),
            code_state=self.code.key,
            code_seen=self.code.code.seen_at,
            invocation=self.recorder.log.invocation,
            reason=decision.reason,
            definition=step.definition(),
            mock=bool(step.mock),
            executor=step.executor if step.runs_elsewhere and not decision.refusal else "",
            resources=self.room.given(step, decision, self._tries.number(step.name)) if self.room else None,
        )
        if step.checkpoint and past:
            from runnable_ci.engine.checkpoints.use import resume_from_checkpoint  # few steps keep any

            resume_from_checkpoint(attempt, step, past, self.state, self.recorder.log)
        return attempt

    def _launch(self, step: Step, attempt: StepAttempt, refused: str, *, alone: bool) -> None:
        """Start an attempt; one that is `alone` is also finished here, which saves a thread.

        One that is `refused` fails by that before it begins.
        """
        scope, context = self.state.prepared[step.name].scope, self.context
        if attempt.executor and self.elsewhere:
            number = self._tries.number(step.name)
            self.elsewhere.launch(step, attempt, scope, self.recorder.log, self.state, number=number)
            self._running[step.name] = False
            self._away.add(step.name)
            return
        if context.supervisor.cancelled_by:
            context = replace(context, is_cancelled=True)
            last_s = context.budget.last_step_s(step) if context.budget else _LAST_STEPS_S
            step = step._replace(timeout_s=min(step.timeout_s or last_s, last_s, _LAST_STEPS_S))
        if self.room:
            context = replace(context, environ=self.room.environ(step.name, context.environ))
        past = self.recorder.log.steps.get(step.name)
        products = self.context.products.attempt(step, attempt.attempt_number, past)
        self.printer.started(step.shown)
        console.debug(f"{step.shown}: run: {attempt.reason}")

        def work(refusal: StepError | None = None) -> None:
            result: AttemptResult | BaseException
            try:
                wait()
                if refused and refusal is None:
                    refusal = StepError(refused)
                result = run_attempt(products, attempt, scope, context, refusal=refusal)
            except BaseException as e:  # noqa: BLE001 - handed over to the main thread, which raises it
                result = e
            self._results.put((step.name, result))

        wait = self._hashing.before([*(step.get or ()), *step.put])
        # While something is hashed this thread waits for that, to record it.
        is_here = alone and not step.checkpoint and self._hashing.is_over()
        has_thread = not is_here and self._workers.do(work, busy=sum(self._running.values()))
        if not has_thread:
            work(None if alone else StepError("cannot start a thread", hint=TOO_LITTLE))
        self._running[step.name] = has_thread

    def _next(self) -> tuple[str, Result] | None:
        """Return the next attempt that is over, or what one read or kept; None where there is none for a while."""
        with suppress(Empty):
            return self._results.get(timeout=self._tries.wait_s(time.monotonic(), at_most=_TICK_S))
        if self._workers.is_one_lost() and self._results.empty():
            raise StepError("a thread of a step ended without a result", hint=TOO_LITTLE)
        return None

    def _finish(self, result: AttemptResult | BaseException) -> list[Event]:
        if isinstance(result, BaseException):
            raise result
        if self.context.budget:
            self.context.budget.finished(result.step.name)
        self._masks.redact_past()
        if not result.attempt.executor:
            result.attempt.environment = self.environment(result.step)
        self._masks.note(result.products.title, result.learned)
        events = [*result.events, *(PackStored(digest=digest, pack=pack) for digest, pack in result.packs.items())]
        events.append(AttemptSaved(step=result.step.name, attempt=result.attempt, data_catalog=result.entries))
        if pending := result.pending:
            self._once_recorded.append(lambda: self._hashing.begin(result.step.name, pending))
        failed = result.attempt.status != SUCCESS
        recorded = StepLog(
            name=result.step.name,
            internal_name=result.step.name,
            attempts=[result.attempt],
            data_catalog=result.entries,
        )
        self.context.reads.products.note(recorded)
        took = "mocked" if result.step.mock == "nothing" else f"{result.seconds:.1f} s"
        text = f"failed after {took}: {self.recorder.redactor.text(result.attempt.message)}" if failed else took
        is_last = not failed or bool(self.context.supervisor.cancelled_by) or result.is_refused
        if result.is_attached:  # its step is decided on as if the invocation that began it had seen its end
            if failed:
                self._once_recorded.append(partial(self._set_aside, result.step))
        elif not is_last and (again := self._tries.again(result.step, result.attempt, time.monotonic())):
            text = f"attempt {result.attempt.attempt_number} {text}; {again}"
        else:
            outcome = Outcome.FAILED if failed else Outcome.RAN
            self.state.record_outcome(result.step, outcome, None if failed else recorded)
            if result.attempt.outcome == "cancelled":
                self.state.cancelled.add(result.step.name)
        self._once_recorded += [
            result.products.forget,
            result.forget,
            lambda: self.printer.finished(result.step.shown, text, failed=failed),
        ]
        return events

    def _set_aside(self, step: Step) -> None:
        if self.context.products.set_aside([step]):
            self.code.code.forget()

    def _end(self) -> str:
        self._workers.end(timeout_s=CLEAN_UP_S)
        if self.elsewhere:
            self.elsewhere.close()
        self._masks.redact_outputs()
        settled, not_run = self.state.settled.items(), (Outcome.SKIPPED, Outcome.OMITTED)
        self.context.products.finish(name for name, outcome in settled if outcome in not_run)
        failed = self.state.failed_steps()
        outcome: RunOutcome = "failed" if failed else "succeeded"
        message = f"failed: {', '.join(self.state.steps[name].shown for name in failed)}" if failed else ""
        ended_by, status = "", status_of(outcome)
        if self.state.inputs.job is not None:
            from runnable_ci.engine.spread.collecting import end_of_job  # few runs are shared by jobs

            outcome, message, ended_by, status = end_of_job(failed, self.state, self.recorder.log)
        if cancelled := self.context.supervisor.cancelled_by:
            outcome, message, ended_by = "cancelled", f"cancelled by {cancelled.name}", ""
        if (budget := self.context.budget) and (end := budget.end(failed, self.state.cancelled)):
            outcome, message, ended_by = end
        over = InvocationFinished.of(outcome, time=now(), message=message, ended_by=ended_by)
        self.recorder.record(*self.code.ended(over))
        return status if ended_by == JOB else status_of(outcome)
