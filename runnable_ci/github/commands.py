"""What GitHub's runner reads of a step: commands in its output, and the files that it hands out.

Source: actions/runner, src/Runner.Common/ActionCommand.cs (which line is a command),
src/Runner.Worker/ActionCommandManager.cs (what a command does), FileCommandManager.cs (the files).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from runnable_ci.redaction.redactor import secret_lines
from runnable_ci.redaction.spellings import QUOTE_OF_BASH
from runnable_ci.util.text import printable

Level = Literal["error", "warning", "notice"]

MESSAGE_MAX_UNITS = 4096
"""How much of an annotation's message the runner keeps, in units of UTF-16. Source: ExecutionContext.cs."""
LEVEL_MAX = 10
"""How many annotations of a level the runner keeps of a step. Source: ExecutionContext.cs."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something to be seen at a file's line, or at the run where no file is named."""

    level: Level
    message: str
    title: str = ""
    file: str = ""
    """Relative to the repository's root."""
    line: int = 0


def escape_data(text: str) -> str:
    """Return a command's data, which the runner will read as `text`."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Return the value of a command's property, which the runner will read as `text`."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def command(name: str, data: str = "", properties: Mapping[str, str] | None = None) -> str:
    """Return a command as a line without its end; empty properties are left out."""
    given = ",".join(f"{key}={escape_property(text_of(value))}" for key, value in (properties or {}).items() if value)
    return f"::{name}{' ' if given else ''}{given}::{escape_data(text_of(data))}"


def group(title: str) -> str:
    """Return lines from here to `endgroup` are folded under a title; groups cannot be nested."""
    return command("group", " ".join(title.split()))


def endgroup() -> str:
    """Return the end of the group."""
    return command("endgroup")


def new_token() -> str:
    """Return a word that nobody can guess, and that is no command's name."""
    return secrets.token_hex(20)


def stop_commands(token: str) -> str:
    """Return the line that disables commands until `resume_commands(token)`."""
    return command("stop-commands", token)


def resume_commands(token: str) -> str:
    """Return lines can be commands again."""
    return command(token)


def add_mask(secret: str) -> list[str]:
    """Return commands after which the log shows `***` for each line of a secret, as far as `secret_lines` takes
    it for one.

    A mask such as `{` would blot out the rest of the job's log, and drop each of its outputs that has one. The runner
    masks most escaped forms itself, but not how a later step's `set -x` shows a single quote.
    """
    lines = [text for line in secret_lines(secret) for text in (line, line.replace("'", QUOTE_OF_BASH))]
    return [command("add-mask", line) for line in dict.fromkeys(lines)]


def annotate(annotation: Annotation) -> str:
    """Return an annotation as a command, its message cut to what the runner keeps.

    No character of it moves a cursor.
    """
    message = "\n".join(map(printable, annotation.message.split("\n")))
    properties = {
        "file": annotation.file,
        "line": str(annotation.line) if annotation.file and annotation.line > 0 else "",
        "title": " ".join(printable(annotation.title).split()),
    }
    return command(annotation.level, cut(message), properties)


def annotate_all(annotations: Iterable[Annotation]) -> list[str]:
    """Return as many annotations as the runner keeps of a step.

    The last one of a level says how many more there are.
    """
    lines: list[str] = []
    given = list(annotations)
    for level in get_args(Level):
        of_level = [annotation for annotation in given if annotation.level == level]
        shown = of_level if len(of_level) <= LEVEL_MAX else of_level[: LEVEL_MAX - 1]
        lines += map(annotate, shown)
        if more := len(of_level) - len(shown):
            lines.append(annotate(Annotation(level, f"and {more} more: see the log and the summary")))
    return lines


def cut(message: str) -> str:
    """Return as much of a message as the runner keeps, in whole characters."""
    units = text_of(message).encode("utf-16-le")
    if len(units) <= 2 * MESSAGE_MAX_UNITS:
        return text_of(message)
    return units[: 2 * (MESSAGE_MAX_UNITS - 1)].decode("utf-16-le", "ignore") + "…"


def text_of(text: str) -> str:
    """Return text that can be written as UTF-8: what is not Unicode in it, a byte of a path, as `\\udcff`."""
    return text.encode(errors="backslashreplace").decode()


def assignments(values: Mapping[str, str], *, delimiter: Callable[[], str] = new_token) -> str:
    """Return lines for `GITHUB_OUTPUT`, `GITHUB_ENV` or `GITHUB_STATE` after which each name has its value,
    whatever it holds.

    Raises `ValueError` for a name that the runner would read as something else.
    """
    return "".join(_assignment(text_of(name), text_of(value), delimiter) for name, value in values.items())


def _assignment(name: str, value: str, delimiter: Callable[[], str]) -> str:
    if not name or name != name.strip() or any(part in name for part in ("=", "<<", "\n", "\r", "\0")):
        raise ValueError(f"{name!r} cannot be the name of an output or a variable")
    end = delimiter()
    while end in value or end in name:
        end = delimiter()
    return f"{name}<<{end}\n{value}\n{end}\n"


def append(file: Path, text: str) -> None:
    """Add whole lines to a file of the runner's in one write, also where what stands there has no line end."""
    with file.open("ab+") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size:
            opened.seek(size - 1)
            if opened.read(1) != b"\n":
                text = f"\n{text}"
    content = memoryview(text_of(text).encode())
    with file.open("ab", buffering=0) as opened:
        while content:
            content = content[opened.write(content) :]
