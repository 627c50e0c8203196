"""The pipeline file on disk and the folder around it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runnable_ci.errors import PipelineError, UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline, resolve
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.validation import check_parameters
from runnable_ci.pipeline.values import parse_value
from runnable_ci.store.local import Layout
from runnable_ci.store.opening import STORE_NAME, open_store
from runnable_ci.util.shell_command import in_folder
from runnable_ci.vcs.git_files import repository_root, upwards

FILE_NAME = "runnable.toml"
PARAMETER_PREFIX = "RUNNABLE_PRM_"
_ENCODING = "utf-8-sig"  # some editors begin a file with a mark


@dataclass(frozen=True, slots=True)
class Project:
    """A checked pipeline, its folder, and the store in it."""

    pipeline: Pipeline
    file: Path
    """The pipeline file."""
    layout: Layout
    """The store beside it."""

    @property
    def workspace(self) -> Path:
        """The folder of the pipeline file: the steps' own."""
        return self.file.parent

    def opened(self, environ: Mapping[str, str]) -> Project:
        """The project, whose store may be used. Raises `StoreError`."""
        return replace(self, layout=open_store(self.workspace, environ))

    def identity(self) -> PipelineIdentity:
        """What tells the pipeline apart from others."""
        root = repository_root(self.workspace)
        file = self.file.relative_to(root or self.workspace).as_posix()
        return PipelineIdentity(self.pipeline.name, self.pipeline.is_named, file, "repository" if root else "folder")


def load(given: Path | None) -> Project:
    """The project of a pipeline file or its folder; by default of the nearest one, as `find_file` has it.

    Raises `PipelineError` for a file that cannot be used.
    """
    file = find_file(given)
    table, prefix = _read(file)
    shown = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
    pipeline = resolve(table, file=shown, default_name=file.parent.name, prefix=prefix)
    for step in pipeline.steps.values():
        if not (file.parent / step.working_directory).is_dir():
            raise PipelineError(
                f"{shown}: [steps.{step.name}] working-directory: there is no folder `{step.working_directory}`",
                hint=did_you_mean(step.working_directory, _names(file.parent), "make it, or name one that is there"),
            )
    return Project(pipeline, file, Layout(file.parent / STORE_NAME))


def find_file(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The pipeline file that is given, itself or by its folder; else the nearest one.

    That is the one in the current folder, or in one above it up to the root of the git repository. Without a repository
    nothing tells where a project ends, so that nothing above the current folder counts.
    """
    if given is not None and given.is_file():
        return given.resolve()
    folder = (given or Path()).resolve()
    if given is not None and not folder.is_dir():
        raise PipelineError(f"there is no {given}", hint=did_you_mean(given.name, _names(folder.parent)))
    if found := _nearest([folder] if given is not None else _within_repository(folder, environ)):
        return found
    above = _nearest(upwards(folder, environ)) if given is None else None
    outside = f"{above} is further up, and no git repository holds both: cd there, or name it"
    raise PipelineError(
        f"there is no {FILE_NAME} in {folder}, and no [tool.runnable-ci] in a pyproject.toml there",
        hint=outside if above else f"`{in_folder(folder, 'init')}` writes one",
    )


def _within_repository(folder: Path, environ: Mapping[str, str]) -> list[Path]:
    root = repository_root(folder, environ)
    return [folder, *(above for above in folder.parents if root and above.is_relative_to(root))]


def _nearest(folders: Iterable[Path]) -> Path | None:
    """The first pipeline file in these folders."""
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
        if _is_meant(folder / "pyproject.toml"):
            return folder / "pyproject.toml"
    return None


def store_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder whose store commands use: that of the nearest pipeline file, else the current one."""
    here = Path.cwd()
    found = _nearest(_within_repository(here, environ))
    return found.parent if found else here


def find_store(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Layout:
    """The store in `given`, by default in `store_folder()`. Raises `StoreError` for one that must not be used."""
    if given is None:
        return open_store(store_folder(environ), environ)
    return open_store((given.parent if given.name == STORE_NAME else given).resolve(), environ)


def registry_of(folder: Path) -> str | None:
    """The registry that a pipeline file, or that of a folder, names; the rest of the file need not be right."""
    try:
        file = find_file(folder)
    except PipelineError:
        return None
    named = _read(file)[0].get("registry")
    return named if isinstance(named, str) else None


def override_parameters(
    pipeline: Pipeline, *, params_file: Path | None, environ: Mapping[str, str], given: list[str]
) -> dict[str, Any]:
    """What a new run is given beside the file: `--params-file`, the environment, `--param`; the last counts."""
    asked = {} if params_file is None else _read_parameters(params_file)
    variables = environment_parameters(environ, {**pipeline.parameters, **asked})
    for name, value in variables.items():
        where = f"{PARAMETER_PREFIX}{name} in the environment"
        check_parameters({name: value}, lambda _table, m, hint, where=where: UsageError(f"{where}: {m}", hint=hint))
    asked |= variables
    return asked | parse_param_options(given, {**pipeline.parameters, **asked})


def resolve_parameters(pipeline: Pipeline, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a new run: the file's, and before them those that are asked for."""
    found = {**pipeline.parameters, **asked}
    check_parameters(found, lambda _table, message, hint: UsageError(f"parameters: {message}", hint=hint))
    for step in pipeline.steps.values():
        if both := found.keys() & step.env.keys():
            raise UsageError(
                f"the parameter `{min(both)}` is also set by `env` in {pipeline.file}, step `{step.name}`",
                hint="rename one: both would set the same variable",
            )
    return found


def environment_parameters(environ: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values of variables `RUNNABLE_PRM_name`: JSON where it is JSON, but text for a parameter that is text."""
    return {
        (name := variable.removeprefix(PARAMETER_PREFIX)): _typed(text, known.get(name))
        for variable, text in environ.items()
        if variable.startswith(PARAMETER_PREFIX)
    }


def parse_param_options(given: list[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """`--param name=value` as values: JSON where it is JSON, but text for a parameter that is text."""
    found: dict[str, Any] = {}
    for word in given:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {word}: expected name=value", hint="such as --param rate=0.5")
        found[name] = _typed(text, known.get(name))
    check_parameters(found, lambda _table, message, hint: UsageError(f"--param: {message}", hint=hint))
    return found


def _typed(text: str, known: Any) -> Any:
    return text if isinstance(known, str) else parse_value(text)


def _read_parameters(path: Path) -> dict[str, Any]:
    hint = "a file of TOML, or of JSON with the suffix .json"
    if path.suffix in (".yaml", ".yml"):
        raise UsageError(f"--params-file {path} is YAML", hint=hint)
    try:
        content = path.read_text(encoding=_ENCODING)
    except (OSError, UnicodeDecodeError) as e:
        hint = did_you_mean(path.name, _names(path.parent), hint)
        raise UsageError(f"--params-file {path} cannot be read: {_reason(e)}", hint=hint) from e
    if path.suffix == ".json":
        parsed = parse_value(content)
    else:
        table = _parse_toml(content, str(path))
        parsed = table.get("parameters", table)
    if not isinstance(parsed, dict):
        raise UsageError(f"--params-file {path} is not a table of parameters", hint=hint)
    return parsed


def _read(file: Path) -> tuple[dict[str, Any], str]:
    try:
        content = file.read_text(encoding=_ENCODING)
    except (OSError, UnicodeDecodeError) as e:
        hint = "save it as UTF-8" if isinstance(e, UnicodeDecodeError) else "check who may read it"
        raise PipelineError(f"{file} cannot be read: {_reason(e)}", hint=hint) from e
    table = _parse_toml(content, str(file))
    if file.name != "pyproject.toml":
        return table, ""
    tool = table.get("tool")
    ours = tool.get("runnable-ci") if isinstance(tool, dict) else None
    if not isinstance(ours, dict):
        hint = f"`{in_folder(file.parent, 'init')}` writes a runnable.toml"
        raise PipelineError(f"{file} has no table [tool.runnable-ci]", hint=hint)
    return ours, "tool.runnable-ci"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    return (error.strerror or str(error)).lower()


def _parse_toml(content: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except (ValueError, RecursionError) as e:  # also for numbers of thousands of digits, and lists as deep
        raise PipelineError(f"{shown} is not TOML: {e}", hint="https://toml.io has the rules") from e


def _is_meant(path: Path) -> bool:
    """Whether a `pyproject.toml` is there and has our table, as far as can be told of one that is not TOML."""
    try:
        content = path.read_text(encoding=_ENCODING)
    except (OSError, UnicodeDecodeError):
        return False
    try:
        tool = tomllib.loads(content).get("tool")
    except (ValueError, RecursionError):
        return "[tool.runnable-ci" in content
    return isinstance(tool, dict) and "runnable-ci" in tool


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
