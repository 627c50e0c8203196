"""What went wrong in a step, in Python's own words and without the frames of this package."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from .errors import WorkerError, command_line_hint, missing_module_hint, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

    from .workspace import WorkspaceFolder

_PACKAGE = __name__.partition(".")[0]


def user_frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames and their lines of the error, outermost first, without ours at the top."""
    trace, ours = error.__traceback__, True
    while trace is not None:
        ours = ours and _is_ours(trace.tb_frame)
        if not ours:
            yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def record(error: BaseException, response: dict[str, Any], workspace: WorkspaceFolder) -> None:
    """Write the failure into the response and, as Python would, to stderr."""
    _strip(error)
    exit_code, shown = 1, _as_python_prints(error)
    hint = error.hint if isinstance(error, WorkerError) else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = missing_module_hint(error.name, workspace.root)
        shown += "hint: %s\n" % hint if hint else ""
    trace = shown
    if isinstance(error, KeyboardInterrupt):
        exit_code = 130
    elif isinstance(error, SystemExit):
        hint = command_line_hint(str(frame.f_globals.get("__name__")) for frame, _ in user_frames(error))
        shown = "hint: %s\n" % hint if hint else ""
        if isinstance(error.code, int):
            exit_code = error.code & 0xFF or 1
        elif error.code is not None:
            shown = "%s\n%s" % (error.code, shown)
    file, line = _location(error, workspace)
    response.update(
        status="failed",
        exit_code=exit_code,
        error={
            "type": type_name(error),
            "message": _text(error.message if isinstance(error, WorkerError) else _message(error)),
            "hint": _text(hint),
            "traceback": _text(trace),
            "file": file and _text(file),
            "line": line,
        },
    )
    with suppress(Exception):  # closed or replaced by the user's code; the response has it all
        sys.stderr.write(shown)


def _is_ours(frame: FrameType) -> bool:
    names = frame.f_globals
    return names is vars(sys.modules["__main__"]) or str(names.get("__name__")).startswith(_PACKAGE)


def _strip(error: BaseException) -> None:
    """Remove the worker's frames from the error and its causes."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        while link.__traceback__ is not None and _is_ours(link.__traceback__.tb_frame):
            link.__traceback__ = link.__traceback__.tb_next
        parts = getattr(link, "exceptions", ())  # of an ExceptionGroup
        waiting += [link.__cause__, link.__context__, *(parts if isinstance(parts, tuple) else ())]


def _as_python_prints(error: BaseException) -> str:
    if sys.version_info >= (3, 13):  # the hook there colours for a terminal, by the environment
        from traceback import format_exception

        return "".join(format_exception(error))
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        sys.__excepthook__(type(error), error, error.__traceback__)  # knows suggestions that `traceback` does not
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stderr


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def _text(text: str) -> str:
    """Return the text without lone surrogates, which the reader of the response could not write to a file."""
    return text.encode("utf-8", "backslashreplace").decode()


def _location(error: BaseException, workspace: WorkspaceFolder) -> tuple[str | None, int | None]:
    """Return file and line to look at: the innermost in the workspace, else the innermost of all."""
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        return workspace.relative(error.filename) or error.filename, error.lineno
    places = [(frame.f_code.co_filename, line) for frame, line in user_frames(error)]
    if isinstance(error, WorkerError) and not places:
        function = error.at
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        if not hasattr(function, "__code__"):
            return None, None
        places = [(function.__code__.co_filename, function.__code__.co_firstlineno)]
    for file, line in reversed(places):
        inner = workspace.relative(file)
        if inner is not None:
            return inner, line
    return places[-1] if places else (None, None)
