"""A run's output in the log of a GitHub job: a group a step, and nothing that a step writes is taken for a command.

**Groups.** Groups can neither be nested nor interleaved, and steps run side by side. A step that is alone streams: its
lines appear as it writes them, in a group of its own, also while others begin beside it. What these write is held, in
memory first and in a temporary file beyond that, and each is shown as one group once it ends, or once it is alone. So a
failure is never waiting for another step, and no group is cut by another step's turn.

What the program itself says (how a step ended, what was reused) stands between the groups, where it is seen while they
are folded; a step that writes more after that continues in a further group.

**Commands.** Inside a group commands are stopped, by a token that is new for each run and that the runner masks in
its log; outside there are only the program's own lines, and those that quote others are escaped. One token for all
groups of a run: the runner remembers each as a secret, and looks for all of them in each line. Each line has its
step's name in front of it too, so that none begins as a command would. Source: actions/runner,
ActionCommandManager.cs (`stop-commands`).

**One stream.** The runner reads stdout and stderr at the same time, in no order: everything goes to stdout, else what a
step wrote to stderr could come before the line that stops commands. Source: actions/runner, ProcessInvoker.cs.

A step runs as our own user: one that writes into our open files under `/proc` cannot be kept from it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from runnable_ci.github.annotations import annotations_for, source_map
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

_HELD_IN_MEMORY_BYTES = 1 << 18
_COPY_BYTES = 1 << 20


class ActionsPrinter(LinePrinter):
    """Writes to the log of a job from many threads; the module says who writes when."""

    def __init__(self, out: Sink, *, quiet: bool, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__(out, out, terminal=False, colour=False, quiet=quiet)
        self._out = out
        self._environ = environ
        self._token = new_token()
        self._streaming = ""
        """The step whose lines are shown at once."""
        self._held: dict[str, IO[bytes]] = {}
        self._open = ""
        """The step whose group is open."""
        self._had_group: set[str] = set()

    @classmethod
    def of_process(cls, *, quiet: bool = False, no_colour: bool = False) -> ActionsPrinter:  # noqa: ARG003 - there is none
        """Return a printer on this process's own stdout."""
        return cls(console.stdout, quiet=quiet)

    def end(self) -> None:
        """Show what is still held; commands are on again, and stay so."""
        self._ended.set()
        with self._lock:
            for step in list(self._held):
                self._release(step)
            self._close()
            self._flush()

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """Show the rest of a step that is over, and below its group how it ended."""
        self.finish_lines(step)
        with self._lock:
            if step in self._held:
                self._release(step)
            if step == self._streaming:
                self._streaming = ""
        super().finished(step, text, failed=failed)
        with self._lock:
            if len(self._running) == 1 and not self._streaming and self._running.keys() <= self._held.keys():
                self._stream(*self._running)
                self._flush()

    def mask(self, secrets: Iterable[str]) -> None:
        """Make the runner hide these from now on, in the rest of the job's log, whatever program writes it."""
        commands = "".join(f"{line}\n" for secret in secrets for line in add_mask(secret))
        with self._lock:
            if self._open:  # commands are stopped there
                commands = f"{resume_commands(self._token)}\n{commands}{stop_commands(self._token)}\n"
            self._out.write(commands.encode())
            self._flush()

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong in a run, at its file and line."""
        self.print_annotations(annotations_for(log, source_map(workspace, file, self._environ)))

    def print_annotations(self, annotations: Iterable[Annotation]) -> None:
        """Write annotations outside of all groups."""
        with self._lock:
            self._close()
            for line in annotate_all(annotations):
                self._out.write(f"{line}\n".encode())
            self._flush()

    def _show(self, step: str, stream: Stream, lines: bytes) -> None:  # noqa: ARG002 - there is one stream only
        if step != self._streaming and not self._running.keys() - {step}:
            self._stream(step)
        if step == self._streaming:
            self._out.write(self._opening(step) + lines)
            self._flush()
            return
        if step not in self._held:
            self._held[step] = tempfile.SpooledTemporaryFile(_HELD_IN_MEMORY_BYTES)  # noqa: SIM115 - outlives this
        try:
            self._held[step].write(lines)
        except OSError:  # shown in between rather than not at all
            self._out.write(self._opening(step) + lines)
            self._flush()

    def _stream(self, step: str) -> None:
        """Show what a step has written, and from now on what it writes."""
        self._streaming = step
        if step in self._held:
            self._release(step)

    def _say(self, text: str, step: str) -> None:
        with self._lock:
            self._close()
            self._out.write((self._prefix(step) if step else b"") + f"{escape_commands(text)}\n".encode())
            self._flush()

    def _opening(self, step: str) -> bytes:
        """Return what must come before lines of the step: nothing where its group is open."""
        if step == self._open:
            return b""
        title = f"{printable(step)} (continued)" if step in self._had_group else printable(step)
        before = self._closing()
        self._open = step
        self._had_group.add(step)
        return before + f"{group(title)}\n{stop_commands(self._token)}\n".encode()

    def _closing(self) -> bytes:
        """Return the end of the open group, if there is one; commands are on after it."""
        if not self._open:
            return b""
        self._open = ""
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
