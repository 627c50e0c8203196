"""The parameters of a run: where they come from, which of them counts, and what may be one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnable_ci.errors import RunnableError, UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.toml_file import ENCODING, names_in, parse_toml, read_problem
from runnable_ci.pipeline.validation import check_parameters
from runnable_ci.pipeline.values import parse_value

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


def assemble_parameters(pipeline: Pipeline, *places: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an invocation; where two places give the same one, the later counts.

    Raises `UsageError` for one that would set the same variable as the `env` of a step.
    """
    parameters = {name: value for place in places for name, value in place.items()}
    for step in pipeline.steps.values():
        if both := parameters.keys() & step.env.keys():
            raise UsageError(
                f"the parameter `{min(both)}` is also set by `env` in {pipeline.file}, step `{step.name}`",
                hint="rename one: both would set the same variable",
            )
    return parameters


def parameter_overrides(
    pipeline: Pipeline, *, params_files: Sequence[Path], environ: Mapping[str, str], options: Sequence[str]
) -> dict[str, Any]:
    """Return what a new run is given beside its file: `--params-file`, the environment, `--param`; the last counts."""
    overrides = read_params_files(params_files)
    overrides |= environment_parameters(environ, {**pipeline.parameters, **overrides})
    return overrides | parse_param_options(options, {**pipeline.parameters, **overrides})


def read_params_files(paths: Iterable[Path]) -> dict[str, Any]:
    """Return what the files of `--params-file` give; where two give the same parameter, the later counts."""
    return {name: value for path in paths for name, value in _of_file(path).values.items()}


def environment_parameters(
    environ: Mapping[str, str], known: Mapping[str, Any], *, only: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return the values of variables `RUNNABLE_PRM_name`, all or `only` these parameters; read as `--param` is."""
    parameters: dict[str, Any] = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PARAMETER_PREFIX)
        if variable.startswith(PARAMETER_PREFIX) and (only is None or name in only):
            value = _typed(text, known.get(name))
            parameters |= ParameterSource(f"{PARAMETER_PREFIX}{name} in the environment", {name: value}).values
    return parameters


def parse_param_options(options: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `--param name=value` as values: JSON where it is JSON, but text for a parameter that is text."""
    parameters: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {option}: expected name=value", hint="such as --param rate=0.5")
        parameters[name] = _typed(text, known.get(name))
    return dict(ParameterSource("--param", parameters).values)


def _typed(text: str, known: Any) -> Any:
    return text if isinstance(known, str) else parse_value(text)


def _of_file(path: Path) -> ParameterSource:
    """Read a parameter file: TOML, with or without a table `[parameters]`, or JSON."""
    hint = "a file of TOML, or of JSON with the suffix .json"
    if path.suffix in (".yaml", ".yml"):
        raise UsageError(f"--params-file {path} is YAML", hint=hint)
    try:
        content = path.read_text(encoding=ENCODING)
    except (OSError, UnicodeDecodeError) as e:
        hint = did_you_mean(path.name, names_in(path.parent), hint)
        raise UsageError(f"--params-file {path} cannot be read: {read_problem(e)}", hint=hint) from e
    if path.suffix == ".json":
        parsed = parse_value(content)
    else:
        table = parse_toml(content, str(path))
        parsed = table.get("parameters", table)
    if not isinstance(parsed, dict):
        raise UsageError(f"--params-file {path} is not a table of parameters", hint=hint)
    return ParameterSource(f"--params-file {path}", parsed)
