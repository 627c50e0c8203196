"""What is decided on a step, and what speaks against reusing a finished one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.model import PROCESSING, SUCCESS, DecisionRecord, Parameter, RunLog, StepAttempt, StepLog, Warn
from runnable_ci.runs.run_identity import has_run_since, maker

Kind = Literal["code", "data"]


class Change(NamedTuple):
    """One thing that speaks against reusing a finished step."""

    reason: str
    """What differs, in one line."""
    kind: Kind
    state: Any = None
    """What is there now, as JSON: another change of the same thing is another change."""
    is_tentative: bool = False
    is_requested: bool = False

    def digest(self) -> str:
        """Return what tells the change from others."""
        return hashlib.sha256(json.dumps([self.kind, self.state], sort_keys=True).encode()).hexdigest()


class Acceptance(NamedTuple):
    """A person's consent that a finished step may be reused though something differs."""

    by: str
    reason: str


class FoundResult(Protocol):
    """A step's result in another run."""

    @property
    def step(self) -> StepLog:
        """The step there."""

    @property
    def origin(self) -> str:
        """`RUN_ID/STEP.ATTEMPT` of what made it first."""

    @property
    def place(self) -> str:
        """The branch among whose runs it was found; empty for this store."""


class Outcome(Enum):
    """How a step was settled in this invocation."""

    RAN = "ran"
    REUSED = "reused"
    FAILED = "failed"
    SKIPPED = "skipped"
    """A step before it failed, or the run was cancelled."""
    OMITTED = "omitted"
    """Its condition did not hold, or only such a step makes what it takes: what merely follows it runs."""
    PLANNED = "planned"
    """It would run, and what it would return and put is not known yet: only in plans."""


class Decision(NamedTuple):
    """What to do with a step (`run`, `reuse` or `skip`), with its reason in one line."""

    action: str
    reason: str
    warning: Warn | None = None
    """What speaks against a reuse."""
    kind: Kind | None = None
    """What changed, where that is why the step runs."""
    is_tentative: bool = False
    """A step before it runs first: if all that it receives is the same then, it is reused. Only in plans."""
    is_requested: bool = False
    """The person who resumes asked for it: by `--from`, or by a parameter."""
    is_lost: bool = False
    """What it made is in no store: it cannot be reused."""
    acceptance: Acceptance | None = None
    """Who accepted what differs, where it is reused nevertheless."""
    accepted: tuple[str, ...] = ()
    """The digests of the changes that were accepted."""
    is_omission: bool = False
    """Of a skip: what merely follows the step runs."""
    refusal: str = ""
    """Why the step that runs fails before it begins: an expression of it has no value."""
    runs_though_cancelled: bool = False
    """Its condition holds in a run that was cancelled."""
    found: FoundResult | None = None
    """The result of another run that takes the place of running it."""
    settled: Outcome | None = None
    """How another job left the step, where it is not this one's own."""

    def outcome(self) -> Outcome:
        """Return how a step is settled that is not run now."""
        if self.settled is not None:
            return self.settled
        match self.action:
            case "reuse":
                return Outcome.REUSED
            case "run":
                return Outcome.PLANNED
            case _:
                return Outcome.OMITTED if self.is_omission else Outcome.SKIPPED

    def record(self, log: RunLog, step: str) -> DecisionRecord:
        """Return the decision as the run log stores it."""
        record = DecisionRecord(action=self.action, reason=self.reason, warning=self.warning or "")
        record.reused_from = maker(log, step) if self.action == "reuse" else ""
        if self.found is not None:
            record.taken_from, record.taken_branch = self.found.origin, self.found.place
        if self.acceptance is not None:
            record.accepted_by, record.accepted_reason = self.acceptance.by, self.acceptance.reason
            record.accepted_changes = list(self.accepted)
        return record


def changed_definition(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which keys of a definition changed, empty if none did.

    The order of `returns` is that of a function's tuple.

    A mock's is no definition of the step. What a step needs is no part of it: earlier versions recorded it there for
    the order alone.
    """
    if then.get("mock") != now.get("mock"):
        return "it was mocked" if then.get("mock") else "it is mocked now"
    keys = [
        f"`{key}`"
        for key in {**then, **now}
        if key != "needs" and json.dumps(then.get(key)) != json.dumps(now.get(key))
    ]
    return f"its {', '.join(keys)} changed" if keys else ""


def same_json(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: unlike in Python, 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def short_value(value: Any) -> str:
    """Return a value in a few words."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def one_line(reason: str) -> str:
    """Return a text without line breaks."""
    return " ".join(reason.split())


def consumed(attempt: StepAttempt) -> list[str]:
    """Return the parameters on which an attempt's result hangs, as far as it is known."""
    return [*(attempt.consumed if attempt.was_observed else attempt.input_parameters), *attempt.defaulted]


def changed_parameters(
    step: Step,
    last: StepAttempt,
    parameters: Mapping[str, Parameter],
    initial: Mapping[str, Parameter],
    log: RunLog,
    mask: Callable[[Any], Any],
) -> Iterator[tuple[str, str]]:
    """Yield which parameters of the attempt have changed, or are now set where a default was used, and how.

    `initial` are those of `parameters` that the run began with. Of one that was redacted nobody knows the earlier
    value: it counts as the same if it is redacted again.
    """
    for name in last.consumed if last.was_observed else last.input_parameters:
        then = last.input_parameters[name]
        if name not in parameters:
            yield name, f"parameter {name} was removed"
            continue
        now = parameters[name]
        clean = mask(now.value)
        if then.redacted and (now.redacted or clean != now.value):
            continue
        if then.kind != now.kind or not same_json(then.value, now.value) or then.data_hash != now.data_hash:
            yield name, f"parameter {name} changed: {short_value(mask(then.value))} → {short_value(clean)}"
    for name in last.defaulted:
        if name in parameters:
            yield name, f"parameter {name} is now set: {short_value(mask(parameters[name].value))}"
    if not last.was_observed:
        yield from _unseen_parameters(step, last, initial, log)


def _unseen_parameters(
    step: Step, last: StepAttempt, initial: Mapping[str, Parameter], log: RunLog
) -> Iterator[tuple[str, str]]:
    """Yield which parameters changed that a shell step had, in a log that does not tell whether it used them."""
    if step.kind != "run" or step.parameters is not None:
        return
    then = next((invocation for invocation in log.invocations if invocation.number == last.invocation), None)
    if then is None:
        return
    comparable = then.parameters.keys() - set(then.redacted)
    for name, now in initial.items():
        if name in comparable and not same_json(then.parameters[name], now.value):
            yield name, f"parameter {name} changed, and whether it was used was not seen"


def has_run_since_attempt(log: RunLog, need: Step, last: StepAttempt) -> bool:
    """Return whether a step, or one of its branches, has run since an attempt at another."""
    own = [need.name] if need.branching is None else [n for n in need.needs if need.name in groups_of(n)]
    return any(has_run_since(log, name, last) for name in own if has_attempts(log, name))


def has_attempts(log: RunLog, step: str) -> bool:
    """Return whether the log has an attempt at a step."""
    return step in log.steps and bool(log.steps[step].attempts)


def effective_needs(step: Step, steps: Mapping[str, Step], settled: Mapping[str, Outcome]) -> list[str]:
    """Return the steps that a step follows: in place of one that was not run, those that this one follows."""
    found: dict[str, None] = {}
    waiting = list(reversed(step.needs))
    while waiting:
        need = waiting.pop()
        if settled[need] in (Outcome.OMITTED, Outcome.SKIPPED):
            waiting.extend(reversed(steps[need].needs))
        else:
            found[need] = None
    return list(found)


def unfinished_attempt(last: StepAttempt) -> str:
    """Return why a step runs again whose last attempt did not succeed; empty if it did."""
    if last.status == SUCCESS:
        return ""
    if last.status == PROCESSING:
        return f"attempt {last.attempt_number} has not ended"
    return f"attempt {last.attempt_number} failed: {last.message}" if last.message else "its last attempt failed"
