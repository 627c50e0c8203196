"""One python step: import the user's function, fill its arguments, call it, keep its returns."""

from __future__ import annotations

import json
import os
import sys

from .arguments import Parameters, fill
from .audit import Audit
from .errors import (
    FunctionNotFoundError,
    LeftEarlyError,
    WrongParameterError,
    WrongReturnsError,
    did_you_mean,
    did_you_mean_module,
    missing_module_hint,
    type_name,
)
from .failures import record, user_frames
from .numeric import numeric_libraries
from .returns import keep
from .workspace import WorkspaceFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ABSENT = object()


def main(request_path: str, response_path: str) -> int:
    """Return the exit code of the step that the request file describes; what became of it is in the response file."""
    response_path = os.path.abspath(response_path)
    process = os.getpid()
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    os.unlink(request_path)  # parameters may be secrets, and nobody tidies up after a process that is killed
    sys.argv[:] = [request["function"]]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a person is watching
    sys.path[:0] = request["path"]
    workspace = WorkspaceFolder(request["workspace"])
    response: dict[str, Any] = {
        "status": "ok",
        "exit_code": 0,
        "consumed": [],
        "defaulted": [],
        "returns": {},
        "modules": {},
        "error": None,
    }
    _open_canary(os.environ.get("RUNNABLE_CANARY", ""))
    _set_log_level(os.environ.get("RUNNABLE_LOG_LEVEL", ""))
    audit = Audit(request["workspace"])
    audit.begin()
    interrupt = None
    try:
        _run(request, response, workspace)
    except BaseException as error:
        record(error, response, workspace)
        interrupt = error if isinstance(error, KeyboardInterrupt) else None
    workspace.note(response["modules"])
    response["report"] = audit.report(workspace)
    response["report"]["numeric"] = numeric_libraries()
    if os.getpid() == process:  # not a child that the function forked and that came back from it
        _flush(sys.stdout)  # should the interpreter crash while it ends
        _flush(sys.stderr)
        _have_folder(os.path.dirname(response_path))
        temporary = response_path + ".part"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(response, file)
        os.replace(temporary, response_path)
    if interrupt is not None:
        sys.excepthook = lambda *_: None  # it is printed already
        raise interrupt  # Python then ends itself by the signal, as the shell expects
    exit_code: int = response["exit_code"]
    return exit_code


def _run(request: dict[str, Any], response: dict[str, Any], workspace: WorkspaceFolder) -> None:
    name, returns = request["function"], request["returns"]
    function = _function(name, request["path"])
    workspace.note(response["modules"])
    parameters = Parameters(request["parameters"], response["consumed"], response["defaulted"])
    try:
        args, kwargs = fill(function, parameters, what="function `%s`" % name)
    except WrongParameterError as error:
        error.at = function  # whose annotation the value does not fit
        raise
    try:
        result = function(*args, **kwargs)
        if type(result).__module__ == "builtins" and type(result).__name__ in _NO_VALUES:
            result = _value(result, name)
    except SystemExit as left:
        if left.code not in (None, 0):
            raise
        if not returns:
            return
        names = ", ".join(name for name, _ in returns)
        problem = LeftEarlyError("function `%s` called sys.exit(0) before it returned %s" % (name, names))
        raise problem.with_traceback(left.__traceback__) from None
    if returns:
        _have_folder(request["objects"])
        response["returns"] = keep(result, returns, request["objects"], function, name)


def _open_canary(path: str) -> None:
    """Show that what this process opens is seen where the step was started."""
    if path:
        try:
            open(path).close()
        except OSError:
            return


def _set_log_level(level: str) -> None:
    """Let the root logger pass what the run asks for, also where the user's code sets up no handler."""
    if not level:
        return
    import logging  # takes a while to load

    number = getattr(logging, level.upper(), None)
    if isinstance(number, int):
        logging.getLogger().setLevel(number)
        if logging.lastResort is not None:
            logging.lastResort.setLevel(number)


def _have_folder(path: str) -> None:
    """Make a folder again that the user's code removed: with the whole store, say, by `git clean`."""
    os.makedirs(path, mode=0o700, exist_ok=True)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except Exception:  # closed or replaced by the user's code; Python says at its end what it could not write
        return


_NO_VALUES = ("coroutine", "generator", "async_generator")


def _value(result: Any, name: str) -> Any:
    if type(result).__name__ == "coroutine":
        import asyncio  # takes longer to load than the worker

        return asyncio.run(result)
    raise WrongReturnsError(
        "function `%s` is a generator: it was not run" % name, hint="return the values instead of yielding them"
    )


def _function(name: str, path: list[str]) -> Any:
    """Return what `module:qualified.name` points to."""
    module_name, _, attributes = name.partition(":")
    found = module = _module(module_name, path)
    for attribute in attributes.split("."):
        holder, found = found, getattr(found, attribute, _ABSENT)
        if found is _ABSENT:
            where = "%s (%s)" % (module_name, getattr(module, "__file__", None) or "built in")
            hint = did_you_mean(attribute, [known for known in dir(holder) if not known.startswith("_")])
            raise FunctionNotFoundError("no `%s` in module %s" % (attributes, where), hint=hint)
    if not callable(found):
        raise FunctionNotFoundError("`%s` is not a function but of type %s" % (name, type_name(found)))
    return found


def _module(name: str, path: list[str]) -> Any:
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        own = error.name == name or name.startswith("%s." % error.name)
        if not own or any(user_frames(error)):  # an import inside the user's code
            raise
        where = ", ".join(path) or "sys.path"
        hint = did_you_mean_module(name, path) or missing_module_hint(error.name or name, path[-1])
        raise FunctionNotFoundError("no module `%s` in %s" % (name, where), hint=hint) from None
    except SystemExit as left:
        if left.code not in (None, 0):
            raise
        problem = LeftEarlyError("module `%s` called sys.exit(0) during import" % name)
        raise problem.with_traceback(left.__traceback__) from None
    return sys.modules[name]
