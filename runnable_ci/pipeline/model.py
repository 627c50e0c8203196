"""The pipeline: the resolved steps that the rest of the house works with, checked against each other.

Pure: text is parsed elsewhere (`project.py`), this module gets the parsed TOML table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from runnable_ci.config import LogLevel, Untracked
from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.inputs import Input, resolve_inputs
from runnable_ci.pipeline.overlaps import find_overlap
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.schema import (
    RELATIVE,
    STEP_NAME,
    Kind,
    PipelineConfig,
    Place,
    StepConfig,
    check_command,
    check_paths,
)
from runnable_ci.pipeline.validation import check_parameter_name, check_parameters, check_relative, shown
from runnable_ci.pipeline.values.value_reader import Declared
from runnable_ci.redaction.environment import names_a_secret, spelled

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
REPOSITORY = re.compile(
    r"((https|oci|docker)://)?([a-z0-9][a-z0-9.-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+/*",
    re.IGNORECASE,
)
"""As `store.reference` reads them, which takes too long to load."""


class Step(NamedTuple):
    """A step, resolved: defaults filled in, checked against the others."""

    name: str
    kind: Literal["run", "python"]
    command: str
    """The shell script, or `module:function`."""
    needs: tuple[str, ...]
    returns: Mapping[str, Kind]
    get: tuple[str, ...] | None
    """None: not declared, the step may read any file that came before it."""
    put: tuple[str, ...]
    persist: bool
    """Whether the step finds what it made before."""
    parameters: tuple[str, ...] | None
    env: Mapping[str, str]
    shell: str
    """Empty for the default: bash, and where there is none the system's own."""
    working_directory: str
    timeout_s: float | None
    continue_on_error: bool
    background: bool = False
    """Whether what the step leaves running may stay."""
    reads: tuple[str, ...] | None = None
    """Globs of all that counts as read, beside `get`; None: what the step was seen to read."""
    ignore_reads: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Files with numbers that are metrics; `put` has them too."""
    unstored: tuple[str, ...] = ()
    """Those of `put` whose files are not copied into the store: their hash is recorded."""

    def unstored_among(self, names: Iterable[str]) -> set[str]:
        """Return which of these files are not copied into the store."""
        return {name for name in names if any(may_name(pattern, name) for pattern in self.unstored)}

    def counts(self, path: str) -> bool:
        """Return whether a path that the step read is an input: by its `reads` and `ignore-reads`."""
        is_named = self.reads is None or any(may_name(pattern, path) for pattern in self.reads)
        return is_named and not any(may_name(pattern, path) for pattern in self.ignore_reads)

    def definition(self) -> dict[str, Any]:
        """Return what makes this step's result, as plain JSON in the words of the file.

        Time-outs and the like do not, nor does what counts as read: it says how results are compared.
        """
        definition: dict[str, Any] = {self.kind: self.command, "needs": sorted(self.needs)}
        optional = {
            "returns": {name: self._defined_kind(kind) for name, kind in self.returns.items()},
            "get": None if self.get is None else list(self.get),
            "put": list(self.put),
            "persist": self.persist,
            "metrics": list(self.metrics),
            "parameters": None if self.parameters is None else list(self.parameters),
            "env": dict(sorted(self.env.items())),
            "shell": self.shell if self.kind == "run" and self.shell != "bash" else "",
            "working-directory": "" if self.working_directory == "." else self.working_directory,
        }
        return definition | {key: v for key, v in optional.items() if v or (key in ("get", "parameters") and v == [])}

    def _defined_kind(self, kind: Kind) -> str:
        """Return a kind as definitions have it: those of versions that had one kind of JSON are still the same."""
        return "strict json" if kind == "json" and self.kind == "run" else "json" if kind == "auto" else kind


class Pipeline(NamedTuple):
    """A checked pipeline; `steps` are in an order in which each comes after what it needs."""

    name: str
    file: str
    """How messages name the pipeline file."""
    python: str | None
    parameters: Mapping[str, Any]
    steps: Mapping[str, Step]
    registry: str | None = None
    secrets: tuple[str, ...] = ()
    """Names of environment variables."""
    untracked: Untracked | None = None
    log_level: LogLevel | None = None
    is_named: bool = True
    """Whether the file gives the name."""
    place: Place = Place("")
    """The pipeline file, for errors that are found later."""
    inputs: Mapping[str, Input] = MappingProxyType({})
    """Parameters of which the file says more than a value; `parameters` has those with a default too."""

    def declared(self) -> dict[str, Declared]:
        """Return what the file says of the types of parameters."""
        by_value = {name: Declared.by_value(value, self.file) for name, value in self.parameters.items()}
        declared = by_value | {name: one.declared for name, one in self.inputs.items()}
        secrets = {name.upper() for name in self.secrets}
        return {n: one.hidden() if n.upper() in secrets or names_a_secret(n) else one for n, one in declared.items()}

    def dag_hash(self) -> str:
        """Return sha1 of all definitions, as the reference system's run log has it.

        The order of returns is part of them.
        """
        definitions = {name: self.steps[name].definition() for name in sorted(self.steps)}
        return hashlib.sha1(json.dumps(definitions).encode(), usedforsecurity=False).hexdigest()

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all steps that must be over before this one starts."""
        found: set[str] = set()
        waiting = list(self.steps[name].needs)
        while waiting:
            step = waiting.pop()
            if step not in found:
                found.add(step)
                waiting.extend(self.steps[step].needs)
        return frozenset(found)

    def below(self, name: str) -> frozenset[str]:
        """Return the step and all that need it, directly or not."""
        found = {name}
        for step in self.steps.values():
            if found.intersection(step.needs):
                found.add(step.name)
        return frozenset(found)


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
    env = pipeline.env | step.env
    _check_env(place, f"{table}.env", step.env, pipeline.parameters)
    return Step(
        name=name,
        kind=kind,
        command=command,
        needs=above if step.needs is None else tuple(dict.fromkeys(step.needs)),
        returns=step.returns,
        get=None if step.catalog.get is None else tuple(step.catalog.get),
        put=tuple(dict.fromkeys([*put, *step.metrics])),
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
    found = find_overlap({name: steps[name].needs for name in steps}, {name: steps[name].put for name in steps})
    if found:
        raise place.error(
            f"steps.{found.other_step}.catalog",
            f"put: `{found.other_pattern}` can match the same file as `{found.pattern}` of step `{found.step}`, which "
            "may run at the same time",
            f"write to folders of their own, or let `{found.other_step}` need `{found.step}`",
            key="put",
        )
