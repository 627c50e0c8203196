"""The interfaces to which a run reports: the loop knows neither terminals nor jobs, only these."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from runnable_ci.runs.model import RunLog
from runnable_ci.util.process_output import Stream


class Reporter(Protocol):
    """Shows a run while it happens. Its methods are called from any thread."""

    def begin(self, steps: list[str], total: int) -> None:
        """Prepare for these steps, of which `total` will run."""

    def say(self, *lines: str, step: str = "") -> None:
        """Show lines of the program's own, of a step if it is named."""

    def started(self, step: str) -> None:
        """Show that a step begins."""

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """Show that a step is over; `text` says how."""

    def output(self, step: str, stream: Stream, chunk: bytes) -> None:
        """Show what a step wrote, redacted."""

    def mask(self, secrets: Iterable[str]) -> None:
        """Tell the reader of the output to hide these values."""

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong in a run that ended; `file` is the pipeline file."""

    def end(self) -> None:
        """Show nothing more that changes."""


class CommandFiles(Protocol):
    """Files that steps write for the program that runs this one, such as a job's `GITHUB_ENV`."""

    def create(self, folder: Path) -> dict[str, str]:
        """Return the variables of an attempt, whose own files are in this folder."""

    def forward(self, folder: Path, *, succeeded: bool, clean: Callable[[str], str]) -> list[str]:
        """Forward what an attempt wrote; return why something was not. `clean` redacts what is shown."""


class NoCommandFiles:
    """Outside of a job nobody reads such files."""

    def create(self, folder: Path) -> dict[str, str]:  # noqa: ARG002 - none are made
        """Return no variables."""
        return {}

    def forward(self, folder: Path, *, succeeded: bool, clean: Callable[[str], str]) -> list[str]:  # noqa: ARG002
        """Forward nothing."""
        return []
