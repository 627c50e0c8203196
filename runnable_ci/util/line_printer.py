"""What a person sees of a run: the steps' output, each line with its step's name, and one line a change of state.

The steps' stdout goes to stdout and their stderr to stderr; everything that we say goes to stderr.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from runnable_ci.util.console import LINE_MAX_BYTES, console, line
from runnable_ci.util.process_output import Stream

_COLOURS = (36, 33, 35, 34, 32)
_NAME_MAX = 24
"""Characters of a step's name before its lines."""
_WRITTEN_OVER = re.compile(rb"(?m)^[^\n]*\r(?!\n)")


class Sink(Protocol):
    """Where bytes are shown; `console.Output` is one."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""

    def flush(self) -> None:
        """Flush the output."""


class LinePrinter:
    """Writes to a terminal or a pipe from many threads, never mixing two lines."""

    def __init__(
        self,
        stdout: Sink,
        stderr: Sink,
        *,
        terminal: bool,
        colour: bool,
        quiet: bool,
        lost: Callable[[], OSError | None] = lambda: None,
    ) -> None:
        self._streams: dict[Stream, Sink] = {"o": stdout, "e": stderr}
        self._terminal = terminal
        self._colour = colour
        self._quiet = quiet
        self._lost = lost
        """Why stdout cannot be written any more."""
        self._is_loss_told = False
        self._lock = threading.Lock()
        self._partial: dict[tuple[str, Stream], bytes] = {}
        """The line that each stream is at; of a progress bar what it shows by now."""
        self._prefixes: dict[str, bytes] = {}
        self._labels: dict[str, str] = {}
        self._names: set[str] = set()
        self._width = 0
        self._running: dict[str, float] = {}
        self._finished: set[str] = set()
        self._total = 0
        self._ended = threading.Event()

    @classmethod
    def of_process(cls, *, quiet: bool = False, no_colour: bool = False) -> Self:
        """Return a printer on this process's own stdout and stderr."""
        terminal = console.is_live()
        return cls(
            console.stdout,
            console.stderr,
            terminal=terminal,
            colour=console.stderr.is_terminal() and console.stdout.is_terminal() and not no_colour,
            quiet=quiet,
            lost=lambda: console.stdout.lost,
        )

    def begin(self, steps: list[str], total: int) -> None:
        """Prepare for these steps, of which `total` will run."""
        self._width = min(_NAME_MAX, max(map(len, steps), default=0))
        self._total = total

    def widen(self, steps: Iterable[str]) -> None:
        """Have room for the names of more steps before their lines."""
        self._width = max(self._width, min(_NAME_MAX, max(map(len, steps), default=0)))

    def expect(self, total: int) -> None:
        """Set the number of steps that will run."""
        self._total = total

    def end(self) -> None:
        """Show nothing more that changes."""
        self._ended.set()
        with self._lock:
            self._flush()

    def say(self, *lines: str, step: str = "") -> None:
        """Print lines of the program, if there are any; each stays one line, whatever is in it."""
        if lines:
            self._say("\n".join(map(line, lines)), step)

    def started(self, step: str) -> None:
        """Show that a step has started."""
        with self._lock:
            self._running[step] = time.monotonic()

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """Show that a step has ended; `text` says how."""
        self.finish_lines(step)
        with self._lock:
            self._running.pop(step, None)
            self._finished.add(step)
        mark, colour = ("✗", 31) if failed else ("✓", 32)
        self._say(f"{self._styled(mark, colour)} {line(text)}", step)

    def output(self, step: str, stream: Stream, chunk: bytes) -> None:
        """Show what a step wrote, line by line."""
        if self._quiet:
            return
        key = (step, stream)
        held = self._partial.get(key, b"")
        text = held + chunk if held else chunk
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        if b"\r" in rest:
            rest = rest[max(0, rest.rstrip(b"\r").rfind(b"\r")) :]
        if len(rest) < LINE_MAX_BYTES:
            text = text[:cut]
        else:
            text, rest = text[:cut] + rest + b"\n", b""
        if rest or held:  # another thread looks at it
            self._partial[key] = rest
        if text:
            if b"\r" in text:  # a progress bar: what it wrote over, and with it our prefix, is not to be seen
                text = _WRITTEN_OVER.sub(b"", text)
            prefix = self._prefix(step)
            lines = prefix + text[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
            with self._lock:
                self._show(step, stream, lines)

    def finish_lines(self, step: str) -> None:
        """Show what a step wrote last, should its line have no end."""
        for stream in self._streams:
            if self._partial.get((step, stream)):
                self.output(step, stream, b"\n")

    def mask(self, secrets: Iterable[str]) -> None:
        """Ask the reader to hide these; a terminal shows them as they are."""

    def _show(self, step: str, stream: Stream, lines: bytes) -> None:  # noqa: ARG002 - others tell steps apart
        """Write whole lines of a step; the lock is held."""
        self._before(stream)
        self._streams[stream].write(lines)
        self._flush()
        self._after()

    def _before(self, stream: Stream) -> None:
        """Make room for a line; the lock is held."""

    def _after(self) -> None:
        """Show again what had to make room; the lock is held."""

    def _say(self, text: str, step: str) -> None:
        with self._lock:
            self._before("e")
            self._streams["e"].write((self._prefix(step) if step else b"") + f"{text}\n".encode())
            self._flush()
            self._after()

    def _prefix(self, step: str) -> bytes:
        if step not in self._prefixes:
            name = f"{self._label(step):{self._width}}"
            colour = _COLOURS[len(self._prefixes) % len(_COLOURS)]
            bar = "│" if self._colour else "|"
            self._prefixes[step] = f"{self._styled(f'{name} {bar}', colour)} ".encode()
        return self._prefixes[step]

    def _label(self, step: str) -> str:
        if step not in self._labels:
            self._labels[step] = self._shortened(line(step))
        return self._labels[step]

    def _shortened(self, name: str) -> str:
        """Return a name without its middle if it is long: instances of one step differ at the end.

        It stays whole where another step's is shortened to the same.
        """
        short = name if len(name) <= _NAME_MAX else f"{name[: _NAME_MAX // 2 - 1]}…{name[-_NAME_MAX // 2 :]}"
        found = name if short in self._names else short
        self._names.add(found)
        return found

    def _styled(self, text: str, style: int) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour else text

    def _flush(self) -> None:
        for stream in self._streams.values():
            stream.flush()
        if not self._is_loss_told and (lost := self._lost()):
            self._is_loss_told = True
            text = f"warning: stdout cannot be written ({lost.strerror}): the run continues, and keeps its output\n"
            self._streams["e"].write(text.encode())
            self._streams["e"].flush()
