"""How far an invocation has come, and its plan: what the loop would do if every step that runs succeeded. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from runnable_ci.engine.planner import PlanInputs, Scope, decide, outputs_of
from runnable_ci.engine.provenance.changes import Decision, Outcome, consumed, effective_needs, has_attempts
from runnable_ci.pipeline.model import Pipeline, parameters_looked_up
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog, StepLog
from runnable_ci.runs.products.history import products_of

if TYPE_CHECKING:
    from runnable_ci.engine.planning.branches import OpenStep


@dataclass(slots=True, eq=False, repr=False)
class PlanState:
    """How far an invocation has come: how each step was settled, and what the steps after it can see."""

    pipeline: Pipeline
    inputs: PlanInputs
    initial: Scope
    settled: dict[str, Outcome] = field(default_factory=dict)
    steps: dict[str, Step] = field(init=False)
    """All that are known by now: those of branches come as these are."""
    open: dict[str, OpenStep] = field(default_factory=dict)
    """Steps of which the branches are known."""
    _after: dict[str, Scope] = field(default_factory=dict)
    _positions: dict[str, tuple[int, ...]] = field(init=False)
    _failed_fast: dict[str, str] = field(default_factory=dict)
    """Steps that begin no further instance → the one that failed."""
    failed_above: dict[str, str] = field(default_factory=dict)
    """Step → one before it that failed; empty where none did."""
    outputs: dict[str, Mapping[str, Parameter]] = field(default_factory=dict)
    """What each step returned."""
    prepared: dict[str, Prepared] = field(default_factory=dict)
    """The steps that were decided on, with values in their texts."""
    is_cancelled: bool = False
    cancelled: set[str] = field(default_factory=set)
    """The steps that were ended with the run."""
    _chosen: dict[str, Collection[str]] = field(default_factory=dict)
    """Step → which of its branches are the job's own."""

    def __post_init__(self) -> None:
        self.steps = dict(self.pipeline.steps)
        # The order of the pipeline, not that in which parallel steps happened to end: a retry must see the same.
        self._positions = {name: (i,) for i, name in enumerate(self.pipeline.steps)}

    def failed_steps(self) -> list[str]:
        """Return the steps whose failure is one of the run, in the order of the pipeline."""
        return [
            name
            for name in sorted(self.settled, key=self.position)
            if self.settled[name] is Outcome.FAILED
            and not self.steps[name].continue_on_error
            and not (name in self.open and self.open[name].failed(self))
        ]

    def position(self, step: str) -> tuple[int, ...]:
        """Return where a step is in the pipeline: of two positions, the smaller comes first."""
        return self._positions[step]

    def scope(self, step: Step) -> Scope:
        """Return what a step can see, once all that it needs is settled."""
        if step.name in self.open:
            return self.open[step.name].scope
        return self._received(step)

    def _received(self, step: Step) -> Scope:
        # Of one that it follows branch by branch, the branches may not be over.
        after = [self._after[need] if need in self._after else self.open[need].scope for need in step.needs]
        scope = Scope.merged(after) if after else self.initial
        return scope.within(step, self._positions[step.name])

    def decide(self, step: Step, log: RunLog) -> Decision:
        """Return what to do with a step, all that it needs being settled; `prepared` has it as it would run."""
        step, scope, refusal, looked_at = self.prepared[step.name] = self._prepare(step)
        gate = self.gate(step)
        if self.is_left(step.name):
            from runnable_ci.engine.spread.settling import left  # few runs are shared by jobs

            return left(step, self, gate, log)
        if gate is not None and (gate.action == "skip" or gate.is_tentative or gate.refusal):
            # Only what has a result can be reused after all.
            return gate._replace(is_tentative=gate.is_tentative and has_attempts(log, step.name))
        if refusal:
            return Decision("run", refusal, refusal=refusal)
        decision = decide(
            step,
            steps=self.steps,
            log=log,
            settled=self.settled,
            scope=scope,
            inputs=self.inputs,
            looked_at={*looked_at, *(one for group in groups_of(step.name) for one in self.open[group].looked_at)},
        )
        if decision.action == "run":
            decision = self._elsewhere(step, scope, decision)
        if gate is not None:
            decision = decision._replace(runs_though_cancelled=gate.runs_though_cancelled)
        if step.mock and decision.action != "skip":
            decision = decision._replace(reason=f"mock: {decision.reason}")
        if decision.action == "run" and self._failed_fast:
            failed = next(
                (self._failed_fast[group] for group in groups_of(step.name) if group in self._failed_fast), ""
            )
            if failed:
                return Decision(
                    "skip", f"`{self.steps[failed].shown}` failed, and `fail-fast` begins no other instance"
                )
        return decision

    def _elsewhere(self, step: Step, scope: Scope, decision: Decision) -> Decision:
        """Return what is decided on a step that would run, once other runs were looked at, unless it is to run."""
        needs = effective_needs(step, self.steps, self.settled)
        is_early = any(self.settled[need] is Outcome.PLANNED for need in needs)
        is_forced = any(name in self.inputs.forced for name in (step.name, *groups_of(step.name)))
        if is_forced or decision.is_lost:  # what is lost was looked for before
            return decision
        ran = [self.steps[need] for need in needs if self.settled[need] is Outcome.RAN]
        return self.inputs.elsewhere(step, scope, None if is_early else ran, decision)

    def _prepare(self, step: Step) -> Prepared:
        if not step.arguments and not step.has_expressions():
            return Prepared(step, self.scope(step))
        from runnable_ci.engine.planning.preparing import prepare  # few steps need it

        return Prepared(*prepare(step, self))

    def is_left(self, step: str) -> bool:
        """Return whether a step is left to another job."""
        job = self.inputs.job
        return job is not None and not job.owns(step, self._chosen)

    def gate(self, step: Step) -> Decision | None:
        """Return why a step does not run: what failed before it, its condition, or what was skipped; else None.

        A decision to run is one that its condition made.
        """
        if step.condition or Outcome.OMITTED in self.settled.values():
            from runnable_ci.engine.planning.preparing import gate_of  # few pipelines need it

            return gate_of(step, self)
        reason = self.blocked(step)
        return Decision("skip", reason) if reason else None

    def blocked(self, step: Step) -> str:
        """Return why a step does not run that waits for the success of all before it; empty if nothing failed."""
        for need in step.needs:
            if self.settled[need] is Outcome.SKIPPED and not self.failed_above[need]:
                return f"`{self.steps[need].shown}` was skipped"
            if self.has_failed(need):
                return self._failure(need)
        failed = next((self.failed_above[need] for need in step.needs if self.failed_above[need]), "")
        return self._failure(failed) if failed else ""

    def _failure(self, name: str) -> str:
        return f"`{self.steps[name].shown}` {'was cancelled' if name in self.cancelled else 'failed'}"

    def has_failed(self, name: str) -> bool:
        """Return whether a step failed that had to succeed."""
        return self.settled[name] is Outcome.FAILED and not self.steps[name].continue_on_error

    def begin(self, step: Step, log: RunLog) -> Decision | OpenStep:
        """Return the branches of a step that becomes some, all that it needs being settled; else why it does not.

        Raises `PipelineError` for values that make no branches.
        """
        from runnable_ci.engine.planning.branches import OpenStep, first_branches

        step = self._without_what_never_began(step)
        followed = step.branching.follows if step.branching else ()
        known = step._replace(needs=tuple(need for need in step.needs if need not in followed))
        gate = self.gate(known)
        if gate is not None and (gate.action == "skip" or gate.is_tentative):
            return gate._replace(is_tentative=False)
        if gate is not None and gate.refusal:
            raise self.pipeline.error(step, gate.refusal, key="if")
        if step.arguments:
            from runnable_ci.engine.planning.preparing import bound_to_branches  # few steps need it

            step = bound_to_branches(known, self)._replace(needs=step.needs)
        scope = self.scope(step)
        branches = first_branches(step, self, scope, log)
        if branches is None:
            return Decision("run", "its instances are known once the steps before it have run")
        looked_at = self._prepare(known).looked_at  # the values of an axis come from there
        self.open[step.name] = opened = OpenStep(step, scope, branches, looked_at)
        self._add(opened, 0)
        return opened

    def _without_what_never_began(self, step: Step) -> Step:
        """Return a step that follows no branches of those that were settled without any: it comes after these."""
        if step.branching is None or not step.branching.follows:
            return step
        follows = {
            name: last
            for name, last in step.branching.follows.items()
            if name in self.open or self.settled.get(name, Outcome.PLANNED) is Outcome.PLANNED
        }
        return step._replace(branching=step.branching._replace(follows=follows))

    def next_round(self, step: Step) -> bool:
        """Add another round to a step that loops, if there is to be one. Raises `PipelineError`."""
        opened = self.open[step.name]
        if not opened.add_round(self):
            return False
        self._add(opened, len(opened.branches) - 1)
        return True

    def _add(self, opened: OpenStep, first: int) -> None:
        for number, branch in enumerate(opened.steps(first), start=first):
            for place, inner in enumerate(branch):
                self.steps[inner.name] = inner
                self._positions[inner.name] = (*self._positions[opened.step.name], number, place)
        self.steps[opened.step.name] = opened.end
        if self.inputs.job is not None:
            keys = [branch.key for branch in opened.distinct()]
            self._chosen[opened.step.name] = self.inputs.job.chosen(opened.step.name, keys)

    def end(self, step: Step) -> Outcome:
        """Settle a step by how its branches were settled, and give what they made to the steps after it."""
        opened = self.open[step.name]
        outcome = opened.outcome(self.settled, self.steps)
        self.settled[step.name] = outcome
        together = opened.together()
        outputs = together.outputs if outcome in (Outcome.RAN, Outcome.REUSED) else {}
        position = self._positions[step.name]
        opened.scope = self._received(opened.step).adding(step.name, position, outputs, together.files)
        self._settled(step, outcome, together.outputs, together.files, opened.scope)
        return outcome

    def fail(self, step: Step) -> None:
        """Settle a step whose branches cannot be known as failed."""
        self._settled(step, Outcome.FAILED, {}, (), self._received(step))

    def record_outcome(self, step: Step, outcome: Outcome, result: StepLog | None) -> None:
        """Record the outcome of a step; `result` has what it hands to the steps after it, None if nothing."""
        outputs = outputs_of(result.attempts[-1]) if result and result.attempts else {}
        files = products_of(result) if result and result.attempts else []
        scope = self.scope(step).adding(step.name, self._positions[step.name], outputs, files)
        self._settled(step, outcome, outputs, files, scope)

    def _settled(
        self,
        step: Step,
        outcome: Outcome,
        outputs: Mapping[str, Parameter],
        files: Sequence[CatalogEntry],
        after: Scope,
    ) -> None:
        self.settled[step.name], self._after[step.name] = outcome, after
        self.outputs[step.name] = outputs
        failed = (n if self.has_failed(n) else self.failed_above[n] for n in step.needs if n in self.settled)
        self.failed_above[step.name] = next(filter(None, failed), "")
        if (group := next(groups_of(step.name), None)) is None:
            return
        opened = self.open[group]
        opened.note(step.name, outputs, files)
        if (
            outcome is Outcome.FAILED
            and not step.continue_on_error
            and opened.is_failing_fast
            and not self.is_left(step.name)
        ):
            self._failed_fast.setdefault(group, step.name)


class Prepared(NamedTuple):
    """A step as it would run now."""

    step: Step
    scope: Scope
    """What it sees, by names of its own too."""
    refusal: str = ""
    """Why it cannot: an expression of it has no value."""
    looked_at: Collection[str] = ()
    """The steps whose results are in its texts."""


class Plan(NamedTuple):
    """What the loop would do with each step if every step that runs succeeded, and which files it would find first."""

    decisions: Mapping[str, Decision]
    wanted: Mapping[str, CatalogEntry]
    """Files of reused steps that a step without a `get` of its own may read."""
    put: Mapping[str, CatalogEntry]
    """All files of reused steps; where two put one name, the later step's."""
    scopes: Mapping[str, Scope]
    """Step that would run → what it would see of reused steps."""
    pipeline: Pipeline
    """With the steps of branches, as far as these are known."""
    differs: bool = False
    """Whether the run log would say something else of branches, even if no step runs."""

    @property
    def running(self) -> list[str]:
        """The steps that would run."""
        return [name for name, decision in self.decisions.items() if decision.action == "run"]

    @property
    def reused(self) -> list[str]:
        """The steps whose results would be taken from the run log."""
        return [name for name, decision in self.decisions.items() if decision.action == "reuse"]

    def lines(self) -> list[str]:
        """Return a line a step: what would be done with it, and why."""
        shown = {name: self.pipeline.steps[name].shown for name in self.decisions}
        width = max(map(len, shown.values()))
        return [f"{shown[name]:{width}}  {it.action:5}  {it.reason}" for name, it in self.decisions.items()]


@dataclass(slots=True, eq=False, repr=False)
class _Planner:
    state: PlanState
    log: RunLog
    decisions: dict[str, Decision] = field(default_factory=dict)
    wanted: dict[str, CatalogEntry] = field(default_factory=dict)
    put: dict[str, CatalogEntry] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    differs: bool = False

    def plan(self, step: Step) -> None:
        if step.branching is not None and not self._plan_branches(step):
            return
        step = self.state.steps[step.name]
        self._settle(step, self.state.decide(step, self.log))

    def _plan_branches(self, step: Step) -> bool:
        """Plan the branches of a step; whether it remains to be decided on itself, as what reduces them."""
        begun = self.state.begin(step, self.log)
        if isinstance(begun, Decision):
            self._settle(step, begun)
            return False
        first = 0
        while True:
            for inner in (one for branch in begun.steps(first) for one in branch):
                self.plan(inner)
            first = len(begun.branches)
            if not self.state.next_round(step):
                break
        outcome = self.state.end(step)
        past = self.log.steps.get(step.name)
        then = [branch.name for branch in past.instances] if past else []
        self.differs |= outcome is Outcome.FAILED or then != [branch.key for branch in begun.branches]
        self.steps[step.name] = end = self.state.steps[step.name]
        return end.kind != "branches" and outcome not in (Outcome.FAILED, Outcome.SKIPPED, Outcome.OMITTED)

    def _settle(self, step: Step, decision: Decision) -> None:
        state, log = self.state, self.log
        self.steps[step.name] = step
        self.decisions[step.name] = decision
        if decision.action == "reuse":
            result = decision.found.step if decision.found else log.steps[step.name]
            self.put |= {entry.name: entry for entry in products_of(result)}
            state.record_outcome(step, decision.outcome(), result)
        else:
            if decision.action == "run":
                known = state.prepared.get(step.name)
                self.scopes[step.name] = known.scope if known else state.scope(step)
                if step.get is None:
                    self.wanted |= self.scopes[step.name].entries()
            state.record_outcome(step, decision.outcome(), None)


def plan(pipeline: Pipeline, log: RunLog, *, initial: Scope, inputs: PlanInputs) -> Plan:
    """Return the plan of an invocation."""
    planner = _Planner(PlanState(pipeline, inputs, initial), log)
    for step in pipeline.steps.values():
        planner.plan(step)
    expanded = pipeline._replace(steps=planner.steps)
    return Plan(planner.decisions, planner.wanted, planner.put, planner.scopes, expanded, planner.differs)


def unread_parameters(changed: Iterable[str], pipeline: Pipeline, log: RunLog) -> list[str]:
    """Return the changed parameters that no completed step reads."""
    known = (s for s in log.steps.values() if s.attempts and s.name.partition(".")[0] in pipeline.steps)
    read = {name for step in known for name in consumed(step.attempts[-1])}
    steps = [*pipeline.steps.values(), *pipeline.outlined().steps.values()]
    read = read.union(*(parameters_looked_up(step) for step in steps))
    return [name for name in changed if name not in read]
