"""What a person at a terminal, or behind a pipe, sees: a run, a plan, how far a transfer is."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from runnable_ci.runs.model import RunLog
from runnable_ci.util.console import console
from runnable_ci.util.line_printer import LinePrinter
from runnable_ci.util.process_output import Stream
from runnable_ci.util.signals import at_once, since_cancelled_s
from runnable_ci.util.text import fitted, format_elapsed, format_size, printable, width
from runnable_ci.util.threads import start

if TYPE_CHECKING:
    from runnable_ci.store.copy import Progress

_EVERY_S = 0.2
_DIM = 2
_FIRST_S: Final = 1.0
"""A run that is over before has no status."""
_TICK_S: Final = 0.5
_PUT_BACK_S: Final = 0.05
"""Where lines follow each other faster, the status waits for its next turn."""
_LEAST_BAR: Final = 6
"""Columns of a progress bar that tell something."""
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


class Running(NamedTuple):
    """A step that runs: for how long, and what its line shows by now, such as a progress bar."""

    label: str
    seconds: float
    bar: str = ""


class Printer(LinePrinter):
    """The steps' stdout on stdout and their stderr on stderr; everything else on stderr.

    On a terminal the last line is the status: how much is done, what runs, for how long, and its progress bar.
    One thread renews it, and who prints a line puts it back.
    """

    _began_s = _drawn_s = 0.0
    _status = ""
    _held: dict[tuple[str, Stream], bytes]
    """The lines without end when the status was made last."""
    _shown: tuple[str, ...] = ()
    """The steps that the status is of."""
    _is_cancelled = False

    def begin(self, steps: list[str], total: int) -> None:
        """Prepare for these steps, of which `total` will run."""
        super().begin(steps, total)
        if self._terminal and not self._quiet:
            self._began_s, self._held = time.monotonic(), {}
            at_once.append(console.leave)
            start(self._tick, name="status")

    def end(self) -> None:
        """Remove the status line."""
        self._ended.set()
        with self._lock:
            self._draw("")
            if console.leave in at_once:
                at_once.remove(console.leave)
        super().end()

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Point at what went wrong, where there is a page to point on; a terminal has none."""

    def _tick(self) -> None:
        wait_s = _FIRST_S
        while not self._ended.wait(wait_s):
            wait_s = _TICK_S
            with self._lock:
                if not self._ended.is_set():
                    self._draw(self._text())

    def _text(self) -> str:
        """Return the status; the lock is held."""
        self._shown = tuple(self._running)
        if not self._running:
            return ""
        now_s, bars = time.monotonic(), self._bars()
        running = [Running(self._label(step), now_s - s, bars.get(step, "")) for step, s in self._running.items()]
        done = len(self._finished - self._running.keys())
        total = max(self._total, done + len(running))
        return status_text(done, total, now_s - self._began_s, running, columns=console.stderr.columns() - 1)

    def _bars(self) -> dict[str, str]:
        """Return step → what its line shows that has no end yet: a progress bar, or one that has stood here before."""
        held, self._held = self._held, {key: line for key, line in tuple(self._partial.items()) if line}
        bars = dict[str, str]()
        for key, line in sorted(self._held.items(), key=lambda item: b"\r" in item[1]):
            if (b"\r" in line or (key in held and line.startswith(held[key]))) and (bar := shown_form(line)):
                bars[key[0]] = bar
        return bars

    def _draw(self, text: str) -> None:
        """Show a status, or none; the lock is held."""
        if text or self._status:
            self._status, self._drawn_s = text, time.monotonic()
            console.status(*filter(None, [text]), colour=_DIM if self._colour else None)

    def _before(self, stream: Stream) -> None:
        if self._terminal and not self._is_cancelled and since_cancelled_s() is not None:
            self._is_cancelled = True
            console.erase_echo()
        if self._status and (stream == "e" or console.stdout.is_terminal()):
            console.status()

    def _after(self) -> None:
        if self._status and time.monotonic() - self._drawn_s >= _PUT_BACK_S:
            self._draw(self._status if self._shown == tuple(self._running) else self._text())


class SilentPrinter(Printer):
    """Says nothing: what it would say is only a look ahead."""

    def say(self, *lines: str, step: str = "") -> None:
        """Say nothing."""


def status_text(done: int, total: int, seconds: float, running: Sequence[Running], *, columns: int) -> str:
    """Return what runs now, in one line: as many steps as fit, and in what is left of it their progress bars."""
    text = f"{done} of {total} done, {format_elapsed(seconds)}: "
    names = [f"{step.label} {format_elapsed(step.seconds)}" for step in running]
    number = len(names)
    while number > 1 and width(text + _enumerated(names[:number], len(names))) > columns:
        number -= 1
    left = columns - width(text + _enumerated(names[:number], len(names)))
    bars = sum(bool(step.bar) for step in running[:number])
    for index, step in enumerate(running[:number]):
        if step.bar:
            if (share := left // bars - 1) >= _LEAST_BAR:
                bar = fitted(step.bar, share)
                left -= width(bar) + 1
                names[index] += f" {bar}"
            bars -= 1
    return text + _enumerated(names[:number], len(names))


def _enumerated(names: Sequence[str], total: int) -> str:
    more = f" and {total - len(names)} more" if total > len(names) else ""
    return f"{', '.join(names)}{more}"


def shown_form(line: bytes) -> str:
    """Return what a terminal would show of a line that is written over and over, without its colours."""
    last = line.rstrip(b"\r").rpartition(b"\r")[2]
    return printable(_ESCAPES.sub("", last.decode(errors="replace"))).strip()


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
    if not console.is_live():
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
        console.status()
