"""In what the steps of a reproduction run: the project's environment as it is here, or one of the recorded versions."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.analysis.reproduction.recorded_packages import install, run, sorted_packages
from runnable_ci.engine.code.linked_environment import keep_out_of_git, named_interpreter
from runnable_ci.engine.provenance.environment_changes import normalized
from runnable_ci.errors import StepError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.steps.interpreter import PROJECT_INTERPRETER

_VERSION: Final = re.compile(r"\S+ (\d+\.\d+)")


def make_environment(
    recorded: Environment, pipeline: Pipeline, tree: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Make a virtual environment in the tree with the distributions of the recorded versions, by uv or pip.

    The project's own distribution is installed from the tree. Returns those that are not available, as they came from
    no index, with why. Raises `StepError` where the environment cannot be made.
    """
    if not recorded.interpreter_version:
        raise StepError("the run does not say which interpreter it had", hint="use the environment here")
    place = _place(pipeline, tree)
    version = _VERSION.match(recorded.interpreter_version)
    python = f"python{version[1]}" if version else "python3"
    packages = sorted_packages(recorded, _own_names(tree))
    interpreter = str(place / "bin" / "python")
    if uv := shutil.which("uv", path=environ.get("PATH")):
        made = [uv, "venv", "--quiet", "--python", version[1] if version else "3", str(place)]
        installer = [uv, "pip", "install", "--quiet", "--no-deps", "--python", interpreter]
    else:
        found = shutil.which(python, path=environ.get("PATH"))
        if found is None:
            raise StepError(f"there is no {python} here, which the run had", hint="install it, or uv, which brings it")
        made = [found, "-m", "venv", str(place)]
        installer = [interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    run(made, environ)
    return install(packages, installer, tree, environ)


def activated(pipeline: Pipeline, tree: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with which steps find the environment in the tree, which git there ignores."""
    place = _place(pipeline, tree)
    keep_out_of_git(place)
    path = f"{place / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return {**environ, "PATH": path, "VIRTUAL_ENV": str(place)}


def _place(pipeline: Pipeline, tree: Path) -> Path:
    """Return where in the tree the environment belongs. Raises `StepError` where that would be outside of it."""
    place = Path(os.path.normpath(tree / named_interpreter(pipeline))).parent.parent
    if not place.is_relative_to(tree) or place == tree:
        raise StepError(
            f"`python` of the pipeline is not that of an environment in the project: {pipeline.python}",
            hint=f"leave out --environment recorded to use it as it is, or name one such as {PROJECT_INTERPRETER}",
        )
    return place


def has_own_package(tree: Path) -> bool:
    """Return whether the project is installed from its own tree."""
    return bool(_own_names(tree))


def _own_names(tree: Path) -> set[str]:
    with suppress(OSError, ValueError):
        project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        if isinstance(name := project.get("name"), str):
            return {normalized(name)}
    return set()
