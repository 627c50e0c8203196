"""Read files that people write, and say what is wrong with one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

LINE_END = b"\n"
ENCODING = "utf-8-sig"  # some editors begin a file with a mark


def parse_toml(content: str, shown: str, *, hint: str = "") -> dict[str, Any]:
    """Return the tables of a file that messages call `shown`.

    Raises `PipelineError` with the line, and a hint how that is written right, unless there is one already.
    """
    try:
        return tomllib.loads(content)
    except (ValueError, RecursionError) as e:  # also for numbers of thousands of digits, and lists as deep
        from runnable_ci.pipeline.diagnostics.syntax import syntax_error  # for errors alone

        raise syntax_error(content, shown, str(e), hint=hint) from e


def read_problem(error: OSError | UnicodeDecodeError) -> str:
    """Say why a file could not be read."""
    if isinstance(error, UnicodeDecodeError):
        return f"line {error.object.count(LINE_END, 0, error.start) + 1} is not UTF-8 text"
    return (error.strerror or str(error)).lower()


def names_in(folder: Path) -> list[str]:
    """List what is in a folder, for a hint; nothing where it is none."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
