"""Where in the code a failure was, as the output of programs tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_PYTHON: Final = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_FORMS: Final = (
    re.compile(r"^(?P<file>[^\s:'\"()]+\.\w+): line (?P<line>\d+):"),  # bash
    re.compile(r"^(?:sh|dash): (?:line )?(?P<line>\d+):()(?P<file>)"),  # the step's own script
    re.compile(r"^(?P<file>[^\s:'\"()]+\.\w+): (?P<line>\d+): "),  # dash
    re.compile(r"\((?:file://)?(?P<file>[^\s:()]+\.\w+)[:#](?P<line>\d+)(?::\d+)?\)"),  # node, R
    re.compile(r"^\s*at (?:.* \()?(?:file://)?(?P<file>/?[^\s:()]+\.\w+):(?P<line>\d+):\d+\)?$"),  # node
    re.compile(r"(?<![^\s:'\"()])(?P<file>[^\s:'\"()]+\.(?:R|r|jl|pl|rb|sql|c|cc|cpp|rs|go|java)):(?P<line>\d+)\b"),
    re.compile(r" at (?P<file>[^\s:'\"()]+) line (?P<line>\d+)\b"),  # perl
)
_ERROR: Final = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?")
"""What a traceback ends with."""


class FailurePlace(NamedTuple):
    """A line of a file."""

    file: str
    line: int


@dataclass
class _Stack:
    """Calls that a program was in, the innermost first."""

    is_python: bool
    frames: list[FailurePlace] = field(default_factory=list)
    error: str = ""
    """What was raised, of Python's tracebacks."""


def place_in(output: str, own_name: Callable[[str], str]) -> FailurePlace | None:
    """Return the innermost place in files that are the project's own, of the calls that a program's output names last.

    `own_name` returns the name of such a file, else nothing.
    """
    for stack in reversed([*_stacks(output)]):
        for file, line in stack.frames:
            if file and (name := own_name(file)):
                return FailurePlace(name, line)
    return None


def error_in(output: str) -> str:
    """Return what the last traceback of Python in a program's output says was raised; empty where there is none."""
    return next((stack.error for stack in reversed([*_stacks(output)]) if stack.error), "")


def _stacks(output: str) -> Iterator[_Stack]:
    """Yield the calls that are named one below the other: by Python the innermost last, by others first."""
    current: _Stack | None = None
    for line in output.splitlines():
        place = next((found for form in (_PYTHON, *_FORMS) if (found := _place(form, line))), None)
        if place:
            is_python = _PYTHON.search(line) is not None
            if current and not (current.is_python is is_python and line[:1].isspace()):
                yield current
                current = None
            current = current or _Stack(is_python)
            current.frames.insert(0 if is_python else len(current.frames), place)
        elif current and not _is_within(current, line):
            if current.is_python and _ERROR.fullmatch(line):
                current.error = line
            yield current
            current = None
    if current:
        yield current


def _is_within(stack: _Stack, line: str) -> bool:
    """Return whether a line without a place is among the calls: their code, or in Go their names."""
    return line[:1].isspace() or (not stack.is_python and line.endswith(")"))


def _place(form: re.Pattern[str], line: str) -> FailurePlace | None:
    found = form.search(line)
    return FailurePlace(found["file"], int(found["line"][:9])) if found else None
