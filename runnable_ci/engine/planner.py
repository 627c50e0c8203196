"""The one decision of the loop: what to do with a step, and why. Pure: it looks at values and returns values.

A first run is the loop on an empty log, a retry is the same loop on a reopened log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from runnable_ci.engine.provenance.changes import (
    Acceptance,
    Change,
    Kind,
    changed_definition,
    one_line,
    same_json,
    short_value,
)
from runnable_ci.pipeline.model import Pipeline, Step
from runnable_ci.runs.model import SUCCESS, CatalogEntry, DecisionRecord, Parameter, RunLog, StepAttempt, StepLog, Warn
from runnable_ci.runs.products.history import products_of
from runnable_ci.runs.run_identity import has_run_since, maker

T = TypeVar("T")


class Outcome(Enum):
    """How a step was settled in this invocation."""

    RAN = "ran"
    REUSED = "reused"
    FAILED = "failed"
    SKIPPED = "skipped"
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

    def record(self, log: RunLog, step: str) -> DecisionRecord:
        """Return the decision as the run log stores it."""
        record = DecisionRecord(action=self.action, reason=self.reason, warning=self.warning or "")
        record.reused_from = maker(log, step) if self.action == "reuse" else ""
        if self.acceptance is not None:
            record.accepted_by, record.accepted_reason = self.acceptance.by, self.acceptance.reason
            record.accepted_changes = list(self.accepted)
        return record


class Evidence(NamedTuple):
    """What speaks for a difference between what a step received and read then, and what it would find now."""

    changes: tuple[Change, ...] = ()
    files: frozenset[str] | None = frozenset()
    """The files that it got or read, None where that was not seen."""
    edited: str = ""
    """Which of the files that it made another process or a person has changed since."""


class PlanInputs(NamedTuple):
    """What was found out about the world before deciding."""

    forced: Mapping[str, str] = MappingProxyType({})
    """Steps that run whatever the log says → why."""
    compare: Callable[[Step, StepLog, Scope], Evidence] = lambda _step, _log, _scope: Evidence()
    """What differs for a finished step, in what it sees now."""
    lost: Mapping[str, str] = MappingProxyType({})
    """Finished steps of which something required is in no store → what."""
    accept: Callable[[str, Change], Acceptance | None] = lambda _step, _change: None
    """Who accepted a change of a step, if anybody did."""
    mask: Callable[[Any], Any] = lambda value: value
    """A value as the log may show it: without what is known to be a secret at that moment.

    It is asked again for each decision, since a step may make a value a secret while the run continues.
    """


class Visible(NamedTuple, Generic[T]):
    """What a step can see, with the position of the step that it comes from; of two, the later one counts."""

    position: int
    """-1: the run began with it."""
    item: T


class Scope(NamedTuple):
    """What a step can see: what the run began with and what the steps before it returned and put."""

    parameters: Mapping[str, Visible[Parameter]]
    files: Mapping[str, Visible[CatalogEntry]]

    @classmethod
    def initial(cls, parameters: Mapping[str, Any]) -> Scope:
        """Return the scope of a step that needs no other."""
        return cls({name: Visible(-1, Parameter.of_json(value)) for name, value in parameters.items()}, {})

    @classmethod
    def merged(cls, scopes: Iterable[Scope]) -> Scope:
        """Return what is visible after several steps."""
        first, *others = scopes
        if all(other is first for other in others):
            return first
        parameters, files = dict(first.parameters), dict(first.files)
        for scope in others:
            for name, parameter in scope.parameters.items():
                if name not in parameters or parameters[name].position < parameter.position:
                    parameters[name] = parameter
            for name, file in scope.files.items():
                if name not in files or files[name].position < file.position:
                    files[name] = file
        return cls(parameters, files)

    def values(self) -> dict[str, Parameter]:
        """Return the parameters alone."""
        return {name: parameter.item for name, parameter in self.parameters.items()}

    def entries(self) -> dict[str, CatalogEntry]:
        """Return the files alone."""
        return {name: file.item for name, file in self.files.items()}

    def after(self, step: StepLog | None, position: int) -> Scope:
        """Return what is visible once the step, at that position in the pipeline, has added its own."""
        if step is None or not step.attempts:
            return self
        last = step.attempts[-1]
        returned = {n: Visible(position, p) for n, p in (last.output_parameters | last.user_defined_metrics).items()}
        put = {entry.name: Visible(position, entry) for entry in products_of(step)}
        if not returned and not put:
            return self
        return Scope({**self.parameters, **returned}, {**self.files, **put})


@dataclass(slots=True, eq=False, repr=False)
class PlanState:
    """How far an invocation has come: how each step was settled, and what the steps after it can see."""

    pipeline: Pipeline
    inputs: PlanInputs
    initial: Scope
    settled: dict[str, Outcome] = field(default_factory=dict)
    _after: dict[str, Scope] = field(default_factory=dict)
    _positions: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        # The order of the pipeline, not that in which parallel steps happened to end: a retry must see the same.
        self._positions = {name: i for i, name in enumerate(self.pipeline.steps)}

    def scope(self, step: Step) -> Scope:
        """Return what a step can see, once all that it needs is settled."""
        return Scope.merged([self._after[need] for need in step.needs]) if step.needs else self.initial

    def decide(self, step: Step, log: RunLog) -> Decision:
        """Return what to do with a step, all that it needs being settled."""
        scope, settled = self.scope(step), self.settled
        found = decide(step, pipeline=self.pipeline, log=log, settled=settled, scope=scope, inputs=self.inputs)
        return found._replace(reason=f"mock: {found.reason}") if step.mock and found.action != "skip" else found

    def record_outcome(self, step: Step, outcome: Outcome, result: StepLog | None) -> None:
        """Record the outcome of a step; `result` has what it hands to the steps after it, None if nothing."""
        scope = self.scope(step)
        self.settled[step.name] = outcome
        self._after[step.name] = scope.after(result, self._positions[step.name])


def decide(
    step: Step,
    *,
    pipeline: Pipeline,
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    inputs: PlanInputs,
) -> Decision:
    """Return what to do with a step, all that it needs being settled."""
    for need in step.needs:
        outcome = settled[need]
        if outcome is Outcome.SKIPPED or (outcome is Outcome.FAILED and not pipeline.steps[need].continue_on_error):
            return Decision("skip", f"`{need}` {'failed' if outcome is Outcome.FAILED else 'was skipped'}")
    past = log.steps.get(step.name)
    if past is None or not past.attempts:
        return Decision("run", "first attempt")
    last = past.attempts[-1]
    if reason := inputs.forced.get(step.name):
        return Decision("run", one_line(reason), is_requested=True)
    if reason := _unfinished(last):
        return Decision("run", one_line(reason))
    if reason := inputs.lost.get(step.name):
        return Decision("run", one_line(reason), is_lost=True)
    accepted: list[tuple[Change, Acceptance]] = []
    for change in _own_changes(step, last, log, settled, scope, inputs.mask):
        if (acceptance := inputs.accept(step.name, change)) is None:
            return _run_for(change)
        accepted.append((change, acceptance))
    evidence = inputs.compare(step, past, scope)
    passing = _needs_that_pass_nothing(step, last, pipeline, log, settled, scope, evidence.files)
    for change in (*evidence.changes, *passing):
        if (acceptance := inputs.accept(step.name, change)) is None:
            return _run_for(change)
        accepted.append((change, acceptance))
    if accepted:
        change, acceptance = next((one for one in accepted if not one[0].is_tentative), accepted[0])
        what = "whatever steps before it change" if change.is_tentative else change.reason
        text = f"{what}; accepted by {acceptance.by or 'someone'}: {acceptance.reason}"
        digests = tuple(change.digest() for change, _ in accepted)
        return Decision("reuse", one_line(text), acceptance=acceptance, accepted=digests)
    origin = f" of run {last.taken_from.partition('/')[0]}" if last.taken_from else ""
    since = f"since attempt {last.attempt_number}{origin}"
    if evidence.edited:
        text = f"{evidence.edited} changed {since}; later steps get that attempt's"
        return Decision("reuse", one_line(text), "products_changed")
    return Decision("reuse", f"unchanged {since}")


def _run_for(change: Change) -> Decision:
    return Decision(
        "run",
        one_line(change.reason),
        kind=None if change.is_tentative else change.kind,
        is_tentative=change.is_tentative,
        is_requested=change.is_requested,
    )


def _own_changes(
    step: Step,
    last: StepAttempt,
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    mask: Callable[[Any], Any],
) -> Iterator[Change]:
    """Yield what differs in a step's definition, in what it waits for, and in its parameters."""
    definition = mask(step.definition())
    if reason := changed_definition(last.definition, definition):
        yield Change(reason, "code", definition)
    if planned := [f"`{need}`" for need in step.needs if settled[need] is Outcome.PLANNED]:
        first = f"{', '.join(planned)} {'runs' if len(planned) == 1 else 'run'} first"
        yield Change(f"{first}, reused if that changes nothing", "data", is_tentative=True)
    for name, reason in _changed_parameters(step, last, scope, log, mask):
        visible = scope.parameters.get(name)
        state = [name, visible and [mask(visible.item.value), visible.item.data_hash]]
        yield Change(reason, "data", state, is_requested=visible is not None and visible.position < 0)


class Plan(NamedTuple):
    """What the loop would do with each step if every step that runs succeeded, and which files it would find first."""

    decisions: Mapping[str, Decision]
    wanted: Mapping[str, CatalogEntry]
    """Files of reused steps that a step without a `get` of its own may read."""
    put: Mapping[str, CatalogEntry]
    """All files of reused steps; where two put one name, the later step's."""
    scopes: Mapping[str, Scope]
    """Step that would run → what it would see of reused steps."""

    @property
    def running(self) -> list[str]:
        """The steps that would run."""
        return [name for name, decision in self.decisions.items() if decision.action == "run"]

    @property
    def reused(self) -> list[str]:
        """The steps whose results would be taken from the run log."""
        return [name for name, decision in self.decisions.items() if decision.action == "reuse"]


def plan(pipeline: Pipeline, log: RunLog, *, initial: Scope, inputs: PlanInputs) -> Plan:
    """Return the plan of an invocation."""
    state = PlanState(pipeline, inputs, initial)
    decisions: dict[str, Decision] = {}
    wanted: dict[str, CatalogEntry] = {}
    put: dict[str, CatalogEntry] = {}
    scopes: dict[str, Scope] = {}
    for step in pipeline.steps.values():
        decisions[step.name] = decision = state.decide(step, log)
        if decision.action == "reuse":
            put |= {entry.name: entry for entry in products_of(log.steps[step.name])}
            state.record_outcome(step, Outcome.REUSED, log.steps[step.name])
        else:
            if decision.action == "run":
                scopes[step.name] = state.scope(step)
                if step.get is None:
                    wanted |= scopes[step.name].entries()
            state.record_outcome(step, Outcome.PLANNED if decision.action == "run" else Outcome.SKIPPED, None)
    return Plan(decisions, wanted, put, scopes)


def plan_lines(decisions: Mapping[str, Decision]) -> list[str]:
    """Return a line a step: what would be done with it, and why."""
    width = max(map(len, decisions))
    return [f"{name:{width}}  {decision.action:5}  {decision.reason}" for name, decision in decisions.items()]


def unread_parameters(changed: Iterable[str], pipeline: Pipeline, log: RunLog) -> list[str]:
    """Return the changed parameters that no completed step reads."""
    read = {n for s in log.steps.values() if s.attempts and s.name in pipeline.steps for n in _consumed(s.attempts[-1])}
    return [name for name in changed if name not in read]


def _unfinished(last: StepAttempt) -> str:
    if last.status == SUCCESS:
        return ""
    return f"attempt {last.attempt_number} failed: {last.message}" if last.message else "its last attempt failed"


def _needs_that_pass_nothing(
    step: Step,
    last: StepAttempt,
    pipeline: Pipeline,
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    files: frozenset[str] | None,
) -> Iterator[Change]:
    """Yield that needs ran since the step did, and passed it nothing that could be compared.

    They ran in this invocation, or in an earlier one that ended before it came to this step.
    """
    ran = [
        need
        for need in step.needs
        if settled[need] is not Outcome.PLANNED  # that is said already
        and (settled[need] is not Outcome.REUSED or has_run_since(log, need, last))
    ]
    got = [scope.files[name].item for name in files or () if name in scope.files]
    sources = {entry.source for entry in got if entry.size}
    used = [scope.parameters[name] for name in _consumed(last) if name in scope.parameters]
    positions = {visible.position for visible in used if visible.item.value not in (None, "", [], {})}
    order = list(pipeline.steps)
    silent = [need for need in ran if need not in sources and order.index(need) not in positions]
    if silent:
        attempts = [log.steps[need].attempts[-1].start_time if need in log.steps else "" for need in silent]
        names = ", ".join(f"`{need}`" for need in silent)
        yield Change(f"{names} ran again", "data", [silent, attempts])


def _consumed(attempt: StepAttempt) -> list[str]:
    """The parameters on which an attempt's result hangs, as far as it is known."""
    return [*(attempt.consumed if attempt.was_observed else attempt.input_parameters), *attempt.defaulted]


def _changed_parameters(
    step: Step, last: StepAttempt, scope: Scope, log: RunLog, mask: Callable[[Any], Any]
) -> Iterator[tuple[str, str]]:
    """Yield which parameters of the attempt have changed, or are now set where a default was used, and how.

    Of one that was redacted nobody knows the earlier value: it counts as the same if it is redacted again.
    """
    for name in last.consumed if last.was_observed else last.input_parameters:
        then = last.input_parameters[name]
        if name not in scope.parameters:
            yield name, f"parameter {name} was removed"
            continue
        now = scope.parameters[name].item
        clean = mask(now.value)
        if then.redacted and (now.redacted or clean != now.value):
            continue
        if then.kind != now.kind or not same_json(then.value, now.value) or then.data_hash != now.data_hash:
            yield name, f"parameter {name} changed: {short_value(mask(then.value))} → {short_value(clean)}"
    for name in last.defaulted:
        if name in scope.parameters:
            yield name, f"parameter {name} is now set: {short_value(mask(scope.parameters[name].item.value))}"
    if not last.was_observed:
        yield from _unseen_parameters(step, last, scope, log)


def _unseen_parameters(step: Step, last: StepAttempt, scope: Scope, log: RunLog) -> Iterator[tuple[str, str]]:
    """Yield which parameters changed that a shell step had, in a log that does not tell whether it used them."""
    if step.kind != "run" or step.parameters is not None:
        return
    then = next((invocation for invocation in log.invocations if invocation.number == last.invocation), None)
    if then is None:
        return
    comparable = then.parameters.keys() - set(then.redacted)
    for name, (position, now) in scope.parameters.items():
        if position < 0 and name in comparable and not same_json(then.parameters[name], now.value):
            yield name, f"parameter {name} changed, and whether it was used was not seen"
