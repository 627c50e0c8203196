"""How the pipeline file names a function that a program has as an object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runnable_ci.errors import PipelineError


def function_name(function: Callable[..., Any], folder: Path) -> str:
    """Return `module:function`, by which the function is found from a pipeline file in this folder.

    Raises `PipelineError` for one that no other process could find: nested, without a name, bound to an object.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found = getattr(sys.modules.get(module or ""), name or "", None)
    if not module or not name or found is not function:
        raise PipelineError(
            f"{_shown(function)} cannot be called by its name from another process",
            hint="define it by `def` at the top level of a module; `with_={…}` gives it arguments",
        )
    return f"{_main_module(folder) if module == '__main__' else module}:{name}"


def named(value: Any, folder: Path) -> Any:
    """Return a value with each function in it, however deep, replaced by its name."""
    match value:
        case Mapping():
            return {key: named(it, folder) for key, it in value.items()}
        case list() | tuple():
            return [named(it, folder) for it in value]
        case _ if callable(value):
            return function_name(value, folder)
        case _:
            return value


def _main_module(folder: Path) -> str:
    """Return the name by which the running program can be imported as a module."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        raise PipelineError(
            "functions that are typed into a session cannot be steps", hint="move them into a module, and import that"
        )
    path = Path(file).resolve()
    if not path.is_relative_to(folder) or path.suffix != ".py":
        raise PipelineError(
            f"the functions of {path} are not found from {folder}",
            hint="write the pipeline file beside the program, or move the functions into a module",
        )
    return ".".join(path.relative_to(folder).with_suffix("").parts)


def _shown(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or f"a {type(function).__name__}"
