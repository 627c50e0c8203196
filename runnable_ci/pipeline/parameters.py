"""The parameters of a run: where they come from, which of them counts, and what may be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from runnable_ci.errors import RunnableError, UsageError, did_you_mean
from runnable_ci.pipeline.inputs import require_inputs
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.validation import check_parameters
from runnable_ci.pipeline.values.value_reader import Declared

PARAMETER_PREFIX = "RUNNABLE_PRM_"


@dataclass(frozen=True, slots=True)
class ParameterSource:
    """Parameters that come from one place, checked: this is the one gate for all that the pipeline file does not give.

    Raises `error` for a name that no parameter may have, and for a value that is not JSON; `where` names the place.
    """

    where: str
    values: Mapping[str, Any]
    error: type[RunnableError] = UsageError

    def __post_init__(self) -> None:
        check_parameters(self.values, lambda message, hint: self.error(f"{self.where}: {message}", hint=hint))


class KnownParameters(NamedTuple):
    """What is known of parameters when a place gives some: their types, and the values that they have until then.

    A type comes from the first place that has one: the pipeline file before all others.
    """

    values: Mapping[str, Any]
    declared: Mapping[str, Declared]

    @classmethod
    def of(cls, pipeline: Pipeline | None) -> KnownParameters:
        """Return what a pipeline file says."""
        return cls({}, {}) if pipeline is None else cls(pipeline.parameters, pipeline.declared())

    def after(self, values: Mapping[str, Any], where: str) -> KnownParameters:
        """Return what is known after a place has given parameters."""
        declared = {name: Declared.by_value(value, where) for name, value in values.items()}
        return KnownParameters({**self.values, **values}, {**declared, **self.declared})

    def type_of(self, path: Sequence[str]) -> Declared:
        """Return what is declared of a parameter, or of a key in it."""
        found = self.declared.get(path[0], Declared())
        for key in path[1:]:
            found = found.keys.get(key, Declared())
        return found


def assemble_parameters(pipeline: Pipeline, *places: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an invocation; where two places give the same one, the later counts.

    Raises `UsageError` for one that would set the same variable as the `env` of a step, and for a required input that
    has no value.
    """
    parameters = {name: value for place in places for name, value in place.items()}
    for step in pipeline.outlined().steps.values():
        if both := parameters.keys() & step.env.keys():
            raise UsageError(
                f"the parameter `{min(both)}` is also set by `env` in {pipeline.file}, step `{step.shown}`",
                hint="rename one: both would set the same variable",
            )
    require_inputs(pipeline.inputs, parameters, pipeline.file)
    return parameters


def parameter_overrides(
    pipeline: Pipeline, *, params_files: Sequence[Path], environ: Mapping[str, str], options: Sequence[str]
) -> dict[str, Any]:
    """Return what a new run is given beside its file: `--params-file`, the environment, `--param`; the last counts."""
    known = KnownParameters.of(pipeline)
    in_files = read_params_files(params_files, known)
    known = known.after(in_files, "--params-file")
    in_environment = environment_parameters(environ, known)
    known = known.after(in_environment, "the environment")
    return in_files | in_environment | parse_param_options(options, known)


def read_params_files(paths: Iterable[Path], known: KnownParameters) -> dict[str, Any]:
    """Return what the files of `--params-file` give; where two give the same one, the later counts.

    Of a table that is the keys that it gives: it has its others from the files before it and from `known`.
    """
    parameters: dict[str, Any] = {}
    for path in paths:
        from runnable_ci.pipeline.values.params_file import read_params_file

        where = f"--params-file {path}"
        for name, value in ParameterSource(where, read_params_file(path)).values.items():
            with _located(where):
                read = known.type_of([name]).accept(value, name)
            parameters[name] = _merged(parameters.get(name, known.values.get(name)), read)
    return parameters


def environment_parameters(
    environ: Mapping[str, str], known: KnownParameters, *, only: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return the values of variables `RUNNABLE_PRM_name`, all or `only` these parameters; read as `--param` is."""
    parameters: dict[str, Any] = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PARAMETER_PREFIX)
        if variable.startswith(PARAMETER_PREFIX) and (only is None or name.partition(".")[0] in only):
            with _located(where := f"{variable} in the environment"):
                given = _given(name, text, known, parameters)
            parameters |= ParameterSource(where, given).values
    return parameters


def parse_param_options(options: Sequence[str], known: KnownParameters) -> dict[str, Any]:
    """Return `--param name=value` as values of the types that are known.

    `name.key=value` changes one key of a table.
    """
    parameters: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {option}: expected name=value", hint="such as --param rate=0.5")
        with _located("--param"):
            parameters |= _given(name, text, known, parameters)
    return dict(ParameterSource("--param", parameters).values)


def typed_names(options: Sequence[str]) -> list[str]:
    """Return the parameters that `--param` names."""
    return [option.partition("=")[0].partition(".")[0] for option in options]


def _given(name: str, text: str, known: KnownParameters, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameter that text is given for: whole, or with one key of its table changed (`name.key`)."""
    path = name.split(".")
    if "" in path:
        raise UsageError(f"`{name}` has a key without a name", hint="write it as --param table.key=value")
    value = known.type_of(path).read(text, name)
    if len(path) == 1:
        return {name: value}
    return {path[0]: _with_key({**known.values, **before}, path, value, "")[path[0]]}


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Add the place to an error about a value in it."""
    try:
        yield
    except UsageError as e:
        e.message = f"{where}: {e.message}"
        raise


def _merged(before: Any, given: Any) -> Any:
    """Return a value over the one before it, key by key where both are tables."""
    if not isinstance(before, dict) or not isinstance(given, dict):
        return given
    return {**before, **{key: _merged(before.get(key), item) for key, item in given.items()}}


def _with_key(table: Any, path: Sequence[str], value: Any, above: str) -> dict[str, Any]:
    """Return a copy of a table with one value at a path in it; `UsageError` where no table is on the way there."""
    key, *rest = path
    if not isinstance(table, dict):
        raise UsageError(f"`{above}` is not a table: it has no key `{key}`", hint=f"set it whole: --param {above}=…")
    if suggestion := "" if key in table else did_you_mean(key, table):
        where = f"key `{key}` in `{above}`" if above else f"parameter `{key}`"
        raise UsageError(f"there is no {where}", hint=suggestion)
    name = f"{above}.{key}" if above else key
    if not rest:
        return {**table, key: value}
    if key not in table:
        raise UsageError(f"there is no table `{name}`", hint="set it whole, as JSON: --param 'NAME={…}'")
    return {**table, key: _with_key(table[key], rest, value, name)}
