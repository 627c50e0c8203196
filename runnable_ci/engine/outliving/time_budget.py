"""The time that an invocation may take: which steps still fit in, and the end of the run before it is over.

Such an end is like a cancellation, but nobody asked for it: a signal that comes then is the first one, and what was
held back or ended is left to the next invocation.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from runnable_ci.engine.outliving.known_durations import Expected, expected, known_durations
from runnable_ci.engine.provenance.changes import Decision
from runnable_ci.errors import BlobMissingError, RunLogError
from runnable_ci.pipeline.keys.durations import TimeLimit, parse_budget
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.model import TIME_BUDGET, RunLog, RunOutcome
from runnable_ci.runs.reader import load, run_ids
from runnable_ci.util.clock import elapsed_at, elapsed_s
from runnable_ci.util.process import GRACE_S, Supervisor
from runnable_ci.util.text import format_duration
from runnable_ci.util.threads import start

if TYPE_CHECKING:
    from runnable_ci.engine.options import Beside
    from runnable_ci.engine.session import RunSession
    from runnable_ci.pipeline.project import Project
    from runnable_ci.runs.recorder import Recorder

_SPARE_S: Final = 1.0
"""For what is recorded and stored once the steps have ended."""
_PUBLISHES: Final = 2.0
"""So many times what the last one took is left for publishing: the last one may be larger."""
_LOOK_S: Final = 0.5
_LOOK_MAX_S: Final = 30.0
_RUNS_MAX: Final = 5
"""In so many earlier runs at most it is looked up how long steps take."""


class End(NamedTuple):
    """How an invocation ended that a time budget ended, or bounded."""

    outcome: RunOutcome
    message: str
    ended_by: str = ""


@dataclass(slots=True, eq=False, repr=False)
class TimeBudget:
    """What is left of the time of an invocation; times are in seconds since the program began."""

    limit: TimeLimit
    over_at_s: float
    known: dict[str, Expected]
    say: Callable[..., None]
    keeping_s: Callable[[], float] = lambda: 0.0
    """Returns how long it takes to keep a checkpoint once more."""
    whole_s: float = field(init=False)
    """What there is of it for steps when none has begun."""
    is_over: bool = False
    """Whether it has ended the run."""
    _is_signalled: bool = False
    _held: set[str] = field(default_factory=set)
    """Steps that were held back, the groups that they are of, and what follows these."""
    _longer: set[str] = field(default_factory=set)
    """Steps that run though they take longer than all of it."""
    _last: set[str] = field(default_factory=set)
    """Steps that began after it was over."""
    _has_begun: bool = False
    _publishing_s: Callable[[], float] = lambda: 0.0
    _supervisor: Supervisor | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a handler may run within a handler

    def __post_init__(self) -> None:
        self.whole_s = self.left_s()

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"the time budget {self.limit}"

    def left_s(self) -> float:
        """Return how long steps may run from now on: what it takes to end and publish the run is left beside."""
        end_s = _SPARE_S + _PUBLISHES * self._publishing_s()
        if not self.is_over:
            end_s += GRACE_S + self.keeping_s()
        return self.over_at_s - elapsed_s() - end_s

    @property
    def is_ending(self) -> bool:
        """Whether it ends the run, and nobody else does."""
        return self.is_over and not self._is_signalled

    # -- the end

    def beside(self, others: Beside) -> Beside:
        """Return what is done while the steps run: to end them in time, beside the `others`."""

        @contextmanager
        def both(recorder: Recorder, supervisor: Supervisor) -> Iterator[Callable[[], float]]:
            with others(recorder, supervisor) as publishing_s:
                self._supervisor, self._publishing_s = supervisor, publishing_s
                thread = start(self._wait, name="time budget")
                if thread is None:
                    self.say(f"note: {self} ends no step that runs: the system allows no thread for it")
                try:
                    yield publishing_s
                finally:
                    self._closed.set()
                    if thread:
                        thread.join()

        return both

    def _wait(self) -> None:
        while (left_s := self.left_s()) > 0 or self._longer:
            wait_s = _LOOK_S if left_s <= 0 else min(left_s, _LOOK_MAX_S)
            if self._closed.wait(wait_s):
                return
        self._end()

    def _end(self) -> None:
        supervisor = self._supervisor
        with self._lock:
            if supervisor is None or supervisor.cancelled_by is not None or self._closed.is_set():
                return
            self.is_over = True
            supervisor.cancel(signal.SIGTERM)
        # Without the lock: a handler waits for it, perhaps where it keeps the terminal from being written to.
        self.say(f"{self} is over: the run is ended, to be resumed")

    def cancel(self, by: signal.Signals) -> None:
        """End the run by a signal from outside, which is the first one though the time was over before."""
        supervisor = self._supervisor
        if supervisor is None:
            return
        with self._lock:
            if self.is_ending:
                self._is_signalled, supervisor.cancelled_by = True, by
            else:
                supervisor.cancel(by)

    # -- the steps

    def follows_held(self, step: Step) -> bool:
        """Return whether a step comes after one that was held back."""
        if found := not self._held.isdisjoint(step.needs):
            self._held.add(step.name)
        return found

    def decide(self, step: Step, decision: Decision) -> Decision:
        """Return what to do with a step that is to run: that, or to hold it back."""
        if self._is_signalled:
            return decision
        left_s = self.left_s()
        if left_s <= 0 or (self.is_over and not decision.runs_though_cancelled):
            return self._hold(step, f"{self} is over")
        takes = None if step.mock == "nothing" else expected(step, self.known)
        if takes and takes.seconds > left_s and (self.is_over or not step.checkpoint):
            # Where the time ends at a moment another invocation may have more of it, if this one has done something.
            is_too_long = takes.seconds > self.whole_s and not self.is_over
            if not is_too_long or (self.limit.until and self._has_begun):
                return self._hold(step, self._has_too_little(left_s, takes))
            self._longer.add(step.name)
            self.say(f"note: {self} does not end this step: {self.why_too_long(takes)}", step=step.shown)
        self._has_begun = True
        return decision

    def too_late(self, step: Step) -> str:
        """Return why a step that waits elsewhere is not to begin any more: it would not end in time; else empty."""
        takes, left_s = expected(step, self.known), self.left_s()
        if self.is_over or step.checkpoint or not takes or step.name in self._longer or takes.seconds <= left_s:
            return ""
        return self._has_too_little(left_s, takes)

    def _has_too_little(self, left_s: float, takes: Expected) -> str:
        return f"{self} has {format_duration(max(0.0, left_s))} left for steps, and {takes.source}"

    def why_too_long(self, takes: Expected) -> str:
        """Return why a step could never be finished in time."""
        return (
            f"it leaves {format_duration(max(0.0, self.whole_s))} for steps, {takes.source}, and without a "
            "`checkpoint` it would begin again each time"
        )

    def _hold(self, step: Step, reason: str) -> Decision:
        self.hold(step.name)
        return Decision("skip", reason)

    def hold(self, step: str) -> None:
        """Leave a step, or another try of it, to the next invocation."""
        self._held.update((step, *groups_of(step)))

    def last_step_s(self, step: Step) -> float:
        """Return how long a step may take at most that begins though the time is over."""
        self._last.add(step.name)
        return max(self.left_s(), 0.1)

    def finished(self, step: str) -> None:
        """Take note that a step has ended."""
        self._longer.discard(step)

    def end(self, failed: Collection[str], cancelled: Collection[str]) -> End | None:
        """Return how the invocation ended, by the steps that failed, and those of them that were ended with the run.

        None where that has nothing to do with the time. A step that failed by itself is for people, not for a retry.
        """
        if self._is_signalled or not (self.is_over or self._held):
            return None
        own = [name for name in failed if not (name in cancelled or name in self._held or name in self._last)]
        if own:
            return End("failed", f"failed: {', '.join(own)}; {self} was over")
        if self._held or failed:
            return End("cancelled", f"stopped by its time budget {self.limit}", TIME_BUDGET)
        return End("succeeded", "")


def budget_of(session: RunSession, log: RunLog, keeping_s: Callable[[], float] = lambda: 0.0) -> TimeBudget:
    """Return the time budget of an invocation that has one, of which the log is `log` so far."""
    pipeline, options = session.project.pipeline, session.options
    limit = options.time_budget or parse_budget(pipeline.time_budget or "")
    over_at_s = elapsed_at(limit.until) if limit.until else limit.length_s
    wanted = [name for name, step in pipeline.steps.items() if step.branching is None and not step.checkpoint]
    known = known_durations(chain([log], _earlier(session.project, log)), wanted)
    return TimeBudget(limit, over_at_s, known, options.printer.say, keeping_s)


def _earlier(project: Project, log: RunLog) -> Iterator[RunLog]:
    """Yield the newest runs of the same pipeline in the store."""
    others = (run_id for run_id in reversed(run_ids(project.layout)) if run_id != log.run_id)
    for run_id in islice(others, _RUNS_MAX):
        try:
            found = load(project.layout, run_id)
        except (RunLogError, BlobMissingError):  # damaged
            continue
        if found.name == project.pipeline.name:
            yield found
