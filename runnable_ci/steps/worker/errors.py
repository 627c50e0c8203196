"""What can be wrong between a step and its function, and hints at the likely intention."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class WorkerError(Exception):
    """A mistake between the step and its function `at`: no line of the user's raised it."""

    def __init__(self, message: str, *, hint: str = "", at: Any = None) -> None:
        super().__init__(message + ("\nhint: " + hint if hint else ""))
        self.message, self.hint, self.at = message, hint, at

    def __init_subclass__(cls) -> None:
        cls.__module__ = "builtins"  # printed by its bare name, as ValueError is


class FunctionNotFoundError(WorkerError):
    """`module:function` points to nothing that can be called."""


class MissingParameterError(WorkerError):
    """Nothing gives a required argument."""


class WrongParameterError(WorkerError):
    """A value that the annotated dataclass cannot be built from."""


class UnreadableObjectError(WorkerError):
    """A pickle that this interpreter cannot load."""


class WrongReturnsError(WorkerError):
    """What the function returned is not what the step declares."""


class NotPicklableError(WorkerError):
    """No pickler of this environment can write the returned object."""


class LeftEarlyError(WorkerError):
    """`sys.exit(0)` before the step was done."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the closest of `known`, empty where nothing is close."""
    from difflib import get_close_matches  # only failures need it

    close = get_close_matches(word, list(known), n=1)
    return "did you mean `%s`?" % close[0] if close else ""


def did_you_mean_module(name: str, path: list[str]) -> str:
    """Return a hint naming the closest module in the folders of `path`."""
    *packages, last = name.split(".")
    known = []
    for folder in [os.path.join(root, *packages) for root in path]:
        if os.path.isdir(folder):
            known += [entry[:-3] if entry.endswith(".py") else entry for entry in os.listdir(folder)]
    return did_you_mean(last, known)


def missing_module_hint(name: str, workspace: str) -> str:
    """Return which interpreter does not have a module, and where it is: a folder of the workspace, or its `.venv`.

    Empty for a module within one that it has. What is found there is only looked at, never imported.
    """
    if "." in name:
        return ""
    for folder in _names_in(workspace):
        if _has_module(os.path.join(workspace, folder), name):
            form = 'env = { PYTHONPATH = "%s" }' % folder
            return "`%s` is in the folder %s: let Python look there, %s in the pipeline file" % (name, folder, form)
    here = "%s does not have `%s`" % (sys.executable, name)
    for folder in (".venv", "venv"):
        home = os.path.join(workspace, folder)
        program = os.path.join(folder, "bin", "python")
        if os.path.exists(os.path.join(workspace, program)) and os.path.realpath(home) != os.path.realpath(sys.prefix):
            form = 'python = "%s" at the top of the pipeline file' % program
            has = any(_has_module(place, name) for place in _packages(home))
            return "%s; %s %s: %s uses it" % (here, folder, "has it" if has else "lies here unused", form)
    return "%s; if a package has it: %s -m pip install %s" % (here, sys.executable, name.replace("_", "-"))


def command_line_hint(modules: Iterable[str]) -> str:
    """Return what to do where a function ended by parsing a command line, by the modules that it was in; else empty."""
    if not any(
        name.partition(".")[0] in ("argparse", "optparse", "click", "typer", "docopt", "fire") for name in modules
    ):
        return ""
    return (
        "it reads a command line, and a python step has none: write a shell step, "
        'such as run = "python FILE.py --option $parameter", or call a function below it'
    )


def _has_module(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name + ".py")) or os.path.isfile(
        os.path.join(folder, name, "__init__.py")
    )


def _packages(environment: str) -> list[str]:
    library = os.path.join(environment, "lib")
    return [os.path.join(library, version, "site-packages") for version in _names_in(library)]


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not there, or not ours to read: a hint has no failure of its own
        return []


def type_name(value: object) -> str:
    """Return the type of a value as Python's messages name it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)
