"""The branches of a step in an invocation: which there are, how they end, and what they give together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from runnable_ci.engine.planner import Outcome, PlanInputs, Scope
from runnable_ci.pipeline.branches.expansion import opened
from runnable_ci.pipeline.branches.matrix import (
    AxisError,
    Branch,
    combinations,
    instances,
    kind_of,
    only_branch,
    round_branch,
    told_apart,
)
from runnable_ci.pipeline.expressions import ExpressionError, template, values
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Branching, Matrix, Step
from runnable_ci.pipeline.validation import check_parameter_name, shown
from runnable_ci.runs.branches.values import joined
from runnable_ci.runs.model import BranchKind, BranchRecord, CatalogEntry, Parameter, RunLog, StepLog

_WORST_LAST = (Outcome.OMITTED, Outcome.REUSED, Outcome.RAN, Outcome.PLANNED, Outcome.SKIPPED, Outcome.FAILED)


class KnownSteps(Protocol):
    """How far an invocation has come."""

    pipeline: Pipeline
    inputs: PlanInputs
    settled: dict[str, Outcome]
    steps: dict[str, Step]
    open: dict[str, OpenStep]


class Given(NamedTuple):
    """What a step gave."""

    outputs: Mapping[str, Parameter]
    files: Sequence[CatalogEntry]


@dataclass(slots=True, eq=False, repr=False)
class OpenStep:
    """A step of which the branches are known."""

    step: Step
    scope: Scope
    """What it sees, and once all of its branches are settled, also what they gave."""
    branches: list[Branch]
    looked_at: Collection[str] = ()
    """The steps whose results are in the values of its branches."""
    end: Step = field(init=False)
    """The step itself, after all of its branches."""
    given: dict[str, Given] = field(default_factory=dict)
    """Step of a branch → what it gave."""
    problem: str = ""
    """Why it fails though none of its branches did."""

    def __post_init__(self) -> None:
        self.end = opened(self.step, self.distinct()).end
        if self.branching.reduce:
            self.end = self.end._replace(kind="python", command=self.branching.reduce)

    @property
    def branching(self) -> Branching:
        """How it becomes branches."""
        assert self.step.branching is not None  # noqa: S101 - for the type checker
        return self.step.branching

    @property
    def kind(self) -> BranchKind:
        """What its branches are."""
        return "map" if self.branching.matrix else "loop" if self.branching.loop else "dag"

    @property
    def is_failing_fast(self) -> bool:
        """Whether one failed instance keeps the others from beginning."""
        return self.branching.matrix is not None and self.branching.fail_fast

    def distinct(self) -> list[Branch]:
        """Return the branches, those with the same values once."""
        return [*{branch.key: branch for branch in self.branches}.values()]

    def steps(self, first: int = 0) -> Sequence[Sequence[Step]]:
        """Return the steps of each distinct branch from the `first` on."""
        return opened(self.step, self.distinct(), first=first).branches

    def records(self) -> list[BranchRecord]:
        """Return the branches as the run log has them."""
        return [BranchRecord(name=one.key, label=one.label, values=dict(one.values)) for one in self.branches]

    def add_round(self, state: KnownSteps) -> bool:
        """Begin another round if the step loops, the last one has succeeded, and its condition is not true yet."""
        loop = self.branching.loop
        if loop is None:
            return False
        last = [f"{self.step.name}.{self.branches[-1].key}.{name}" for name in self.branching.body]
        if any(state.settled[name] not in (Outcome.RAN, Outcome.REUSED) for name in last):
            return False
        if is_true(loop.until, self.scope.adding(self.step.name, (), self.together().outputs), self.step, state):
            return False
        if len(self.branches) >= loop.most:
            self.problem = f"`{loop.until}` was not true after {loop.most} rounds"
            return False
        self.branches.append(round_branch(len(self.branches) + 1))
        self.end = opened(self.step, self.branches).end
        return True

    def outcome(self, settled: Mapping[str, Outcome], steps: Mapping[str, Step]) -> Outcome:
        """Return how the step is settled once all of its branches are."""
        if self.problem:
            return Outcome.FAILED
        worst = 0 if self.branches else _WORST_LAST.index(Outcome.REUSED)
        for branch in self.distinct():
            for name in self.branching.body:
                one = f"{self.step.name}.{branch.key}.{name}"
                outcome = settled[one]
                if outcome is Outcome.FAILED and steps[one].continue_on_error:
                    outcome = Outcome.RAN
                worst = max(worst, _WORST_LAST.index(outcome))
        return _WORST_LAST[worst]

    def failed(self, state: KnownSteps) -> list[str]:
        """Return which steps of its branches failed."""
        names = (f"{self.step.name}.{one.key}.{name}" for one in self.distinct() for name in self.branching.body)
        return [
            name for name in names if state.settled[name] is Outcome.FAILED and not state.steps[name].continue_on_error
        ]

    def note(self, step: str, outputs: Mapping[str, Parameter], files: Sequence[CatalogEntry]) -> None:
        """Note what a step of a branch gave."""
        self.given[step] = Given(outputs, files)

    def together(self) -> Given:
        """Return what the branches gave, together."""
        names = [[f"{self.step.name}.{one.key}.{name}" for name in self.branching.body] for one in self.branches]
        outputs = [
            {key: it for name in inner if name in self.given for key, it in self.given[name].outputs.items()}
            for inner in names
        ]
        found = joined(self.kind, self.step.returns, outputs)
        distinct = dict.fromkeys(name for inner in names for name in inner)
        files = [entry for name in distinct if name in self.given for entry in self.given[name].files]
        return Given(found, files)


def first_branches(step: Step, state: KnownSteps, scope: Scope, log: RunLog) -> list[Branch] | None:
    """Return the branches that a step begins with; None where their values are not known yet.

    Raises `PipelineError` for values that make no branches.
    """
    branching = step.branching
    assert branching is not None  # noqa: S101 - for the type checker
    if branching.loop is not None:
        return [round_branch(1)]
    if branching.matrix is None:
        return [only_branch()]
    for followed in branching.follows:
        return state.open[followed].branches if followed in state.open else None
    before = log.steps.get(step.name)
    if _is_open(step, branching.matrix, state):
        # If what comes before changes nothing, they are those of the last time.
        return _as_before(step, before) if before is not None else None
    return _instances(step, branching.matrix, state, scope)


def _is_open(step: Step, matrix: Matrix, state: KnownSteps) -> bool:
    """Return whether the values of a matrix are made by steps that are only planned."""
    planned = [name for name in _above(step, state.steps) if state.settled[name] is Outcome.PLANNED]
    if not planned:
        return False
    made = {name for one in planned for name in state.steps[one].returns}
    texts = [template(text) for text in _texts(matrix)]
    used = {path[-1] for text in texts for path in text.references()} | {
        path[1] for text in texts for path in text.references() if len(path) > 1
    }
    calls = {call.name for text in texts for one in text.expressions for call in one.calls()}
    return bool(used & (made | {*planned})) or "files" in calls


def _above(step: Step, steps: Mapping[str, Step]) -> Iterator[str]:
    seen: set[str] = set()
    waiting = [*step.needs]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(steps[name].needs)
            yield name


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a matrix that have expressions."""
    match value:
        case str():
            if "${{" in value:
                yield value
        case Mapping():
            for one in value.values():
                yield from _texts(one)
        case list() | tuple():
            for one in value:
                yield from _texts(one)


def _as_before(step: Step, past: StepLog) -> list[Branch] | None:
    """Return the branches that the run log has; the log may be anybody's, so only their values are taken."""
    try:
        return _branches(step, [one.values for one in past.instances]) if past.instances else None
    except AxisError:
        return None


def _branches(step: Step, combined: Iterable[Mapping[str, Any]]) -> list[Branch]:
    assert step.branching is not None and step.branching.matrix is not None  # noqa: S101 - for the type checker
    branches = instances(combined, step.branching.matrix.axes)
    if not (label := step.branching.label):
        return branches
    rendered = template(label)
    named = [one._replace(label=rendered.render({"matrix": one.values, "parameters": {}})) for one in branches]
    return told_apart(named, is_written=True)


def _instances(step: Step, matrix: Matrix, state: KnownSteps, scope: Scope) -> list[Branch]:
    contexts = contexts_of(scope, step)
    functions = {"files": lambda pattern: state.inputs.files(str(pattern), scope)}

    def value(given: Any) -> Any:
        match given:
            case str():
                try:
                    return template(given).value(contexts, functions)
                except ExpressionError as e:
                    raise AxisError(("matrix",), f"{shown(given)}: {e.message}", e.hint) from e
            case Mapping():
                return {name: value(one) for name, one in given.items()}
            case list() | tuple():
                return [value(one) for one in given]
            case _:
                return given

    try:
        branches = _branches(step, _combined(matrix, value))
        _require_apart(step, branches)
    except AxisError as e:
        raise state.pipeline.error(step, e.message, e.hint, table="strategy", key=e.key) from e
    return branches


def _combined(matrix: Matrix, value: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return the axis values of each instance. Raises `AxisError`."""
    table = value(matrix.whole or {**matrix.axes, "include": matrix.include, "exclude": matrix.exclude})
    if not isinstance(table, Mapping):
        raise AxisError(("matrix",), f"{shown(matrix.whole)} is {kind_of(table)}, not a table of axes")
    axes = {name: one for name, one in table.items() if name not in ("include", "exclude")}
    for name in axes:
        check_parameter_name(name, lambda message, hint: AxisError(("matrix",), message, hint))
    return combinations(axes, table.get("include") or (), table.get("exclude") or ())


def _require_apart(step: Step, branches: Sequence[Branch]) -> None:
    """Raise `AxisError` where two instances put the same files."""
    seen: dict[str, str] = {}
    distinct = {branch.key: branch for branch in branches}
    for branch_steps, branch in zip(opened(step, [*distinct.values()]).branches, distinct.values(), strict=True):
        for one in branch_steps:
            for pattern in one.put:
                other = seen.setdefault(pattern, branch.label)
                if other != branch.label:
                    raise AxisError(
                        ("matrix",),
                        f"the instances {other} and {branch.label} both put `{pattern}`",
                        "write the value of an axis into the path",
                    )


def contexts_of(scope: Scope, step: Step) -> dict[str, Any]:
    """Return what an expression of a step can look up: values, and the outputs of steps by who returned them."""
    values = {name: visible.item.value for name, visible in scope.parameters.items()}
    outputs: dict[str, dict[str, Any]] = {}
    for name, visible in scope.parameters.items():
        if visible.giver:
            outputs.setdefault(visible.giver.rpartition(".")[2], {})[name] = visible.item.value
    steps = {name: {"outputs": given} for name, given in outputs.items()}
    return {"parameters": values, "steps": steps, "needs": steps, "env": dict(step.env), "matrix": dict(step.bound)}


def is_true(condition: str, scope: Scope, step: Step, state: KnownSteps) -> bool:
    """Return whether a condition of a step is true. Raises `PipelineError`."""
    text = condition if "${{" in condition else f"${{{{ {condition} }}}}"
    try:
        return values.is_true(template(text).value(contexts_of(scope, step)))
    except ExpressionError as e:
        raise state.pipeline.error(step, f"until: {e.message}", e.hint, table="loop", key="until") from e
