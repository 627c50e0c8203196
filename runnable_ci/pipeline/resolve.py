"""A pipeline of the parsed TOML table that describes it: defaults filled in, steps checked against each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.inputs import resolve_inputs
from runnable_ci.pipeline.model import Pipeline, Step
from runnable_ci.pipeline.schema import (
    RELATIVE,
    STEP_NAME,
    PipelineConfig,
    Place,
    StepConfig,
    check_command,
    check_paths,
)
from runnable_ci.pipeline.validation import check_parameter_name, check_parameters, check_relative, shown
from runnable_ci.redaction.environment import spelled

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REPOSITORY = re.compile(
    r"((https|oci|docker)://)?([a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+/*",
    re.IGNORECASE,
)
"""As `store.reference` reads them, which takes too long to load."""


def resolve(table: Mapping[str, Any], *, file: str, default_name: str, prefix: str = "", text: str = "") -> Pipeline:
    """Return the pipeline that a parsed TOML table describes.

    `file` names the file in messages, `prefix` is the table's own place in it (`tool.runnable-ci`), `text` is all of
    it: errors show its lines. Raises `PipelineError` for the first mistake found.
    """
    place = Place(file, prefix, text)
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
    if parsed.registry is not None and not REPOSITORY.fullmatch(parsed.registry):
        hint = 'write it as "ghcr.io/owner/repo/runs": a host and a name, without a tag'
        raise place.error("", f"registry: {shown(parsed.registry)} is not a repository", hint, key="registry")
    if wrong := [name for name in parsed.secrets if not _VARIABLE.fullmatch(name)]:  # it may be the secret: not shown
        names = ", ".join(f'"{name}"' for name in spelled(wrong[0]) or ["API_KEY", "DB_PASSWORD"])
        hint = f"write only names, each as a separate string, without `$`, braces or `secrets.`: secrets = [{names}]"
        raise place.error("", "secrets: an entry is not the name of an environment variable", hint, key="secrets")
    steps: dict[str, Step] = {}
    above: tuple[str, ...] = ()
    for name, step in parsed.steps.items():
        steps[name] = _resolve_step(place, parsed, name, step, above)
        above = (name,)
    _check_needs(place, steps)
    pipeline = Pipeline(
        name=parsed.name or default_name,
        file=file,
        python=parsed.python,
        parameters=parsed.parameters,
        steps={name: steps[name] for name in _topological(place, steps)},
        registry=parsed.registry,
        secrets=tuple(parsed.secrets),
        untracked=parsed.untracked,
        log_level=parsed.log_level,
        is_named=bool(parsed.name),
        inputs=inputs,
        place=place,
    )
    _check_returns(place, pipeline)
    _check_puts(place, pipeline)
    return pipeline


def _resolve_step(place: Place, pipeline: PipelineConfig, name: str, step: StepConfig, above: tuple[str, ...]) -> Step:
    table = f"steps.{name}"
    if not STEP_NAME.fullmatch(name):
        raise place.error(
            "steps",
            f"{shown(name)} is not a valid step name",
            "letters, digits, `_` and `-`, at most 100; not a digit first",
            key=name,
        )
    kind, command = check_command(place, table, step)
    check_paths(place, table, step)
    check_relative(
        step.working_directory,
        lambda m: place.error(table, f"working-directory: {m}", RELATIVE, key="working-directory"),
    )
    put = [entry.path for entry in step.catalog.put]
    for key in step.returns:
        check_parameter_name(key, lambda m, hint, key=key: place.error(f"{table}.returns", m, hint, key=key))
    executed = ""
    if kind == "notebook":
        from runnable_ci.pipeline.notebook_keys import check_notebook, executed_path  # few pipelines have one

        check_notebook(place, table, step)
        executed = executed_path(name, command, step.executed)
        command = str(PurePosixPath(command))
    env = pipeline.env | step.env
    _check_env(place, f"{table}.env", step.env, pipeline.parameters)
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
    )


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


def _check_returns(place: Place, pipeline: Pipeline) -> None:
    """Raise where two steps return the same name and neither comes after the other; else the later wins."""
    givers: dict[str, list[str]] = {}
    for step in pipeline.steps.values():
        # Looked for only where it is asked: the steps above each step of a long chain add up.
        shared = any(name in givers for name in (*step.returns, *step.env))
        before = pipeline.ancestors(step.name) if shared else frozenset[str]()
        table = f"steps.{step.name}"
        for name in step.returns:
            for other in givers.get(name, []):
                if other not in before:
                    raise place.error(
                        f"{table}.returns",
                        f"`{name}` is also returned by step `{other}`, which may run at the same time",
                        "rename one, or let one step need the other",
                        key=name,
                    )
            givers.setdefault(name, []).append(step.name)
        for name in step.env:
            if givers_here := before.union([step.name]).intersection(givers.get(name, [])):
                raise place.error(
                    f"{table}.env",
                    f"`{name}` is also returned by step `{min(givers_here)}`",
                    "rename one: both would set the same variable",
                    key=name,
                )


def _check_puts(place: Place, pipeline: Pipeline) -> None:
    """Raise where two steps put the same file and neither comes after the other: the result would be random."""
    steps = pipeline.steps
    if sum(1 for step in steps.values() if step.put) < 2:
        return
    from runnable_ci.pipeline.overlaps import find_overlap  # few pipelines need it

    found = find_overlap({name: steps[name].needs for name in steps}, {name: steps[name].put for name in steps})
    if found:
        raise place.error(
            f"steps.{found.other_step}.catalog",
            f"put: `{found.other_pattern}` can match the same file as `{found.pattern}` of step `{found.step}`, which "
            "may run at the same time",
            f"write to folders of their own, or let `{found.other_step}` need `{found.step}`",
            key="put",
        )
