"""A reporter that shows nothing: of runs that are one of many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runnable_ci.runs.model import RunLog
from runnable_ci.util.process_output import Stream


class Silence:
    """Shows nothing."""

    def begin(self, steps: list[str], total: int) -> None:
        """Show nothing."""

    def say(self, *lines: str, step: str = "") -> None:
        """Show nothing."""

    def started(self, step: str) -> None:
        """Show nothing."""

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """Show nothing."""

    def output(self, step: str, stream: Stream, chunk: bytes) -> None:
        """Show nothing."""

    def mask(self, secrets: Iterable[str]) -> None:
        """Nothing is shown that could be hidden."""

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at nothing."""

    def end(self) -> None:
        """Nothing changes."""
