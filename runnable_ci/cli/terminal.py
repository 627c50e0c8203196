"""What a person at a terminal, or behind a pipe, sees: a run, a plan, how far a transfer is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.runs.model import RunLog
from runnable_ci.util.console import console
from runnable_ci.util.line_printer import LinePrinter
from runnable_ci.util.text import format_size, printable

if TYPE_CHECKING:
    from runnable_ci.store.copy import Progress

_EVERY_S = 0.2


class Printer(LinePrinter):
    """The steps' stdout on stdout and their stderr on stderr; everything else on stderr."""

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong, where there is a page to point on; a terminal has none."""


class SilentPrinter(Printer):
    """Says nothing: what it would say is only a look ahead."""

    def say(self, *lines: str, step: str = "") -> None:
        """Say nothing."""


def confirm(question: str) -> bool:
    """Ask a person; return whether the answer is yes."""
    console.stderr.write(printable(question).encode())
    console.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_interactive() -> bool:
    """Return whether a person can read a question and answer it."""
    return sys.stdin is not None and sys.stdin.isatty() and console.stderr.is_terminal()


@contextmanager
def watching(verb: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what to call with the progress; its line is removed after the block. None where nothing is shown."""
    if not console.stderr.is_terminal():
        yield None
        return
    shown_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_s
        if (now_s := time.monotonic()) - shown_s >= _EVERY_S:
            shown_s = now_s
            done, total = format_size(progress.done.size_bytes), format_size(progress.total.size_bytes)
            console.status(f"{verb} {done} of {total}")

    try:
        yield show
    finally:
        console.status("")
