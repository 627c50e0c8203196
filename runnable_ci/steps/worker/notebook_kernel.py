"""What a notebook's kernel does beside the cells: it hands out parameters, keeps returns and tells what was read.

It is imported before the first cell by code that is executed silently, and asked once more after the last one.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType

from .arguments import Parameters
from .audit import Audit
from .errors import WorkerError, WrongReturnsError, did_you_mean, missing_module_hint, type_name
from .numeric import numeric_libraries
from .returns import keep_values
from .workspace import WorkspaceFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARAMETERS_MODULE = "runnable_parameters"
"""Where a notebook finds the parameters that are no short texts: the cell of parameters imports them."""


class _Kernel:
    """What `finish` needs of `begin`."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.workspace = WorkspaceFolder(request["workspace"])
        self.audit = Audit(request["workspace"])
        self.modules: dict[str, list[int]] = {}
        self.consumed: list[str] = []


_kernels: list[_Kernel] = []


def begin(request_path: str) -> None:
    """Prepare for the notebook that the request file describes."""
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    os.unlink(request_path)  # parameters may be secrets
    kernel = _Kernel(request)
    if request["pythonpath"]:
        os.environ["PYTHONPATH"] = request["pythonpath"]
    sys.path[:] = _search_path([*request["path"], *filter(None, request["pythonpath"].split(os.pathsep))])
    parameters = Parameters(request["parameters"], kernel.consumed, [])
    module = ModuleType(PARAMETERS_MODULE, "The parameters of this step.")

    def value_of(name: str) -> Any:
        if name in parameters:
            return parameters.take(name)
        raise AttributeError("no parameter `%s`" % name)

    module.__getattr__ = value_of  # type: ignore[method-assign]
    sys.modules[PARAMETERS_MODULE] = module
    _set_log_level(os.environ.get("RUNNABLE_LOG_LEVEL", ""))
    _kernels[:] = [kernel]
    kernel.audit.begin()


def _search_path(folders: list[str]) -> list[str]:
    """Return where modules are looked for: first in the working directory and these folders.

    Each is there once: a second look at one would count as a look at its files.
    """
    found: dict[str, str] = {}
    for folder in [os.getcwd(), *map(os.path.abspath, folders), *filter(None, sys.path)]:
        found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def finish(path: str, is_failed: bool) -> None:
    """Write what became of the notebook, as far as its kernel knows: returns, and what it read."""
    [kernel] = _kernels
    request = kernel.request
    answer: dict[str, Any] = {"returns": {}, "error": None}
    try:
        if is_failed:
            error = getattr(sys, "last_value", None)
            answer["file"], answer["line"] = _place(error, kernel.workspace)
            answer.update(cell_line=_line_in_cell(error), hint=_hint(error, request))
        else:
            answer["returns"] = _returns(request)
    except Exception as error:
        hint = error.hint if isinstance(error, WorkerError) else ""
        message = error.message if isinstance(error, WorkerError) else str(error)
        answer["error"] = {"type": type_name(error), "message": message, "hint": hint}
    kernel.workspace.note(kernel.modules)
    report = kernel.audit.report(kernel.workspace)
    report["libraries"] = {name: file for name, file in report["libraries"].items() if _is_installed(name, file)}
    report["numeric"] = numeric_libraries()
    answer.update(modules=kernel.modules, report=report)
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.replace(path + ".part", path)


def _returns(request: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that the step returns, as it keeps them."""
    what = "notebook `%s`" % request["name"]
    values = vars(sys.modules["__main__"])
    for name, _ in request["returns"]:
        if name not in values:
            known = [known for known in values if not known.startswith("_")]
            raise WrongReturnsError("%s did not set `%s`" % (what, name), hint=did_you_mean(name, known))
    returned = [(name, kind, values[name]) for name, kind in request["returns"]]
    main = sys.modules["__main__"]
    # Where a class of the notebook's own is not found, pickle fails and cloudpickle writes the class itself.
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        return keep_values(returned, request["scratch"], None, what)
    finally:
        sys.modules["__main__"] = main


def _is_installed(name: str, file: str) -> bool:
    """Return whether a module is an installed package itself, not one that another brings along, as debugpy does."""
    return file.rpartition("-packages/")[2].startswith(name)


def _place(error: Any, workspace: WorkspaceFolder) -> tuple[str | None, int | None]:
    """Return file and line in the workspace where an error was raised, None where that was in a cell."""
    found: tuple[str | None, int | None] = None, None
    trace = getattr(error, "__traceback__", None)
    while trace is not None:
        inner = workspace.relative(trace.tb_frame.f_code.co_filename)
        if inner is not None:
            found = inner, trace.tb_lineno
        trace = trace.tb_next
    return found


def _hint(error: Any, request: dict[str, Any]) -> str:
    """Return what may help against an error; empty where nothing is known."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing_module_hint(error.name, request["workspace"])
    named = getattr(error, "filename", None) if isinstance(error, FileNotFoundError) else None
    if not isinstance(named, str) or os.path.isabs(named):
        return ""
    folder = os.path.join(request["workspace"], os.path.dirname(request["name"]))
    if not os.path.exists(os.path.join(folder, named)):
        return ""
    form = 'working-directory = "%s"' % os.path.dirname(request["name"])
    return "it is there from the folder of the notebook, in which Jupyter runs it: %s" % form


def _line_in_cell(error: Any) -> int:
    """Return the line of the cell that raised an error, 0 where that is not known."""
    trace = getattr(error, "__traceback__", None)
    while trace is not None:
        if trace.tb_frame.f_globals is vars(sys.modules["__main__"]):
            return int(trace.tb_lineno)
        trace = trace.tb_next
    return int(getattr(error, "lineno", 0) or 0) if isinstance(error, SyntaxError) else 0


def _set_log_level(level: str) -> None:
    if not level:
        return
    import logging

    number = getattr(logging, level.upper(), None)
    if isinstance(number, int):
        logging.getLogger().setLevel(number)
