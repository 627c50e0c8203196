"""A result that another run has, and what a run records that takes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from runnable_ci.engine.parts.taken import results_of, taking
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.events import AttemptSaved, Event
from runnable_ci.runs.model import SUCCESS, Pack, RunLog, StepAttempt, StepLog
from runnable_ci.util.text import seconds_between


class Candidate(NamedTuple):
    """A step's last attempt in another run, which succeeded."""

    name: str
    """The step."""
    log: RunLog
    """The run, or what of it the step's result refers to."""
    reads: ReadSet | None
    """What the attempt read; None where that is not known here."""
    place: str = ""
    """The branch among whose runs it was found; empty for this store."""

    @property
    def step(self) -> StepLog:
        """The step in that run."""
        return self.log.steps[self.name]

    @property
    def attempt(self) -> StepAttempt:
        """The attempt that made the result."""
        return self.step.attempts[-1]

    @property
    def packs(self) -> Mapping[str, Pack]:
        """The packs that its files may be in."""
        return self.log.packs

    @property
    def origin(self) -> str:
        """`RUN_ID/STEP.ATTEMPT` of what made it first."""
        return self.attempt.taken_from or f"{self.log.run_id}/{self.name}.{self.attempt.attempt_number}"

    @property
    def actor(self) -> str:
        """Who made it first, as far as that was recorded."""
        made = (one.actor for one in self.log.invocations if one.number == self.attempt.invocation)
        return self.attempt.taken_by or next(made, "")

    @property
    def seconds(self) -> float:
        """How long the attempt took."""
        return seconds_between(self.attempt.start_time, self.attempt.end_time) or 0.0

    def asserted(self) -> StepLog:
        """Return the step as it is compared: what it left behind itself explains no difference of what it read."""
        entries = [entry for entry in self.step.data_catalog if entry.stage == "get"]
        found = [entry.model_copy(update={"kept": False, "left": ""}) for entry in entries]
        attempt = self.attempt.model_copy(update={"made": {}, "data_catalog": []})
        return self.step.model_copy(update={"attempts": [attempt], "data_catalog": found})

    def events(self, run_id: str, past: StepLog | None) -> Iterator[Event]:
        """Yield the events by which a run has the result; `past` is what it has of the step already."""
        number = past.attempts[-1].attempt_number + 1 if past and past.attempts else 1
        alone = self.log.model_copy(update={"steps": {self.name: self.step}})
        for event in taking(results_of(alone, [self.name.partition(".")[0]]), run_id):
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
