"""The one decision of the loop: what to do with a step, and why. Pure: it looks at values and returns values.

A first run is the loop on an empty log, a retry is the same loop on a reopened log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from runnable_ci.engine.provenance.changes import (
    Acceptance,
    Change,
    Decision,
    Outcome,
    changed_definition,
    changed_parameters,
    consumed,
    effective_needs,
    has_attempts,
    has_run_since_attempt,
    one_line,
    unfinished_attempt,
)
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog, StepAttempt, StepLog

if TYPE_CHECKING:
    from runnable_ci.engine.spread.job import JobSteps

T = TypeVar("T")


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
    required: Callable[[Step], Collection[str]] = lambda _step: ()
    """The parameters without which a step cannot run, as far as is known."""
    elsewhere: Callable[[Step, Scope, Sequence[Step] | None, Decision], Decision] = lambda _step, _scope, _ran, it: it
    """What to do with a step that would run by a decision, after these steps did (None: that is not known yet)."""
    drops_checkpoints: bool = False
    """Whether steps start over that an earlier attempt left half-done."""
    job: JobSteps | None = None
    """Which steps are this job's own, where several jobs share the run."""
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
    looked_at: Collection[str] = (),
) -> Decision:
    """Return what to do with a step, all that it needs being settled and none of them keeping it from running.

    The results of the steps `looked_at` are in its texts.
    """
    past = log.steps.get(step.name)
    if past is None or not past.attempts:
        return Decision("run", "first attempt")
    last = past.attempts[-1]
    if reason := next(filter(None, map(inputs.forced.get, (step.name, *groups_of(step.name)))), None):
        return Decision("run", one_line(reason), is_requested=True)
    if reason := unfinished_attempt(last):
        return Decision("run", one_line(reason))
    if reason := inputs.lost.get(step.name):
        return Decision("run", one_line(reason), is_lost=True)
    accepted: list[tuple[Change, Acceptance]] = []
    follows = effective_needs(step, steps, settled)
    for change in _own_changes(step, last, follows, steps, log, settled, scope, inputs.mask):
        if (acceptance := inputs.accept(step.name, change)) is None:
            return _run_for(change)
        accepted.append((change, acceptance))
    evidence = inputs.compare(step, past, scope)
    passing = _needs_that_pass_nothing(last, follows, steps, log, settled, scope, evidence.files, looked_at)
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
    follows: Iterable[str],
    steps: Mapping[str, Step],
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    mask: Callable[[Any], Any],
) -> Iterator[Change]:
    """Yield what differs in a step's definition, in what it waits for, and in its parameters."""
    definition = mask(step.definition())
    # Texts that are still to come are not compared: that a step before it runs first is said below.
    planned = [f"`{steps[need].shown}`" for need in follows if settled[need] is Outcome.PLANNED]
    is_open = planned and step.has_expressions()
    if not is_open and (reason := changed_definition(last.definition, definition)):
        yield Change(reason, "code", definition)
    if planned:
        first = f"{', '.join(planned)} {'runs' if len(planned) == 1 else 'run'} first"
        yield Change(f"{first}, reused if that changes nothing", "data", is_tentative=True)
    begun = {name: visible.item for name, visible in scope.parameters.items() if not visible.position}
    for name, reason in changed_parameters(step, last, scope.values(), begun, log, mask):
        visible = scope.parameters.get(name)
        state = [name, visible and [mask(visible.item.value), visible.item.data_hash]]
        yield Change(reason, "data", state, is_requested=name in begun)


def _needs_that_pass_nothing(
    last: StepAttempt,
    follows: Iterable[str],
    steps: Mapping[str, Step],
    log: RunLog,
    settled: Mapping[str, Outcome],
    scope: Scope,
    files: frozenset[str] | None,
    looked_at: Collection[str],
) -> Iterator[Change]:
    """Yield that needs ran since the step did, and passed it nothing that could be compared.

    They ran in this invocation, or in an earlier one that ended before it came to this step.
    """
    ran = [
        need
        for need in follows
        if settled[need] is not Outcome.PLANNED  # that is said already
        and (settled[need] is not Outcome.REUSED or has_run_since_attempt(log, steps[need], last))
    ]
    got = [scope.files[name].item for name in files or () if name in scope.files]
    used = [scope.parameters[name] for name in consumed(last) if name in scope.parameters]
    givers = {visible.giver for visible in used if visible.item.value not in (None, "", [], {})}
    givers |= {giver for entry in got if entry.size for giver in (entry.source, *groups_of(entry.source))}
    silent = [need for need in ran if need not in givers and need not in looked_at]
    if silent:
        attempts = [log.steps[need].attempts[-1].start_time if has_attempts(log, need) else "" for need in silent]
        names = ", ".join(f"`{steps[need].shown}`" for need in silent)
        yield Change(f"{names} ran again", "data", [silent, attempts])
