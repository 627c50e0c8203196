"""A run's output in the log of a GitHub job: a group a step, and nothing that a step writes is taken for a command.

**Groups.** Groups can neither be nested nor interleaved, and steps run side by side. So one step at a time is in the
foreground: its lines appear as it writes them, in a group of its own. What the others write is held, in memory first
and in a temporary file beyond that, and shown in a group of their own when it is their turn, in full:

- a step that ends is shown at once, whoever is in the foreground, so that a failure is never waiting;
- when the foreground step ends, the step that has waited longest takes its place;
- when the foreground step is silent for `FOREGROUND_IDLE_SECONDS` while others have something to show, likewise.

What the program itself says (how a step ended, what was reused) stands between the groups, where it is seen while they
are folded; a step that writes on after that, or after another's turn, goes on in a further group.

**Commands.** Inside a group commands are stopped, by a token that is made anew for each run and that the runner masks
in its log; outside there are only lines of ours, and those that quote others are made harmless. One token for all
groups of a run: the runner remembers each as a secret, and looks for all of them in each line. Each line has its step's
name in front of it too, so that none begins as a command would.

**One stream.** The runner reads stdout and stderr at the same time, in no order: everything goes to stdout, else what a
step wrote to stderr could come before the line that stops commands. Source: actions/runner, ProcessInvoker.cs.

A step runs as our own user: one that writes into our open files under `/proc` cannot be kept from it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from runnable_ci.github.annotations import annotations_for, places
from runnable_ci.github.commands import (
    Annotation,
    add_mask,
    annotate_all,
    endgroup,
    group,
    new_token,
    resume_commands,
    stop_commands,
)
from runnable_ci.runs.model import RunLog
from runnable_ci.util.console import console
from runnable_ci.util.line_printer import LinePrinter, Sink
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import escape_commands, printable
from runnable_ci.util.threads import start

FOREGROUND_IDLE_SECONDS = 5.0
"""How long the foreground step may be silent before another's turn."""
_HELD_IN_MEMORY_BYTES = 1 << 18
_COPY_BYTES = 1 << 20
_TICK_S = 1.0


class ActionsPrinter(LinePrinter):
    """Writes to the log of a job from many threads; see the module for who writes when."""

    def __init__(
        self,
        out: Sink,
        *,
        quiet: bool,
        silent_s: float = FOREGROUND_IDLE_SECONDS,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(out, out, terminal=False, colour=False, quiet=quiet)
        self._out = out
        self._silent_s = silent_s
        self._environ = environ
        self._token = new_token()
        self._open: str | None = None
        self._foreground: str | None = None
        self._spoke_s = 0.0
        self._held: dict[str, IO[bytes]] = {}
        self._begun: set[str] = set()

    @classmethod
    def of_process(cls, *, quiet: bool = False, no_colour: bool = False) -> ActionsPrinter:  # noqa: ARG003 - there is none
        """A printer on this process's own stdout."""
        return cls(console.stdout, quiet=quiet)

    def begin(self, steps: list[str], total: int) -> None:
        """Get ready for these steps, of which `total` will run."""
        super().begin(steps, total)
        if not self._quiet:
            start(self._rotate_foreground, name="turns")

    def end(self) -> None:
        """Show what is held still; commands are on again, and stay so."""
        self._ended.set()
        with self._lock:
            for step in list(self._held):
                self._release(step)
            self._close()
            self._flush()

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """A step is over: its group ends, and after it is said how."""
        self.finish_lines(step)
        with self._lock:
            if step in self._held:
                self._release(step)
            if step == self._foreground:
                self._foreground = None
        super().finished(step, text, failed=failed)
        with self._lock:
            if self._foreground is None:
                self._next()
            self._flush()

    def mask(self, secrets: Iterable[str]) -> None:
        """Have the runner hide these from now on: in the rest of the job's log, whoever writes it."""
        commands = "".join(f"{line}\n" for secret in secrets for line in add_mask(secret))
        with self._lock:
            if self._open is not None:  # commands are stopped there
                commands = f"{resume_commands(self._token)}\n{commands}{stop_commands(self._token)}\n"
            self._out.write(commands.encode())
            self._flush()

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong in a run, at its file and line."""
        self.print_annotations(annotations_for(log, places(workspace, file, self._environ)))

    def print_annotations(self, annotations: Iterable[Annotation]) -> None:
        """Write annotations outside of all groups."""
        with self._lock:
            self._close()
            for line in annotate_all(annotations):
                self._out.write(f"{line}\n".encode())
            self._flush()

    def _show(self, step: str, stream: Stream, lines: bytes) -> None:  # noqa: ARG002 - there is one stream only
        if self._foreground is None:
            self._foreground = step
        if step == self._foreground:
            self._spoke_s = time.monotonic()
            self._out.write(self._opening(step) + lines)
            self._flush()
            return
        if step not in self._held:
            self._held[step] = tempfile.SpooledTemporaryFile(_HELD_IN_MEMORY_BYTES)  # noqa: SIM115 - outlives this
        self._held[step].write(lines)

    def _say(self, text: str, step: str) -> None:
        with self._lock:
            self._close()
            self._out.write((self._prefix(step) if step else b"") + f"{escape_commands(text)}\n".encode())
            self._flush()

    def _opening(self, step: str) -> bytes:
        """What must come before lines of the step: nothing where its group is open."""
        if step == self._open:
            return b""
        title = f"{printable(step)} (goes on)" if step in self._begun else printable(step)
        before = self._closing()
        self._open = step
        self._begun.add(step)
        return before + f"{group(title)}\n{stop_commands(self._token)}\n".encode()

    def _closing(self) -> bytes:
        """The end of the open group, if there is one; commands are on after it."""
        if self._open is None:
            return b""
        self._open = None
        return f"{resume_commands(self._token)}\n{endgroup()}\n".encode()

    def _close(self) -> None:
        self._out.write(self._closing())

    def _release(self, step: str) -> None:
        """Show all that is held of a step."""
        with self._held.pop(step) as held:
            held.seek(0)
            self._out.write(self._opening(step))
            for chunk in iter(lambda: held.read(_COPY_BYTES), b""):
                self._out.write(chunk)

    def _next(self) -> None:
        """Bring the step that has waited longest into the foreground, if one waits."""
        for step in list(self._held)[:1]:
            self._foreground = step
            self._release(step)
            self._spoke_s = time.monotonic()

    def _rotate_foreground(self) -> None:
        while not self._ended.wait(min(_TICK_S, self._silent_s)):
            with self._lock:
                if self._held and time.monotonic() - self._spoke_s >= self._silent_s and not self._ended.is_set():
                    self._next()
                    self._flush()
