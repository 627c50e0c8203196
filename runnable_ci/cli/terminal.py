"""What a person at a terminal, or behind a pipe, sees of a run."""

from __future__ import annotations

from pathlib import Path

from runnable_ci.runs.model import RunLog
from runnable_ci.util.line_printer import LinePrinter


class Printer(LinePrinter):
    """The steps' stdout on stdout and their stderr on stderr; everything else on stderr."""

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong, where there is a page to point on; a terminal has none."""
