"""What a step's table says in expressions, checked before anything runs: `if`, `with`, `until`, `${{ … }}`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.branches.expansion import ANY
from runnable_ci.pipeline.expressions.expression import Expression, parse
from runnable_ci.pipeline.expressions.lookups import by_own_name, parameter_of, texts_in
from runnable_ci.pipeline.expressions.rendering import located, texts_of
from runnable_ci.pipeline.expressions.syntax import ExpressionError
from runnable_ci.pipeline.expressions.template import OPEN, template
from runnable_ci.pipeline.keys.tables import Attempts, AttemptsConfig
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.schema import Place, StepConfig
from runnable_ci.pipeline.step import Branching, Step, groups_of
from runnable_ci.pipeline.validation import check_parameter_name, not_json, shown

STATUS_FUNCTIONS: Final = ("success", "failure", "always", "cancelled")
_CONTEXTS: Final = ("parameters", "steps", "needs", "env")
_OF_GITHUB: Final = {
    "secrets": "a step gets the variable from outside: set it there, and list its name in `secrets`",
    "github": "a job's variables, such as GITHUB_SHA, reach each step by themselves",
    "inputs": "they are parameters here",
    "params": "they are parameters here",
    "vars": "write it under [parameters]",
    "runner": "a job's variables, such as RUNNER_OS, reach each step by themselves",
    "job": "what a job knows is in its variables",
}
"""Contexts of workflows that pipelines do not have → what there is instead."""
_OF_STEPS: Final = ("outcome", "conclusion", "outputs")
_OF_NEEDS: Final = ("result", "outputs")


def with_control(place: Place, table: str, step: Step, config: StepConfig) -> Step:
    """Return a step with its condition, arguments and tries. Raises `PipelineError` for what they cannot be."""
    for name, value in config.with_.items():
        check_parameter_name(name, lambda m, hint, name=name: place.error(f"{table}.with", m, hint, key=name))
        if problem := not_json(value):
            raise place.error(f"{table}.with", f"{name}: {problem}", "write it as a string", key=name)
        if name in step.env:
            hint = "rename one: both would set the same variable"
            raise place.error(f"{table}.with", f"`{name}` is also set by `env`", hint, key=name)
    step = step._replace(
        condition="" if config.if_ is None else _condition(place, table, config.if_),
        arguments=config.with_,
        attempts=Attempts() if config.attempts is None else _attempts(place, table, config.attempts),
    )
    _require_readable(place, table, step)
    return step


def _condition(place: Place, table: str, written: str | bool, key: str = "if") -> str:
    """Return the condition without `${{ }}` around it."""
    if isinstance(written, bool):
        return str(written).lower()
    try:
        parts = template(written.strip()).parts
        if len(parts) == 1:
            return parse(written).text if isinstance(parts[0], str) else parts[0].text
    except ExpressionError as e:
        raise located(place, table, key, "", written, e) from e
    hint = "write all of it in one `${{ }}`, or none of it"
    raise place.error(table, f"{key}: beside an expression there is text, which is always true", hint, key=key)


def _attempts(place: Place, table: str, written: AttemptsConfig) -> Attempts:
    for end in written.on or ():
        if isinstance(end, str) and end not in ("timeout", "lost"):
            hint = did_you_mean(end, ("timeout", "lost"), '"timeout", "lost", or an exit code such as 137')
            raise place.error(f"{table}.attempts", f"on: a try does not end by {shown(end)}", hint, key="on")
    on = None if written.on is None else tuple(written.on)
    return Attempts(written.max, written.wait_seconds, on)


class _Sight(NamedTuple):
    """What the expressions of a text may look up."""

    step: Step
    pipeline: Pipeline
    above: Collection[str]
    """The steps that are over before it has a value."""
    needs: Collection[str]
    axes: Collection[str] | None
    """Of `matrix`: None where there is none, empty where any may be there."""
    functions: Collection[str] = ()
    followed: Collection[str] = ()
    """Steps that are followed instance by instance: they are not over when `with` of a file's steps has a value."""
    is_declared: bool = False
    """Whether each parameter must be known from the file: one that is not would be null, and decide nevertheless."""


def check_expressions(outlined: Pipeline, steps: Mapping[str, Step]) -> None:
    """Raise `PipelineError` for the first expression that refers to what there is not: in a pipeline's outline, and in
    what makes branches of its `steps`.
    """
    ends = dict(_with_branches(steps))
    free = {name for name, branching in ends.items() if branching.matrix is not None and branching.matrix.is_open}
    for step in outlined.steps.values():
        place, table = step.place or outlined.place, f"steps.{step.name.rpartition('.')[2]}"
        for key, name, text, expression in expressions_of(step):
            sight = _sight(step, key, outlined, ends.get(step.name), free)
            is_whole = key == "with" and step.arguments[name] == text and template(text).is_value
            with _located(place, table, key, name, text):
                _check(expression, sight, may_be_object=is_whole)
        for where, key, name, text in _texts_of_branching(ends.get(step.name)):
            with _located(place, f"{table}{where}", key, name, text):
                is_condition = key == "until"
                condition = _condition(place, f"{table}{where}", text, key) if is_condition else ""
                for expression in [parse(condition)] if is_condition else template(text).expressions:
                    _check(expression, _sight(step, key, outlined, ends[step.name], free), may_be_object=False)


def _with_branches(steps: Mapping[str, Step], prefix: str = "") -> Iterator[tuple[str, Branching]]:
    """Yield the steps that become branches, by the names that they have in the outline."""
    for name, step in steps.items():
        if step.branching is not None:
            yield f"{prefix}{name}", step.branching
            yield from _with_branches(step.branching.body, f"{prefix}{name}.{ANY}.")


def _texts_of_branching(branching: Branching | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield the texts with expressions that make branches: the table in that of the step, the key, the name in the
    table of that key, and the text.
    """
    if branching is None:
        return
    if branching.loop is not None:
        yield ".loop", "until", "", branching.loop.until
    if OPEN in branching.label:
        yield "", "name", "", branching.label
    if (matrix := branching.matrix) is not None:
        tables = {**matrix.axes, "include": matrix.include, "exclude": matrix.exclude}
        for name, value in {"": matrix.whole, **tables}.items():
            yield from ((".strategy", "matrix", name, text) for text in texts_in(value) if OPEN in text)


@contextmanager
def _located(place: Place, table: str, key: str, name: str, text: str) -> Iterator[None]:
    try:
        yield
    except ExpressionError as e:
        raise located(place, table, key, name, text, e) from e


def _sight(step: Step, key: str, pipeline: Pipeline, branching: Branching | None, free: Collection[str]) -> _Sight:
    """Return what a text sees; `free` are the steps of which no axis is known."""
    needs, above = step.needs, pipeline.ancestors(step.name)
    if branching is not None and key in ("if", "with", "matrix", "until"):  # they have a value before the branches
        own = f"{step.name}."
        needs = tuple(need for need in needs if not need.startswith(own))
        above = frozenset(name for name in above if not name.startswith(own))
    if key == "until":
        above |= {step.name}
    axes: Collection[str] | None = [*step.bound] if step.in_matrix else None
    if branching is not None and branching.matrix is not None and key in ("with", "name"):
        axes = () if step.name in free else [*(axes or ()), *branching.matrix.names()]
    if axes and any(group in free for group in groups_of(step.name)):
        axes = ()
    functions = STATUS_FUNCTIONS if key == "if" else ("files",) if key == "matrix" else ()
    prefix = step.name[: -len(step.name.rpartition(".")[2])]
    followed = [f"{prefix}{name}" for name in branching.follows] if branching is not None and key == "with" else []
    return _Sight(step, pipeline, above, needs, axes, functions, followed, key in ("matrix", "until"))


def expressions_of(step: Step) -> Iterator[tuple[str, str, str, Expression]]:
    """Yield the expressions of a step: the key, the name in its table, the text around it, and the expression."""
    if step.condition:
        yield "if", "", step.condition, parse(step.condition)
    for key, name, text in texts_of(step):
        if OPEN in text:
            yield from ((key, name, text, expression) for expression in template(text).expressions)


def _require_readable(place: Place, table: str, step: Step) -> None:
    """Raise `PipelineError` for a text with an expression that does not parse."""
    for key, name, text in texts_of(step):
        if OPEN in text:
            try:
                template(text)
            except ExpressionError as e:
                raise located(place, table, key, name, text, e) from e


def _check(expression: Expression, sight: _Sight, *, may_be_object: bool) -> None:
    """Raise `ExpressionError` for what it looks up that there is not."""
    for path, position in expression.places():
        if path[0] in _OF_GITHUB:
            raise ExpressionError(f"there is no context `{path[0]}`", position, _OF_GITHUB[path[0]])
    step, pipeline = sight.step, sight.pipeline
    expression.require([*_CONTEXTS, *(["matrix"] if sight.axes is not None else [])], sight.functions)
    above = by_own_name(step.name, sight.above)
    needs = by_own_name(step.name, sight.needs)
    whole = parameter_of(expression)[0] if may_be_object else ""
    for path, position in expression.places():
        if one := next((name for name in sight.followed if _is_of(path, pipeline.steps[name])), ""):
            hint = "the steps of the file see what it returns by that name: remove this from `with`"
            raise ExpressionError(f"it follows `{one}` instance by instance, which is not over by then", position, hint)
        match path:
            case ("parameters", parameter, *more):
                _check_parameter(parameter, position, sight, may_be_object=parameter == whole and not more)
            case ("steps", other, *more):
                if other not in above:
                    raise ExpressionError(*_not_before(other, position, sight))
                _check_result(above[other], more, _OF_STEPS, position, pipeline)
            case ("needs", other, *more):
                if other not in needs:
                    hint = did_you_mean(other, needs, f"it needs: {', '.join(needs) or 'no step'}")
                    raise ExpressionError(f"the step does not need `{other}`", position, hint)
                _check_result(needs[other], more, _OF_NEEDS, position, pipeline)
            case ("matrix", axis, *_) if sight.axes and axis not in sight.axes:
                hint = did_you_mean(axis, sight.axes, f"the axes are: {', '.join(sight.axes)}")
                raise ExpressionError(f"there is no axis `{axis}`", position, hint)
            case ("env", variable, *_):
                _check_variable(variable, position, step)


def _is_of(path: tuple[str, ...], step: Step) -> bool:
    """Return whether a look-up finds what a step gives."""
    match path:
        case ("parameters", name, *_):
            return name in step.returns
        case ("steps" | "needs", name, *_):
            return name == step.name.rpartition(".")[2]
        case _:
            return False


def _check_parameter(name: str, position: int, sight: _Sight, *, may_be_object: bool) -> None:
    """Refuse a parameter that only a step gives which does not come before, and an object as a text or a number."""
    step, pipeline, above = sight.step, sight.pipeline, sight.above
    own = f"{step.name}."
    givers = [
        other
        for other in pipeline.steps.values()
        if name in other.returns and (other.name in above or not f"{other.name}.".startswith(own))
    ]
    before = [giver for giver in givers if giver.name in above]
    known = [*step.bound, *step.defaults, *pipeline.parameters, *pipeline.inputs]
    if not before and name not in known:
        if givers:
            hint = f"list `{givers[0].name}` in `needs`"
            raise ExpressionError(
                f"`{name}` is returned by step `{givers[0].name}`, which is not before it", position, hint
            )
        known += [n for one in above for n in pipeline.steps[one].returns]
        otherwise = f"declare it: [parameters] {name} = …, or let a step before it return it"
        if (hint := did_you_mean(name, known)) or sight.is_declared:
            raise ExpressionError(f"there is no parameter `{name}`", position, hint or otherwise)
    if not may_be_object and any(giver.returns[name] == "object" for giver in before):
        hint = 'pass it whole to a function: with = { model = "${{ parameters.model }}" }'
        raise ExpressionError(f"`{name}` is an object, which has no text", position, hint)


def _not_before(name: str, position: int, sight: _Sight) -> tuple[str, int, str]:
    step, pipeline, above = sight.step, sight.pipeline, sight.above
    if name in pipeline.steps:
        message = "the step itself" if name == step.name else f"step `{name}`, which is not before it"
        return f"it looks at {message}", position, f"list `{name}` in `needs`" if name != step.name else ""
    hint = did_you_mean(name, above, f"the steps before it are: {', '.join(sorted(above)) or 'none'}")
    return f"there is no step `{name}`", position, hint


def _check_result(name: str, path: list[str], known: tuple[str, ...], position: int, pipeline: Pipeline) -> None:
    """Refuse what a step's result does not have."""
    if not path:
        return
    if path[0] not in known:
        hint = did_you_mean(path[0], known, f"a step has: {', '.join(known)}")
        raise ExpressionError(f"a step has no `{path[0]}`", position, hint)
    returns: Mapping[str, Any] = pipeline.steps[name].returns
    name = pipeline.steps[name].name.rpartition(".")[2]
    if path[0] == "outputs" and path[1:] and path[1] not in returns:
        hint = did_you_mean(path[1], returns, f"it returns: {', '.join(returns) or 'nothing'}")
        raise ExpressionError(f"step `{name}` does not return `{path[1]}`", position, hint)
    if path[0] == "outputs" and path[1:] and returns[path[1]] == "object":
        raise ExpressionError(
            f"`{path[1]}` is an object, which has no text", position, "use it as parameters, in `with`"
        )


def _check_variable(name: str, position: int, step: Step) -> None:
    plain = [one for one, text in step.env.items() if OPEN not in text]
    if name in step.env and name not in plain:
        raise ExpressionError(f"`{name}` has an expression itself", position, "write that expression here too")
    if name not in plain:
        hint = did_you_mean(name, plain, f"`env` has: {', '.join(plain) or 'nothing'}")
        raise ExpressionError(f"`env` has no `{name}`: only what the file sets is known here", position, hint)
