"""The branches of a step in an invocation: which there are, how they end, and what they give together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from runnable_ci.engine.planner import Scope
from runnable_ci.engine.planning.preparing import State, above, bound_to_each, contexts_of
from runnable_ci.engine.planning.seen import NotKnownYetError, Settled
from runnable_ci.engine.provenance.changes import Outcome
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.branches.expansion import opened
from runnable_ci.pipeline.branches.matrix import (
    AxisError,
    Branch,
    Loop,
    Matrix,
    combinations,
    instances,
    kind_of,
    only_branch,
    round_branch,
    told_apart,
)
from runnable_ci.pipeline.expressions import ExpressionError, template, values
from runnable_ci.pipeline.expressions.lookups import condition_of, expressions_in
from runnable_ci.pipeline.expressions.rendering import rendered
from runnable_ci.pipeline.expressions.template import OPEN
from runnable_ci.pipeline.step import Branching, Step
from runnable_ci.pipeline.validation import check_parameter_name, shown
from runnable_ci.redaction.environment import names_a_secret
from runnable_ci.runs.branches.branch_model import BranchKind, BranchRecord
from runnable_ci.runs.branches.values import joined
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog, StepLog

_WORST_LAST = (Outcome.OMITTED, Outcome.REUSED, Outcome.RAN, Outcome.PLANNED, Outcome.SKIPPED, Outcome.FAILED)


class KnownSteps(State, Protocol):
    """How far an invocation has come."""

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
        try:
            if self._is_over(loop, state):
                return False
        except NotKnownYetError:
            return False
        except ExpressionError as e:
            self.problem = f"until: {e.message}"
            return False
        if len(self.branches) >= loop.most:
            self.problem = f"`{loop.until}` was not true after {loop.most} rounds"
            return False
        self.branches.append(round_branch(len(self.branches) + 1))
        self.end = opened(self.step, self.branches).end
        return True

    def _is_over(self, loop: Loop, state: KnownSteps) -> bool:
        """Return whether the condition of a loop is true after its last round. Raises `ExpressionError`."""
        outputs = self.together().outputs
        seen = contexts_of(
            self.step,
            state,
            self.scope.adding(self.step.name, (), outputs),
            {self.step.name: Settled("success", "success", outputs, ())},
        )
        return values.is_true(condition_of(loop.until).evaluate(seen))

    def outcome(self, settled: Mapping[str, Outcome], steps: Mapping[str, Step]) -> Outcome:
        """Return how the step is settled once all of its branches are, and note the problem if it is none of theirs."""
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
        if _WORST_LAST[worst] in (Outcome.RAN, Outcome.REUSED) and (problem := self._clash()):
            self.problem = problem
            return Outcome.FAILED
        return _WORST_LAST[worst]

    def _clash(self) -> str:
        """Return which file two instances made; empty if there is none."""
        makers: dict[str, Branch] = {}
        for branch in self.distinct() if self.kind == "map" else ():
            for name in (f"{self.step.name}.{branch.key}.{inner}" for inner in self.branching.body):
                for entry in self.given[name].files if name in self.given else ():
                    other = makers.setdefault(entry.name, branch) if _is_made_by(name, entry) else branch
                    if other is not branch:
                        return f"the instances {other.label} and {branch.label} both put {entry.name}"
        return ""

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


def _is_made_by(step: str, entry: CatalogEntry) -> bool:
    """Return whether a step made a file that it put, and did not only find it."""
    maker = entry.made_by.partition("/")[2].rpartition(".")[0]
    return entry.kind != "folder" and (not maker or maker == step or maker.startswith(f"{step}."))


def first_branches(step: Step, state: KnownSteps, scope: Scope, log: RunLog) -> list[Branch] | None:
    """Return the branches that a step begins with; None where their values are not known yet.

    Raises `PipelineError` for values that make no branches.
    """
    found = _first_branches(step, state, scope, log)
    if found is None or step.branching is None or step.branching.matrix is None:
        return found
    found = bound_to_each(step, found, state) if step.arguments or step.branching.follows else found
    try:
        _require_no_secret(found, state)
        _require_apart(step, found)
    except AxisError as e:
        raise _axis_error(step, e, state) from e
    return found


def _first_branches(step: Step, state: KnownSteps, scope: Scope, log: RunLog) -> list[Branch] | None:
    branching = step.branching
    assert branching is not None  # noqa: S101 - for the type checker
    if branching.loop is not None:
        return [round_branch(1)]
    if branching.matrix is None:
        return [only_branch()]
    for followed in branching.follows:
        return state.open[followed].branches if followed in state.open else None
    try:
        return _instances(step, branching.matrix, state, scope)
    except NotKnownYetError:
        # If what comes before changes nothing, they are those of the last time.
        return _as_before(step, log.steps[step.name]) if step.name in log.steps else None
    except AxisError as e:
        raise _axis_error(step, e, state) from e


def _axis_error(step: Step, e: AxisError, state: KnownSteps) -> PipelineError:
    return state.pipeline.error(step, e.message, e.hint, table="strategy", key=e.key)


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
    contexts = contexts_of(step, state, scope)
    looked_up = {path[-1] for one in expressions_in(matrix.definition()) for path in one.references()}
    if lost := sorted(name for name, one in scope.values().items() if one.redacted and name in looked_up):
        hint = "a secret is not in the run log, and instances are named by their values: use names as the values"
        raise AxisError(("matrix",), f"`{lost[0]}` is, or has, a secret", hint)

    def files(pattern: Any) -> list[str]:
        if any(state.settled[name] is Outcome.PLANNED for name in above(step, state)):
            raise NotKnownYetError("steps before it may put more files")
        return state.inputs.files(str(pattern), scope)

    def value(given: Any) -> Any:
        match given:
            case str():
                try:
                    return template(given).value(contexts, {"files": files})
                except NotKnownYetError:
                    raise
                except ExpressionError as e:
                    raise AxisError(("matrix",), f"{shown(given)}: {e.message}", e.hint) from e
            case Mapping():
                return {name: value(one) for name, one in given.items()}
            case list() | tuple():
                return [value(one) for one in given]
            case _:
                return given

    return _branches(step, _combined(matrix, value))


def _combined(matrix: Matrix, value: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return the axis values of each instance. Raises `AxisError`."""
    table = value(matrix.whole or {**matrix.axes, "include": matrix.include, "exclude": matrix.exclude})
    if not isinstance(table, Mapping):
        raise AxisError(("matrix",), f"{shown(matrix.whole)} is {kind_of(table)}, not a table of axes")
    axes = {name: one for name, one in table.items() if name not in ("include", "exclude")}
    for name in axes:
        check_parameter_name(name, lambda message, hint: AxisError(("matrix",), message, hint))
    return combinations(axes, table.get("include") or (), table.get("exclude") or ())


def _require_no_secret(branches: Sequence[Branch], state: KnownSteps) -> None:
    """Raise `AxisError` for a value that is known to be a secret: the log and people know instances by it."""
    secret_names = {name.upper() for name in state.pipeline.secrets}
    for branch in branches:
        for name, value in branch.values.items():
            if name.upper() in secret_names or names_a_secret(name) or state.inputs.mask(value) != value:
                hint = "let the values be names, and have the step look the secret up in its environment"
                message = f"a value of the axis `{name}` is a secret, and instances are named by their values"
                raise AxisError(("matrix",), message, hint)


def _require_apart(step: Step, branches: Sequence[Branch]) -> None:
    """Raise `AxisError` where two instances put the same files, as far as that is known before they run."""
    seen: dict[str, str] = {}
    distinct = {branch.key: branch for branch in branches}
    for branch_steps, branch in zip(opened(step, [*distinct.values()]).branches, distinct.values(), strict=True):
        for pattern in (pattern for one in branch_steps for pattern in _known_puts(one, branch)):
            other = seen.setdefault(pattern, branch.label)
            if other != branch.label:
                raise AxisError(
                    ("matrix",),
                    f"the instances {other} and {branch.label} both put `{pattern}`",
                    "write the value of an axis into the path",
                )


def _known_puts(step: Step, branch: Branch) -> Iterator[str]:
    """Yield what a step of a branch puts, without what has values that are not of the branch."""
    values = {name: getattr(value, "value", value) for name, value in step.bound.items()}
    for pattern in step.put:
        if OPEN not in pattern:
            yield pattern
            continue
        paths = template(pattern).references()
        if all(path[0] == "matrix" or (path[0] == "parameters" and set(path[1:2]) & values.keys()) for path in paths):
            try:
                yield from rendered(step._replace(put=(pattern,)), {"matrix": values, "parameters": values}).put
            except ExpressionError as e:
                raise AxisError(("matrix",), f"the instance {branch.label}: {e.message}", e.hint) from e
