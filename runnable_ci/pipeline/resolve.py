"""A pipeline of the parsed TOML table that describes it: defaults filled in, steps checked against each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.inputs import Input, resolve_inputs
from runnable_ci.pipeline.keys.tables import age_s
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.schema import (
    RELATIVE,
    STEP_NAME,
    PipelineConfig,
    Place,
    StepConfig,
    StepKind,
    check_command,
)
from runnable_ci.pipeline.step import Runner, Step
from runnable_ci.pipeline.validation import (
    check_input,
    check_parameter_name,
    check_parameters,
    check_relative,
    is_excluded,
    shown,
)
from runnable_ci.redaction.environment import spelled

if TYPE_CHECKING:
    from runnable_ci.pipeline.keys.executors import Executor

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REPOSITORY = re.compile(
    r"((https|oci|docker)://)?([a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+/*",
    re.IGNORECASE,
)
"""As `store.reference` reads them, which takes too long to load."""


def has_branches(config: StepConfig) -> bool:
    """Return whether a step becomes branches."""
    return config.strategy is not None or config.loop is not None or config.uses is not None


def _no_part(path: str, place: Place, table: str) -> UsedFile:
    raise place.error(table, f"uses: {shown(path)} cannot be read here", key="uses")


class UsedFile(NamedTuple):
    """A pipeline file that a step `uses`, as it was read."""

    table: Mapping[str, Any]
    place: Place


ReadPart = Callable[[str, Place, str], UsedFile]
"""Returns the file at a path that a step, of a file and its table, uses; raises `PipelineError`."""


def resolve(
    table: Mapping[str, Any],
    *,
    file: str,
    default_name: str,
    prefix: str = "",
    text: str = "",
    read_part: ReadPart = _no_part,
) -> Pipeline:
    """Return the pipeline that a parsed TOML table describes.

    `file` names the file in messages, `prefix` is the table's own place in it (`tool.runnable-ci`), `text` is all of
    it: errors show its lines. Raises `PipelineError` for the first mistake found.
    """
    place = Place(file, prefix, text)
    parsed, inputs = _parse(place, table)
    if parsed.registry is not None and not REPOSITORY.fullmatch(parsed.registry):
        hint = 'write it as "ghcr.io/owner/repo/runs": a host and a name, without a tag'
        raise place.error("", f"registry: {shown(parsed.registry)} is not a repository", hint, key="registry")
    files = [(place, parsed)]
    steps = _steps(place, parsed, read_part, files, within=())
    pipeline = Pipeline(
        name=parsed.name or default_name,
        file=file,
        python=parsed.python,
        parameters=parsed.parameters,
        steps=steps,
        registry=parsed.registry,
        secrets=tuple(dict.fromkeys(name for _, one in files for name in one.secrets)),
        untracked=parsed.untracked,
        log_level=parsed.log_level,
        time_budget=parsed.time_budget,
        is_named=bool(parsed.name),
        inputs=inputs,
        place=place,
        workflow=parsed.workflow,
        executors=_executors(files) if any(file.executors for _, file in files) else {},
    )
    outlined = pipeline.outlined()
    _check_returns(outlined)
    if sum(1 for step in outlined.steps.values() if step.put) > 1:
        from runnable_ci.pipeline.overlaps import check_puts

        check_puts(pipeline, outlined)
    if any(step.checkpoint for step in outlined.steps.values()):
        from runnable_ci.pipeline.keys.checkpoint import check_checkpoints

        check_checkpoints(pipeline, outlined)
    if any(step.executor for step in outlined.steps.values()):
        from runnable_ci.pipeline.keys.executor_choice import check_executors

        check_executors(pipeline, outlined)
    if outlined is not pipeline or any(
        step.condition or step.arguments or step.has_expressions() for step in outlined.steps.values()
    ):
        from runnable_ci.pipeline.expressions.checks import check_expressions

        check_expressions(outlined, steps)
    return pipeline


def _executors(files: Sequence[tuple[Place, PipelineConfig]]) -> Mapping[str, Executor]:
    from runnable_ci.pipeline.keys.executors import resolve_executors  # few pipelines have any

    return resolve_executors(files)


def _parse(place: Place, table: Mapping[str, Any]) -> tuple[PipelineConfig, dict[str, Input]]:
    """Return what a file says, with the defaults of its inputs among its parameters."""
    if "defaults" in table:
        from runnable_ci.pipeline.keys.defaults import with_defaults  # few files have any

        table = with_defaults(place, table)
    try:
        parsed = PipelineConfig.model_validate(table)
    except ValidationError as e:
        from runnable_ci.pipeline.diagnostics.mistakes import validation_error  # what is right needs none of it

        raise validation_error(place, e) from e
    for name, value in parsed.parameters.items():
        check_parameters({name: value}, partial(place.error, "parameters", key=name))
    inputs = resolve_inputs(place, parsed)
    defaults = {name: one.default for name, one in inputs.items() if one.default is not None}
    parsed = parsed.model_copy(update={"parameters": parsed.parameters | defaults})
    _check_env(place, "env", parsed.env, parsed.parameters)
    if wrong := [name for name in parsed.secrets if not _VARIABLE.fullmatch(name)]:  # it may be the secret: not shown
        names = ", ".join(f'"{name}"' for name in spelled(wrong[0]) or ["API_KEY", "DB_PASSWORD"])
        hint = f"write only names, each as a separate string, without `$`, braces or `secrets.`: secrets = [{names}]"
        raise place.error("", "secrets: an entry is not the name of an environment variable", hint, key="secrets")
    return parsed, inputs


def _steps(
    place: Place,
    parsed: PipelineConfig,
    read_part: ReadPart,
    files: list[tuple[Place, PipelineConfig]],
    *,
    within: tuple[str, ...],
) -> dict[str, Step]:
    """Return the steps of a file, each after those that it needs; `within` are the files whose steps use it.

    Those that its steps use are added to `files`.
    """
    steps: dict[str, Step] = {}
    above: tuple[str, ...] = ()
    for name, config in parsed.steps.items():
        step = _resolve_step(place, parsed, name, config, above)
        if config.if_ is not None or config.with_ or config.attempts is not None or step.has_expressions():
            from runnable_ci.pipeline.expressions.checks import with_control  # few steps need it

            step = with_control(place, f"steps.{name}", step, config)
        if config.resources is not None:
            from runnable_ci.pipeline.keys.resources import resolve_resources  # few steps need it

            resources = resolve_resources(place, f"steps.{name}", config.resources, step.attempts.most)
            step = step._replace(resources=resources)
        if has_branches(config):
            from runnable_ci.pipeline.branches import resolve_branches  # few pipelines need it

            table = f"steps.{name}"
            body: dict[str, Step] = {}
            if config.uses is not None:
                used = resolve_branches.path_of(place, table, config.uses, within)
                part = read_part(used, place, table)
                inner, inputs = _parse(part.place, part.table)
                files.append((part.place, inner))
                body = _steps(part.place, inner, read_part, files, within=(*within, used))
                resolve_branches.require_inputs(place, table, config, inner, inputs)
                body = {n: resolve_branches.used(one, part.place, inner, step.env) for n, one in body.items()}
            step = resolve_branches.with_branches(place, table, config, step, body)
        steps[name] = step
        above = (name,)
    _check_needs(place, steps)
    ordered = {name: steps[name] for name in _topological(place, steps)}
    if any(step.branching for step in steps.values()):
        return resolve_branches.link_chains(ordered)
    return ordered


def _resolve_step(place: Place, pipeline: PipelineConfig, name: str, step: StepConfig, above: tuple[str, ...]) -> Step:
    table = f"steps.{name}"
    kind, command = _checked(place, table, name, step)
    put = [entry.path for entry in step.catalog.put]
    executed = ""
    if kind == "notebook":
        from runnable_ci.pipeline.notebook_keys import check_notebook, executed_path  # few pipelines have one

        check_notebook(place, table, step)
        executed = str(PurePosixPath(step.executed or executed_path(name)))
        command = str(PurePosixPath(command))
    env = pipeline.env | step.env
    _check_env(place, f"{table}.env", step.env, pipeline.parameters)
    if step.env_read:
        from runnable_ci.pipeline.keys.env_read import check_env_read  # few steps have it

        check_env_read(place, table, step.env_read)
    container = None
    if step.container:
        from runnable_ci.pipeline.container import resolve_container  # few pipelines need it

        container = resolve_container(
            place, table, step, lambda env: _check_env(place, f"{table}.container.env", env, pipeline.parameters)
        )
    return Step(
        name=name,
        kind=kind,
        command=command,
        needs=above if step.needs is None else tuple(dict.fromkeys(step.needs)),
        returns=step.returns,
        get=None if step.catalog.get is None else tuple(step.catalog.get),
        put=tuple(dict.fromkeys([*put, *step.metrics, *filter(None, [executed])])),
        unstored=tuple(entry.path for entry in step.catalog.put if not entry.store),
        persist=step.catalog.persist,
        parameters=None if step.parameters is None else tuple(step.parameters),
        env=env,
        shell=step.shell or "",
        working_directory=str(PurePosixPath(step.working_directory)),
        timeout_s=None if step.timeout_minutes is None else step.timeout_minutes * 60,
        continue_on_error=step.continue_on_error,
        background=step.background,
        reads=None if step.reads is None else tuple(step.reads),
        ignore_reads=tuple(step.ignore_reads),
        metrics=tuple(step.metrics),
        kernel=step.kernel or "",
        executed=executed,
        container=container,
        reuse=step.reuse or pipeline.reuse,
        max_age_s=age_s(step.max_age) if step.max_age else None,
        env_read=None if step.env_read is None else tuple(dict.fromkeys(step.env_read)),
        checkpoint=tuple(dict.fromkeys(step.checkpoint.path)) if step.checkpoint else (),
        checkpoint_s=step.checkpoint.every_minutes * 60 if step.checkpoint else 300.0,
        runs_on=Runner(tuple(step.runs_on.labels), step.runs_on.group) if step.runs_on else None,
        job=step.job or "",
        executor="" if step.executor in (None, "local") else step.executor,
    )


def _checked(place: Place, table: str, name: str, step: StepConfig) -> tuple[StepKind, str]:
    """Return a step's kind and its command, after all that can be wrong with its own table was checked."""
    if not STEP_NAME.fullmatch(name):
        raise place.error(
            "steps",
            f"{shown(name)} is not a valid step name",
            "letters, digits, `_` and `-`, at most 100; not a digit first",
            key=name,
        )
    kind, command = check_command(place, table, step)
    if has_branches(step) or step.name or step.reduce:
        from runnable_ci.pipeline.branches.resolve_branches import check_keys

        check_keys(place, table, step)
    _check_paths(place, table, step)
    check_relative(
        step.working_directory,
        lambda m: place.error(table, f"working-directory: {m}", RELATIVE, key="working-directory"),
    )
    for key in step.returns:
        check_parameter_name(key, lambda m, hint, key=key: place.error(f"{table}.returns", m, hint, key=key))
    return kind, command


def _check_paths(place: Place, table: str, step: StepConfig) -> None:
    """Raise `PipelineError` for a path of `catalog`, `reads` or `ignore-reads` that cannot be right."""
    put = [entry.path for entry in step.catalog.put]
    for key, paths, check in (("get", step.catalog.get or [], check_input), ("put", put, check_relative)):
        for path in paths:
            check(path, lambda m, key=key: place.error(f"{table}.catalog", f"{key}: {m}", RELATIVE, key=key))
            if is_excluded(path):
                hint = "`.git` and `.runnable` are left out of the catalog: copy the file to another folder first"
                raise place.error(f"{table}.catalog", f"{key}: {shown(path)} is never stored", hint, key=key)
    if step.metrics:
        from runnable_ci.pipeline.keys.metrics import check_metrics  # few steps have any

        check_metrics(place, table, step)
    _check_reads(place, table, step)
    if step.checkpoint:
        from runnable_ci.pipeline.keys.checkpoint import check_paths  # few steps keep any

        check_paths(place, table, step.checkpoint.path)


def _check_reads(place: Place, table: str, step: StepConfig) -> None:
    for key, paths in (("reads", step.reads or []), ("ignore-reads", step.ignore_reads)):
        for path in paths:
            check_relative(path, lambda m, key=key: place.error(table, f"{key}: {m}", RELATIVE, key=key))
    if excluded := next((path for path in step.reads or () if is_excluded(path)), None):
        hint = 'what git says of the code is compared where the step asks it; ignore-reads = [".git"] leaves it out'
        raise place.error(table, f"reads: {shown(excluded)} has no files of yours", hint, key="reads")


def _check_env(place: Place, table: str, env: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise place.error(
                table, f"{shown(name)} cannot be set", "no `=` in the name, no NUL in name or value", key=name
            )
        if name in parameters:
            raise place.error(
                table, f"`{name}` is also a parameter", "rename one: both would set the same variable", key=name
            )
        if name.startswith("RUNNABLE_"):
            raise place.error(
                table, f"`{name}` is reserved", "names that begin with RUNNABLE_ are used by runnable-ci", key=name
            )


def _check_needs(place: Place, steps: Mapping[str, Step]) -> None:
    for step in steps.values():
        for need in step.needs:
            if need == step.name:
                raise place.error(
                    f"steps.{step.name}", "needs: the step needs itself", "remove it from `needs`", key="needs"
                )
            if need not in steps:
                others = [name for name in steps if name != step.name]
                raise place.error(
                    f"steps.{step.name}",
                    f"step `{step.name}` needs {shown(need)}, which is not in the file",
                    did_you_mean(need, others, f"the steps are: {', '.join(steps)}"),
                    key="needs",
                )


def _topological(place: Place, steps: Mapping[str, Step]) -> Iterable[str]:
    """Return step names, each after what it needs, otherwise in the order of the file."""
    sorter = TopologicalSorter({step.name: step.needs for step in steps.values()})
    try:
        sorter.prepare()
    except CycleError as e:
        cycle = " → ".join(reversed(e.args[1]))
        raise place.error("steps", f"circular dependency: {cycle}", "remove one of these needs") from e
    position = {name: i for i, name in enumerate(steps)}
    order: list[str] = []
    ready = sorted(sorter.get_ready(), key=position.__getitem__)
    while ready:
        name = ready.pop(0)
        order.append(name)
        sorter.done(name)
        ready = sorted([*ready, *sorter.get_ready()], key=position.__getitem__)
    return order


def _check_returns(pipeline: Pipeline) -> None:
    """Raise where two steps return the same name and neither comes after the other; else the later wins."""
    givers: dict[str, list[str]] = {}
    for step in pipeline.steps.values():
        # Looked for only where it is asked: the steps above each step of a long chain add up.
        shared = any(name in givers for name in (*step.returns, *step.env))
        before = pipeline.ancestors(step.name) if shared else frozenset[str]()
        for name in step.returns:
            for other in givers.get(name, []):
                if other not in before:
                    raise pipeline.error(
                        step,
                        f"`{name}` is also returned by step `{pipeline.steps[other].shown}`, which may run at the same "
                        "time",
                        "rename one, or let one step need the other",
                        table="returns",
                        key=name,
                    )
            givers.setdefault(name, []).append(step.name)
        for name in step.env:
            if givers_here := before.union([step.name]).intersection(givers.get(name, [])):
                raise pipeline.error(
                    step,
                    f"`{name}` is also returned by step `{pipeline.steps[min(givers_here)].shown}`",
                    "rename one: both would set the same variable",
                    table="env",
                    key=name,
                )
