"""The pipeline file on disk and the folder around it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from runnable_ci.errors import PipelineError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.resolve import UsedFile, resolve
from runnable_ci.pipeline.schema import Place
from runnable_ci.pipeline.toml_file import ENCODING, names_in, parse_toml, read_problem
from runnable_ci.store.local import Layout
from runnable_ci.store.opening import STORE_NAME, open_store
from runnable_ci.util.shell_command import command, in_folder
from runnable_ci.vcs.git_files import repository_root, upwards

FILE_NAME = "runnable.toml"


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
        """Return the project, whose store may be used. Raises `StoreError`."""
        return replace(self, layout=open_store(self.workspace, environ))

    def identity(self) -> PipelineIdentity:
        """Return what tells the pipeline apart from others."""
        root = repository_root(self.workspace)
        file = self.file.relative_to(root or self.workspace).as_posix()
        return PipelineIdentity(self.pipeline.name, self.pipeline.is_named, file, "repository" if root else "folder")


def load(path: Path | None) -> Project:
    """Return the project of a pipeline file or its folder; by default of the nearest one, as `find_file` has it.

    Raises `PipelineError` for a file that cannot be used.
    """
    file = find_file(path)
    read = _read(file)
    pipeline = resolve(
        read.table,
        file=read.shown,
        default_name=file.parent.name,
        prefix=read.prefix,
        text=read.text,
        read_part=partial(_read_part, file.parent),
    )
    for step in pipeline.outlined().steps.values():
        if "${{" not in step.working_directory and not (file.parent / step.working_directory).is_dir():
            raise pipeline.error(
                step,
                f"working-directory: there is no folder `{step.working_directory}`",
                did_you_mean(step.working_directory, names_in(file.parent), "create it, or use an existing one"),
                key="working-directory",
            )
    return Project(pipeline, file, Layout(file.parent / STORE_NAME))


def _read_part(folder: Path, path: str, place: Place, table: str) -> UsedFile:
    """Return a file whose steps a step uses."""
    file = folder / path
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        hint = did_you_mean(path, _toml_files(folder), "its path is relative to the folder of the file that is run")
        raise place.error(table, f"uses: there is no file `{path}`", hint, key="uses")
    read = _read(file)
    return UsedFile(read.table, Place(read.shown, read.prefix, read.text))


def _toml_files(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if name.endswith(".toml")]


def find_file(path: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the pipeline file that is specified, itself or by its folder; else the nearest one.

    That is the one in the current folder, or in one above it up to the root of the git repository. Without a repository
    nothing tells where a project ends, so that nothing above the current folder counts.
    """
    if path is not None and path.is_file():
        return path.resolve()
    folder = (path or Path()).resolve()
    if path is not None and not folder.is_dir():
        raise PipelineError(f"there is no {path}", hint=_hint_at_file(path, folder.parent, environ))
    if found := _nearest([folder] if path is not None else _within_repository(folder, environ)):
        return found
    above = _nearest(upwards(folder, environ)) if path is None else None
    outside = f"{above} is in a parent folder outside any git repository: cd there, or give its path"
    raise PipelineError(
        f"there is no {FILE_NAME} in {folder}, and no [tool.runnable-ci] in a pyproject.toml there",
        hint=outside if above else f"`{in_folder(folder, 'init')}` writes one",
    )


def _hint_at_file(path: Path, folder: Path, environ: Mapping[str, str]) -> str:
    """Return what may be intended by the path of a pipeline file that does not exist."""
    try:
        found = find_file(None, environ)
        read = _read(found)
    except PipelineError:
        return did_you_mean(path.name, names_in(folder), f"`{in_folder(Path.cwd(), 'init')}` writes one")
    steps = read.table.get("steps")
    if isinstance(steps, dict) and str(path) in steps:
        return f"`{path}` is a step of {read.shown}: `{command('run', str(path))}` runs it"
    here = f"the pipeline here is {read.shown}: `{command('run')}` runs it"
    return did_you_mean(path.name, names_in(folder), here)


def _within_repository(folder: Path, environ: Mapping[str, str]) -> list[Path]:
    root = repository_root(folder, environ)
    return [folder, *(above for above in folder.parents if root and above.is_relative_to(root))]


def _nearest(folders: Iterable[Path]) -> Path | None:
    """Return the first pipeline file in these folders."""
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
        if _is_meant(folder / "pyproject.toml"):
            return folder / "pyproject.toml"
    return None


def store_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder whose store commands use: that of the nearest pipeline file, else the current one."""
    here = Path.cwd()
    found = _nearest(_within_repository(here, environ))
    return found.parent if found else here


def find_store(folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> Layout:
    """Return the store in `folder`, by default in `store_folder()`.

    Raises `StoreError` for one that must not be used.
    """
    if folder is None:
        return open_store(store_folder(environ), environ)
    return open_store((folder.parent if folder.name == STORE_NAME else folder).resolve(), environ)


def registry_of(folder: Path) -> str | None:
    """Return the registry that a pipeline file, or that of a folder, names; the rest of the file need not be right."""
    try:
        file = find_file(folder)
    except PipelineError:
        return None
    named = _read(file).table.get("registry")
    return named if isinstance(named, str) else None


class _ReadFile(NamedTuple):
    """A pipeline file as it was read."""

    text: str
    table: dict[str, Any]
    """The pipeline's own table."""
    prefix: str
    """Where in the file that is."""
    shown: str
    """How messages name the file."""


def _read(file: Path) -> _ReadFile:
    shown = os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
    try:
        text = file.read_text(encoding=ENCODING)
    except (OSError, UnicodeDecodeError) as e:
        hint = "save it as UTF-8" if isinstance(e, UnicodeDecodeError) else "check its permissions"
        raise PipelineError(f"{shown} cannot be read: {read_problem(e)}", hint=hint) from e
    table = parse_toml(text, shown, hint="" if file.suffix == ".toml" else _hint_at_format(file))
    if file.name != "pyproject.toml":
        return _ReadFile(text, table, "", shown)
    tool = table.get("tool")
    ours = tool.get("runnable-ci") if isinstance(tool, dict) else None
    if not isinstance(ours, dict):
        hint = f"`{in_folder(file.parent, 'init')}` writes a runnable.toml"
        raise PipelineError(f"{shown} has no table [tool.runnable-ci]", hint=hint)
    return _ReadFile(text, ours, "tool.runnable-ci", shown)


def _hint_at_format(file: Path) -> str:
    from runnable_ci.pipeline.diagnostics.place import other_format

    return other_format(PurePosixPath(file.name))


def _is_meant(path: Path) -> bool:
    """Return whether a `pyproject.toml` is there and has our table, as far as is known of one that is not TOML."""
    try:
        content = path.read_text(encoding=ENCODING)
    except (OSError, UnicodeDecodeError):
        return False
    try:
        tool = tomllib.loads(content).get("tool")
    except (ValueError, RecursionError):
        return "[tool.runnable-ci" in content
    return isinstance(tool, dict) and "runnable-ci" in tool
