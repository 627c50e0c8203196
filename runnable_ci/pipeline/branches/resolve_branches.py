"""Steps with `strategy`, `loop` and `uses`: what of their tables is wrong whatever the values turn out to be. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.branches.matrix import AxisError, Loop, Matrix, combinations, instances, kind_of
from runnable_ci.pipeline.inputs import Input
from runnable_ci.pipeline.keys.tables import Attempts, StrategyConfig
from runnable_ci.pipeline.schema import FUNCTION, RELATIVE, PipelineConfig, Place, StepConfig
from runnable_ci.pipeline.step import Branching, Step
from runnable_ci.pipeline.validation import check_parameter_name, check_parameters, check_relative, shown

PARTS_MAX: Final = 10
"""Files whose steps use one another."""
_OF_ONE: Final = ("include", "exclude")
_BESIDE_USES: Final = frozenset(
    {"uses", "needs", "strategy", "loop", "name", "reduce", "returns", "env", "with_", "if_", "continue_on_error"}
    | {"runs_on", "job"}
)
"""What a step with `uses` may have: all else is said by the steps of that file."""


def check_keys(place: Place, table: str, config: StepConfig) -> None:
    """Raise `PipelineError` for keys that a step with branches cannot have, or that need one."""
    if config.uses is not None:
        wrong = sorted(config.model_fields_set - _BESIDE_USES)
        if wrong:
            key = wrong[0].replace("_", "-")
            raise place.error(table, f"`{key}` does not go with `uses`", "write it in the steps of that file", key=key)
    if config.strategy is None:
        for key in ("name", "reduce"):
            if getattr(config, key) is not None:
                hint = "it is of the instances of a matrix: add `strategy`, or remove it"
                raise place.error(table, f"`{key}` needs `strategy`", hint, key=key)
    if config.reduce is not None and not FUNCTION.fullmatch(config.reduce):
        hint = 'write reduce = "module:function"'
        raise place.error(table, f"reduce = {shown(config.reduce)} is not a function", hint, key="reduce")
    if config.reduce is not None and not config.returns:
        raise place.error(table, "`reduce` has nothing to reduce", "add `returns`", key="reduce")


def path_of(place: Place, table: str, uses: str, within: tuple[str, ...]) -> str:
    """Return the path that a step `uses`, relative to the folder of the file that is run."""
    check_relative(uses, lambda m: place.error(table, f"uses: {m}", RELATIVE, key="uses"))
    path = posixpath.normpath(uses)
    if path in within:
        chain = " → ".join((*within[within.index(path) :], path))
        raise place.error(table, f"uses: a file uses itself: {chain}", "remove one of them", key="uses")
    if len(within) >= PARTS_MAX:
        raise place.error(table, f"uses: more than {PARTS_MAX} files in one another", "use fewer", key="uses")
    return path


def require_inputs(
    place: Place, table: str, config: StepConfig, part: PipelineConfig, inputs: Mapping[str, Input]
) -> None:
    """Raise `PipelineError` where `with` binds what the file does not take."""
    known = [*part.parameters, *inputs]
    for name in getattr(config, "with_", ()):
        if name not in known:
            hint = did_you_mean(name, known, f"its parameters are: {', '.join(known) or 'none'}")
            raise place.error(f"{table}.with", f"`{config.uses}` has no parameter `{name}`", hint, key=name)


def used(step: Step, place: Place, part: PipelineConfig, env: Mapping[str, str]) -> Step:
    """Return a step of a file as the step that uses the file has it."""
    branching = step.branching
    if branching is not None:
        body = {name: used(inner, place, part, env) for name, inner in branching.body.items()}
        branching = branching._replace(body=body)
    return step._replace(
        env={**env, **step.env},
        defaults={**part.parameters, **step.defaults},
        place=step.place or place,
        branching=branching,
    )


def with_branches(place: Place, table: str, config: StepConfig, step: Step, body: Mapping[str, Step]) -> Step:
    """Return a step that becomes branches, each of the steps of `body`; without any it is itself the only one."""
    is_for_each = "matrix." in step.condition  # else it is evaluated once, before there are values
    own = step._replace(needs=(), condition=step.condition if is_for_each else "")
    alone = body or {step.name: own}
    step = step._replace(condition="" if is_for_each else step.condition, attempts=Attempts())
    if not body:
        step = step._replace(arguments={})
    if body:
        given = {name: kind for inner in body.values() for name, kind in inner.returns.items()}
        for name in step.returns:
            if name not in given:
                hint = did_you_mean(name, given, f"they return: {', '.join(given) or 'nothing'}")
                raise place.error(f"{table}.returns", f"no step of `{config.uses}` returns `{name}`", hint, key=name)
        step = step._replace(returns={name: given[name] for name in step.returns or given})
    end = _after_all(step)
    if end.container is not None and (not config.reduce or any(_is_of_one(text) for _, text in end.container.texts())):
        end = end._replace(container=None)  # else it is that of the function that reduces
    if not config.reduce:
        end = end._replace(executor="", resources=None)
    if config.loop is not None:
        loop = Loop(config.loop.until, config.loop.max)
        end = end._replace(branching=Branching(alone, loop=loop))
        alone = {step.name: end._replace(needs=())}
    if config.strategy is not None:
        strategy = config.strategy
        branching = Branching(
            alone,
            matrix=_matrix(place, table, strategy, step if not body else None),
            max_parallel=strategy.max_parallel,
            fail_fast=strategy.fail_fast,
            label=config.name or "",
            reduce=config.reduce or "",
        )
        # A loop within it binds the arguments.
        return end._replace(branching=branching, arguments={} if config.loop is not None else end.arguments)
    return end if config.loop is not None else end._replace(branching=Branching(alone))


def _after_all(step: Step) -> Step:
    """Return the step that comes after its branches: it has nothing of what only one of them has."""
    own = {name: text for name, text in step.env.items() if not _is_of_one(text)}
    folder = "." if _is_of_one(step.working_directory) else step.working_directory
    end = step._replace(kind="branches", command="", get=None, put=(), metrics=(), unstored=(), parameters=None)
    return end._replace(env=own, working_directory=folder, reads=None, ignore_reads=(), checkpoint=())


def _is_of_one(text: str) -> bool:
    """Return whether a text has an expression with values of an instance."""
    return "${{" in text and "matrix" in text


def _matrix(place: Place, table: str, strategy: StrategyConfig, step: Step | None) -> Matrix:
    """Return the matrix of a strategy; `step` is what its instances are, where that is one step."""
    where = f"{table}.strategy"
    if isinstance(strategy.matrix, str):
        return Matrix(whole=strategy.matrix)
    axes = {name: values for name, values in strategy.matrix.items() if name not in _OF_ONE}
    matrix = Matrix(axes, *(strategy.matrix.get(name, ()) for name in _OF_ONE))
    if not matrix.axes and not matrix.include:
        raise place.error(where, "`matrix` has no axis", 'add one, such as sample = ["a", "b"]', key="matrix")
    for name in matrix.names():
        check_parameter_name(name, lambda m, hint, name=name: place.error(where, m, hint, key=("matrix", name)))
        check_parameters(
            {name: axes.get(name)}, lambda m, hint, name=name: place.error(where, m, hint, key=("matrix", name))
        )
    known = {name: values for name, values in axes.items() if isinstance(values, list)}
    unknown = {name: ["…"] for name in axes.keys() - known.keys()}
    for name in unknown:
        if not isinstance(axes[name], str) or "${{" not in axes[name]:
            hint = f'such as {name} = ["a", "b"], or an expression: "${{{{ parameters.{name} }}}}"'
            message = f"the axis `{name}` is {kind_of(axes[name])}, not a list"
            raise place.error(where, message, hint, key=("matrix", name))
    try:
        exclude = () if isinstance(matrix.exclude, str) else matrix.exclude
        include = () if isinstance(matrix.include, str) else matrix.include
        _check_excluded(matrix, exclude)
        branches = instances(combinations({**known, **unknown}, include, exclude), axes)
    except AxisError as e:
        raise place.error(where, e.message, e.hint, key=e.key) from e
    if step is not None and (len(branches) > 1 or unknown):
        _check_puts(place, table, step, matrix)
    return matrix


def _check_excluded(matrix: Matrix, exclude: Any) -> None:
    for one in exclude if isinstance(exclude, list) else ():
        for name in one if isinstance(one, Mapping) else ():
            if name not in matrix.axes:
                axes = ", ".join(matrix.axes)
                raise AxisError(
                    ("matrix", "exclude"), f"`exclude` has the unknown axis `{name}`", f"the axes are: {axes}"
                )


def _check_puts(place: Place, table: str, step: Step, matrix: Matrix) -> None:
    """Raise where instances would put the same file: each pattern must name each axis that has several values."""
    several = [name for name, values in matrix.axes.items() if not isinstance(values, list) or len(values) > 1]
    for key, pattern in (
        *(("put", glob) for glob in _given_puts(step)),
        *(("checkpoint", glob) for glob in step.checkpoint),
    ):
        missing = [name for name in several if f"matrix.{name}" not in pattern and "toJSON(matrix)" not in pattern]
        if missing:
            name = missing[0]
            raise place.error(
                f"{table}.catalog" if key == "put" else table,
                f"{key}: `{pattern}` is the same for each `{name}`: the instances would replace each other's files",
                f'write it into the path: "{_with_axis(pattern, name)}"',
                key=key,
            )


def _given_puts(step: Step) -> list[str]:
    """Return the patterns that the file gives; an executed notebook has the name of its instance."""
    if step.kind != "notebook":
        return list(step.put)
    from runnable_ci.pipeline.notebook_keys import is_default  # few pipelines have one

    return [pattern for pattern in step.put if pattern != step.executed or not is_default(step)]


def _with_axis(pattern: str, axis: str) -> str:
    folder, slash, name = pattern.rpartition("/")
    value = f"${{{{ matrix.{axis} }}}}"
    return f"{folder}{slash}{value}-{name}" if "*" not in pattern else f"{folder or 'out'}/{value}/**"


def link_chains(steps: Mapping[str, Step]) -> dict[str, Step]:
    """Return steps of which those that share a matrix with one that they need follow it instance by instance."""
    linked = dict(steps)
    for name, step in steps.items():
        mine = step.branching
        if mine is None or mine.matrix is None:
            continue
        follows = {}
        for need in step.needs:
            other = steps[need].branching
            if other is not None and other.matrix is not None and other.matrix == mine.matrix:
                follows[need] = other.last()
        if follows:
            linked[name] = step._replace(branching=mine._replace(follows=follows))
    return linked
