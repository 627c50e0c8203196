"""A result that another run has, and what a run records that takes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.events import AttemptSaved, Event
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import SUCCESS, RunLog, StepAttempt, StepLog
from runnable_ci.runs.reuse.results import results_of, taking

if TYPE_CHECKING:
    from runnable_ci.runs.reuse.candidates import Candidate


class EarlierResult(NamedTuple):
    """A step's last attempt in another run, which succeeded."""

    name: str
    """The step."""
    log: RunLog
    """The run, or what of it the step's result refers to."""
    reads: ReadSet | None
    """What the attempt read; None where that is not known here."""
    indexed: Candidate | None = None
    """Where it was found in a registry; None for a run of this store."""
    packs: PackIndex | None = None
    """Where small contents of the log are, made once for all its steps."""

    @property
    def step(self) -> StepLog:
        """The step in that run."""
        return self.log.steps[self.name]

    @property
    def attempt(self) -> StepAttempt:
        """The attempt that made the result."""
        return self.step.attempts[-1]

    @property
    def place(self) -> str:
        """The branch among whose runs it was found; empty for this store."""
        return self.indexed.branch if self.indexed else ""

    @property
    def origin(self) -> str:
        """`RUN_ID/STEP.ATTEMPT` of what made it first."""
        return self.attempt.taken_from or f"{self.log.run_id}/{self.name}.{self.attempt.attempt_number}"

    @property
    def actor(self) -> str:
        """Who made it first, as far as that was recorded."""
        made = (one.actor for one in self.log.invocations if one.number == self.attempt.invocation)
        return self.attempt.taken_by or (self.indexed.entry.actor if self.indexed else next(made, ""))

    def asserted(self) -> StepLog:
        """Return the step as it is compared: what it left behind itself explains no difference of what it read."""
        entries = [entry for entry in self.step.data_catalog if entry.stage == "get"]
        found = [entry.model_copy(update={"kept": False, "left": ""}) for entry in entries]
        attempt = self.attempt.model_copy(update={"made": {}, "data_catalog": []})
        return self.step.model_copy(update={"attempts": [attempt], "data_catalog": found})

    def results(self) -> RunLog:
        """Return the log of the run with this result alone, and what it refers to."""
        return results_of(self.log, [self.name], self.packs)

    def events(self, known: RunLog) -> Iterator[Event]:
        """Yield the events by which a run has the result; `known` is its log."""
        past = known.steps.get(self.name)
        number = past.attempts[-1].attempt_number + 1 if past and past.attempts else 1
        for event in taking(self.results(), known.run_id, known):
            if isinstance(event, AttemptSaved):
                event.attempt.attempt_number, event.attempt.taken_by = number, self.actor
            yield event

    def __str__(self) -> str:
        run_id, _, made = self.origin.partition("/")
        number = made.rpartition(".")[2]
        time = self.attempt.end_time[:16].replace("T", " ")
        by = f"first made by {self.actor}" if self.actor else "first made"
        place = f" on {self.place}" if self.place else ""
        return f"run {run_id}{place}, attempt {number}, {by} at {time} UTC"


def may_be_reused(step: StepLog) -> bool:
    """Return whether what a run has of a step is a result that another run may take."""
    if not step.attempts:
        return False
    last = step.attempts[-1]
    return last.status == SUCCESS and not last.mock and last.was_observed
