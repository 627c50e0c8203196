"""The one decision of the loop: what to do with a step, and why. Pure: it looks at values and returns values.

A first run is the loop on an empty log, a retry is the same loop on a reopened log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.model import SUCCESS, CatalogEntry, DecisionRecord, Parameter, RunLog, StepAttempt, StepLog, Warn
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
    files: Callable[[str, Scope], list[str]] = lambda _pattern, _scope: []
    """The files that a pattern matches, as a step with that scope would find them."""
    mask: Callable[[Any], Any] = lambda value: value
    """A value as the log may show it: without what is known to be a secret at that moment.

    It is asked again for each decision, since a step may make a value a secret while the run continues.
    """


class Visible(NamedTuple, Generic[T]):
    """What a step can see, with the position of the step that it comes from; of two, the later one counts."""

    position: tuple[int, ...]
    """Of a step in the pipeline, in its branch, and so on; empty: the run began with it."""
    item: T
    giver: str = ""
    """The step; empty: the run began with it, or it is of the branch."""


class Scope(NamedTuple):
    """What a step can see: what the run began with and what the steps before it returned and put."""

    parameters: Mapping[str, Visible[Parameter]]
    files: Mapping[str, Visible[CatalogEntry]]

    @classmethod
    def initial(cls, parameters: Mapping[str, Any]) -> Scope:
        """Return the scope of a step that needs no other."""
        return cls({name: Visible((), Parameter.of_json(value)) for name, value in parameters.items()}, {})

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

    def adding(
        self,
        giver: str,
        position: tuple[int, ...],
        returned: Mapping[str, Parameter],
        put: Iterable[CatalogEntry] = (),
    ) -> Scope:
        """Return what is visible once a step has added these."""
        parameters = {name: Visible(position, parameter, giver) for name, parameter in returned.items()}
        files = {entry.name: Visible(position, entry, giver) for entry in put}
        if not parameters and not files:
            return self
        return Scope({**self.parameters, **parameters}, {**self.files, **files})

    def within(self, step: Step, position: tuple[int, ...]) -> Scope:
        """Return what a step of a branch sees: also the values of the branch, and defaults where there is no value."""
        if not step.bound and not step.defaults:
            return self
        unset = {n: Visible[Parameter]((), as_parameter(v)) for n, v in step.defaults.items()}
        bound = {n: Visible(position, as_parameter(v)) for n, v in step.bound.items()}
        return Scope({**unset, **self.parameters, **bound}, self.files)


def outputs_of(attempt: StepAttempt) -> dict[str, Parameter]:
    """Return what an attempt returned."""
    return attempt.output_parameters | attempt.user_defined_metrics


def as_parameter(value: Any) -> Parameter:
    """Return a value of a branch as steps receive it."""
    return value if isinstance(value, Parameter) else Parameter.of_json(value)


def decide(
    step: Step,
    *,
    steps: Mapping[str, Step],
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    inputs: PlanInputs,
) -> Decision:
    """Return what to do with a step, all that it needs being settled."""
    if skipped := skipped_for_needs(step, steps, settled):
        return skipped
    past = log.steps.get(step.name)
    if past is None or not past.attempts:
        return Decision("run", "first attempt")
    last = past.attempts[-1]
    if reason := next(filter(None, map(inputs.forced.get, (step.name, *groups_of(step.name)))), None):
        return Decision("run", one_line(reason), is_requested=True)
    if reason := _unfinished(last):
        return Decision("run", one_line(reason))
    if reason := inputs.lost.get(step.name):
        return Decision("run", one_line(reason), is_lost=True)
    accepted: list[tuple[Change, Acceptance]] = []
    for change in _own_changes(step, last, steps, log, settled, scope, inputs.mask):
        if (acceptance := inputs.accept(step.name, change)) is None:
            return _run_for(change)
        accepted.append((change, acceptance))
    evidence = inputs.compare(step, past, scope)
    passing = _needs_that_pass_nothing(step, last, steps, log, settled, scope, evidence.files)
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


def skipped_for_needs(step: Step, steps: Mapping[str, Step], settled: Mapping[str, Outcome]) -> Decision | None:
    """Return why a step is skipped because of a step that it needs; None where it is not."""
    for need in step.needs:
        outcome = settled[need]
        if outcome is Outcome.SKIPPED or (outcome is Outcome.FAILED and not steps[need].continue_on_error):
            return Decision("skip", f"`{steps[need].shown}` {'failed' if outcome is Outcome.FAILED else 'was skipped'}")
    return None


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
    steps: Mapping[str, Step],
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    mask: Callable[[Any], Any],
) -> Iterator[Change]:
    """Yield what differs in a step's definition, in what it waits for, and in its parameters."""
    definition = mask(step.definition())
    if reason := changed_definition(last.definition, definition):
        yield Change(reason, "code", definition)
    if planned := [f"`{steps[need].shown}`" for need in step.needs if settled[need] is Outcome.PLANNED]:
        first = f"{', '.join(planned)} {'runs' if len(planned) == 1 else 'run'} first"
        yield Change(f"{first}, reused if that changes nothing", "data", is_tentative=True)
    for name, reason in _changed_parameters(step, last, scope, log, mask):
        visible = scope.parameters.get(name)
        state = [name, visible and [mask(visible.item.value), visible.item.data_hash]]
        yield Change(reason, "data", state, is_requested=visible is not None and not visible.position)


def _unfinished(last: StepAttempt) -> str:
    if last.status == SUCCESS:
        return ""
    return f"attempt {last.attempt_number} failed: {last.message}" if last.message else "its last attempt failed"


def _needs_that_pass_nothing(
    step: Step,
    last: StepAttempt,
    steps: Mapping[str, Step],
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
        and (settled[need] is not Outcome.REUSED or _has_run_since(log, steps[need], last))
    ]
    got = [scope.files[name].item for name in files or () if name in scope.files]
    used = [scope.parameters[name] for name in consumed(last) if name in scope.parameters]
    givers = {visible.giver for visible in used if visible.item.value not in (None, "", [], {})}
    givers |= {giver for entry in got if entry.size for giver in (entry.source, *groups_of(entry.source))}
    silent = [need for need in ran if need not in givers]
    if silent:
        attempts = [log.steps[need].attempts[-1].start_time if has_attempts(log, need) else "" for need in silent]
        names = ", ".join(f"`{steps[need].shown}`" for need in silent)
        yield Change(f"{names} ran again", "data", [silent, attempts])


def _has_run_since(log: RunLog, need: Step, last: StepAttempt) -> bool:
    """Return whether a step, or one of its branches, has run since an attempt at another."""
    own = [need.name] if need.branching is None else [n for n in need.needs if need.name in groups_of(n)]
    return any(has_run_since(log, name, last) for name in own if has_attempts(log, name))


def has_attempts(log: RunLog, step: str) -> bool:
    """Return whether the log has an attempt at a step."""
    return step in log.steps and bool(log.steps[step].attempts)


def consumed(attempt: StepAttempt) -> list[str]:
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
    for name, (position, now, _) in scope.parameters.items():
        if not position and name in comparable and not same_json(then.parameters[name], now.value):
            yield name, f"parameter {name} changed, and whether it was used was not seen"
