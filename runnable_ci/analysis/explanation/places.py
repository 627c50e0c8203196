"""Where in the code a failure was, as the output of programs tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

_FORMS: Final = (
    re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE),  # Python
    re.compile(r"^(?P<file>[^\s:'\"()]+\.\w+): line (?P<line>\d+):", re.MULTILINE),  # bash
    re.compile(r"^(?:sh|dash): (?:line )?(?P<line>\d+):()(?P<file>)", re.MULTILINE),  # the step's own script
    re.compile(r"^(?P<file>[^\s:'\"()]+\.\w+): (?P<line>\d+): ", re.MULTILINE),  # dash
    re.compile(r"\((?P<file>[^\s:()]+\.\w+)[:#](?P<line>\d+)(?::\d+)?\)", re.MULTILINE),  # node, R
    re.compile(r"^\s*at (?:.* \()?(?P<file>/?[^\s:()]+\.\w+):(?P<line>\d+):\d+\)?$", re.MULTILINE),  # node
    re.compile(r"\b(?P<file>[^\s:'\"()]+\.(?:R|r|jl|pl|rb|sql|c|cc|cpp|rs|go|java)):(?P<line>\d+)\b", re.MULTILINE),
    re.compile(r" at (?P<file>[^\s:'\"()]+) line (?P<line>\d+)\.?$", re.MULTILINE),  # perl
)


class FailurePlace(NamedTuple):
    """A line of a file."""

    file: str
    line: int


def place_in(output: str, own_name: Callable[[str], str]) -> FailurePlace | None:
    """Return the place that a program's output names last, of those in files that are the project's own.

    `own_name` returns the name of such a file, else nothing.
    """
    named = ((own_name(place.file), place.line) for _, place in sorted(_places(output)) if place.file)
    own = [FailurePlace(file, line) for file, line in named if file]
    return own[-1] if own else None


def _places(output: str) -> Iterator[tuple[int, FailurePlace]]:
    for form in _FORMS:
        for match in form.finditer(output):
            yield match.start(), FailurePlace(match["file"], int(match["line"][:9]))
