"""Steps with expressions, made ready for their decision: only pipelines that have some load this. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from runnable_ci.engine.planner import PlanInputs, Scope, Visible
from runnable_ci.engine.planning.arguments import bound
from runnable_ci.engine.planning.gate import judge, missing_from
from runnable_ci.engine.planning.seen import NotKnownYetError, Settled, contexts
from runnable_ci.engine.provenance.changes import Decision, Outcome
from runnable_ci.pipeline.branches.matrix import Branch
from runnable_ci.pipeline.expressions import Expression, ExpressionError, parse
from runnable_ci.pipeline.expressions.lookups import by_own_name, condition_of, expressions_in, texts_with_values
from runnable_ci.pipeline.expressions.rendering import rendered
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter

_WORDS = {Outcome.RAN: "success", Outcome.REUSED: "success", Outcome.FAILED: "failure", Outcome.PLANNED: ""}


class State(Protocol):
    """How far an invocation has come."""

    @property
    def pipeline(self) -> Pipeline:
        """What is run."""

    @property
    def inputs(self) -> PlanInputs:
        """What was found out before."""

    @property
    def steps(self) -> Mapping[str, Step]:
        """All steps that are known."""

    @property
    def settled(self) -> Mapping[str, Outcome]:
        """How each step was settled."""

    @property
    def outputs(self) -> Mapping[str, Mapping[str, Parameter]]:
        """What they returned."""

    @property
    def failed_above(self) -> Mapping[str, str]:
        """Step → one before it that failed."""

    @property
    def cancelled(self) -> Collection[str]:
        """The steps that were ended with the run."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""

    def position(self, step: str) -> tuple[int, ...]:
        """Return where a step is in the pipeline."""

    def scope(self, step: Step) -> Scope:
        """Return what a step can see."""

    def blocked(self, step: Step) -> str:
        """Return why a step does not run that waits for the success of all before it."""

    def has_failed(self, name: str) -> bool:
        """Return whether a step failed that had to succeed."""


def prepare(step: Step, state: State) -> tuple[Step, Scope, str, Collection[str]]:
    """Return a step with values in its texts, what it sees by its own names, why it cannot run, and the steps whose
    results are in its texts.
    """
    scope = state.scope(step)
    known = contexts_of(step, state, scope)
    paths = [path for expression in expressions_in(texts_with_values(step)) for path in expression.references()]
    looked_at = set(_givers(paths, step, state, scope))
    try:
        return rendered(step, known), _with_arguments(step, state, scope, known), "", looked_at
    except NotKnownYetError:
        return step, scope, "", looked_at
    except ExpressionError as e:
        return step, scope, e.message, looked_at


def bound_to_branches(step: Step, state: State) -> Step:
    """Return a step with what its `with` binds for all of its branches; what is not known yet is not there.

    Raises `PipelineError` for an expression that has no value.
    """
    scope = state.scope(step)
    of_each = _of_each(step)
    of_all = {name: written for name, written in step.arguments.items() if name not in of_each}
    given = _given(step._replace(arguments=of_all), state, contexts_of(step, state, scope), scope)
    return step._replace(bound={**step.bound, **given})


def bound_to_each(step: Step, branches: Sequence[Branch], state: State) -> list[Branch]:
    """Return branches with what the step's `with` binds for each of them alone. Raises `PipelineError`."""
    of_each = _of_each(step)
    if not of_each:
        return [one._replace(given={}) if one.given else one for one in branches]
    scope = state.scope(step)
    known = contexts_of(step, state, scope)
    step = step._replace(arguments=of_each)
    seen = ({**known, "matrix": {**known["matrix"], **one.values}} for one in branches)
    return [one._replace(given=_given(step, state, sees, scope)) for one, sees in zip(branches, seen, strict=True)]


def _of_each(step: Step) -> dict[str, Any]:
    """Return what `with` binds for each instance of a step alone: what looks at `matrix`."""
    if step.branching is None or step.branching.matrix is None:
        return {}
    return {
        name: written
        for name, written in step.arguments.items()
        if any(path[0] == "matrix" for expression in expressions_in(written) for path in expression.references())
    }


def _given(step: Step, state: State, known: Mapping[str, Any], scope: Scope) -> dict[str, Parameter]:
    given = {}
    for name, written in step.arguments.items():
        try:
            parameter, paths = bound(step._replace(arguments={name: written}), known, scope.values())[name]
            if parameter is None:
                _require_value(paths[0][1], known)
        except NotKnownYetError:
            continue
        except ExpressionError as e:
            raise state.pipeline.error(step, f"{name}: {e.message}", e.hint, table="with", key=name) from e
        if parameter is not None:
            given[name] = parameter
    return given


def gate_of(step: Step, state: State) -> Decision | None:
    """Return what a step's condition decides, and what was skipped before it; None for neither."""
    decision = None
    scope = state.scope(step)
    if step.condition:
        failed = next((need if state.has_failed(need) else state.failed_above[need] for need in step.needs), "")
        known = contexts_of(step, state, scope)
        verdict = judge(step, known, failed=failed, cancelled=state.is_cancelled)
        if verdict.error:
            return Decision("run", verdict.error, refusal=verdict.error)
        if verdict.holds is False:
            reason = verdict.reason or state.blocked(step)
            return Decision("skip", reason, is_omission=bool(verdict.reason))
        decision = Decision("run", verdict.reason, is_tentative=verdict.holds is None)
        decision = decision._replace(runs_though_cancelled=verdict.is_of_status)
    elif reason := state.blocked(step):
        return Decision("skip", reason)
    before = sorted(above(step, state), key=state.position)
    omitted = [state.steps[name] for name in before if state.settled[name] is Outcome.OMITTED]
    if not omitted:
        return decision
    others = [state.steps[name] for name in before if state.settled[name] is not Outcome.OMITTED]
    if reason := missing_from(
        step,
        omitted,
        others,
        required=state.inputs.required(step),
        parameters=scope.parameters,
        files=scope.files,
        is_there=lambda pattern: bool(state.inputs.files(pattern, scope)),
    ):
        return Decision("skip", reason, is_omission=True)
    return decision


def above(step: Step, state: State) -> set[str]:
    """Return the steps before a step that are settled."""
    found: set[str] = set()
    waiting = [*step.needs]
    while waiting:
        name = waiting.pop()
        if name not in found and name in state.settled:
            found.add(name)
            waiting.extend(state.steps[name].needs)
    return found


def _require_value(name: str, known: Mapping[str, Any]) -> None:
    """Raise `ExpressionError` for a parameter that has none: `NotKnownYetError` where it will have one."""
    if name not in known["parameters"]:
        raise ExpressionError(f"`{name}` has no value", hint="no parameter or earlier step gives it")


def contexts_of(step: Step, state: State, scope: Scope, ended: Mapping[str, Settled] = {}) -> dict[str, Any]:
    """Return what the expressions of a step see; of the steps before it those that they look up: of a long chain all
    would add up. `ended` has more of them.
    """
    paths = [path for expression in _expressions(step) for path in expression.references()]
    named = {path[1] for path in paths if path[0] == "steps" and len(path) > 1}
    is_of_all = ("steps",) in paths

    def is_seen(name: str) -> bool:
        is_open = state.settled[name] is Outcome.PLANNED and bool(state.steps[name].returns)
        return is_of_all or is_open or name in step.needs or name.rpartition(".")[2] in named

    settled = {name: _settled(name, state) for name in filter(is_seen, above(step, state))}
    return contexts(step, scope.values(), {**settled, **ended})


def _expressions(step: Step) -> Iterator[Expression]:
    yield from expressions_in(texts_with_values(step))
    if step.condition:
        yield parse(step.condition)
    if step.branching and step.branching.loop:
        yield condition_of(step.branching.loop.until)


def _settled(name: str, state: State) -> Settled:
    word, step = _WORDS.get(state.settled[name], "skipped"), state.steps[name]
    if name in state.cancelled:
        word = "cancelled"
    is_allowed = word == "failure" and not state.has_failed(name)
    returns = step.returns if state.settled[name] is Outcome.PLANNED else ()
    return Settled(word, "success" if is_allowed else word, state.outputs.get(name, {}), returns)


def _with_arguments(step: Step, state: State, scope: Scope, known: Mapping[str, Any]) -> Scope:
    """Return the scope in which `with` is bound: what a step has by a name of its own hides what others gave by it."""
    if not step.arguments:
        return scope
    parameters = dict(scope.parameters)
    for name, (parameter, paths) in bound(step, known, scope.values()).items():
        parameters.pop(name, None)
        if parameter is None:
            continue
        givers = list(_givers(paths, step, state, scope))
        begun = any(path[0] == "parameters" and not scope.parameters[path[1]].position for path in _known(paths, scope))
        # What only the step's own table gives is of that, and not of what the run began with.
        position = max(map(state.position, givers), default=() if begun else state.position(step.name))
        parameters[name] = Visible(position, parameter, givers[-1] if givers else "")
    return Scope(parameters, scope.files)


def _known(paths: Collection[tuple[str, ...]], scope: Scope) -> list[tuple[str, ...]]:
    return [path for path in paths if path[0] == "parameters" and len(path) > 1 and path[1] in scope.parameters]


def _givers(paths: Collection[tuple[str, ...]], step: Step, state: State, scope: Scope) -> Iterator[str]:
    """Yield the steps that give what these paths look up."""
    known = by_own_name(step.name, above(step, state))
    for path in paths:
        match path:
            case ("parameters", name, *_) if name in scope.parameters and scope.parameters[name].giver:
                yield scope.parameters[name].giver
            case ("steps" | "needs", name, *_) if name in known:
                yield known[name]
