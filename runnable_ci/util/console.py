"""The one way to stdout and stderr.

Much of what is printed was named by others: in a pipeline file, a run log, a registry, git, GitHub. None of it may move
a terminal's cursor, begin a line of its own, or be a command for the runner of a job, which reads both streams. So what
is printed are lines, each made harmless here; or bytes of which that is known: JSON, commands of our own making, what a
`Printer` made of the steps' output.

What cannot be written (a full disk, a terminal or a reader that is gone) never ends what the program does: it is
dropped, and the stream tells that. A command whose purpose is what it prints fails by that at its next `out`.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, TextIO

from runnable_ci.errors import OutputError
from runnable_ci.util.text import escape_commands, fitted, padded, printable

RED, GREEN, YELLOW = 31, 32, 33
"""As terminals number their colours."""
_SIZE: Final = os.terminal_size((80, 24))
LINE_MAX_BYTES: Final = 1 << 16
"""A longer line is shown as several."""
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*m")
_NOT_PLAIN: Final = re.compile(r"[^\x20-\x7e\n]|(?<=#)#(?=\[)")
_ERASED: Final = b"\r\x1b[K\x1b[C\x1b[J\r"
"""To the end of the screen: what a terminal that was made narrower broke into several rows goes as a whole.

From the second column on: of a screen that is erased from its very first one tmux keeps all in its history.
"""


def is_actions(environ: Mapping[str, str]) -> bool:
    """Return whether a runner of GitHub Actions started this process."""
    return environ.get("GITHUB_ACTIONS") == "true"


def is_debugging(environ: Mapping[str, str]) -> bool:
    """Return whether debug logging is on, as in a job that is re-run with it. Source: GitHub Docs, RUNNER_DEBUG."""
    return environ.get("RUNNER_DEBUG") == "1"


class Output:
    """stdout or stderr, for bytes that may be shown as they are; `file` is asked for it each time."""

    def __init__(self, file: Callable[[], TextIO | None]) -> None:
        self._file = file
        self.lost: OSError | None = None
        """Why nothing can be written any more."""

    def write(self, data: bytes) -> None:
        """Write all of it, or drop it where that is impossible; `flush` shows it."""
        left = data
        while left and (file := self._open_file()):
            try:
                file.buffer.write(left)
                left = b""
            except BlockingIOError as e:  # another program has made it one that does not wait
                left = left[e.characters_written :]
                os.set_blocking(file.fileno(), True)
            except (OSError, ValueError) as e:
                self._lose(file, e)

    def flush(self) -> None:
        """Flush everything that was written."""
        is_flushed = False
        while not is_flushed and (file := self._open_file()):
            try:
                file.flush()
                is_flushed = True
            except BlockingIOError:
                os.set_blocking(file.fileno(), True)
            except (OSError, ValueError) as e:
                self._lose(file, e)

    def require(self) -> None:
        """Raise `OutputError` where something that was written is lost; `BrokenPipeError` where nobody reads it."""
        if isinstance(self.lost, BrokenPipeError):
            raise self.lost
        if self.lost is not None:
            raise OutputError.of(self.lost)

    def is_terminal(self) -> bool:
        """Return whether a person looks at it."""
        file = self._open_file()
        return file is not None and file.isatty()

    def columns(self) -> int:
        """Return how wide the terminal is."""
        return self._size().columns or _SIZE.columns

    def lines(self) -> int:
        """Return how high the terminal is."""
        return self._size().lines or _SIZE.lines

    def _size(self) -> os.terminal_size:
        with suppress(OSError):  # it has gone
            if file := self._open_file():
                return os.get_terminal_size(file.fileno())
        return _SIZE

    def is_in_foreground(self) -> bool:
        """Return whether we may use the terminal's line: in a shell's background a person types there."""
        with suppress(OSError):  # it is not the terminal that controls us
            if file := self._open_file():
                return os.tcgetpgrp(file.fileno()) == os.getpgrp()
        return True

    def _open_file(self) -> TextIO | None:
        file = None if self.lost else self._file()
        if file is None and not self.lost:
            self.lost = OSError(errno.EBADF, "it is closed")
        return file

    def _lose(self, file: TextIO, error: OSError | ValueError) -> None:
        """Drop everything from now on, also what is still in the buffer when the interpreter exits."""
        self.lost = error if isinstance(error, OSError) else OSError(errno.EBADF, "it is closed")
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, file.fileno())
            os.close(nowhere)


class Console:
    """Two streams, and whether the runner of a job reads them, which the environment tells."""

    def __init__(self, stdout: Output, stderr: Output, environ: Mapping[str, str]) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self._environ = environ
        self._status: tuple[str, ...] = ()
        """The lines that are shown for now, as the last ones."""

    def out(self, *lines: str) -> None:
        """Print lines to stdout: what a command was asked for. Raises `OutputError` where it cannot be written."""
        self._print(self.stdout, map(line, lines))
        self.stdout.require()

    def table(self, rows: Sequence[Sequence[str]], colours: Mapping[str, int]) -> None:
        """Print rows to stdout, the head first. On a terminal they fit, and cells of these texts have their colour.

        Raises `OutputError` where they cannot be written.
        """
        terminal = self.stdout.is_terminal()
        shown = colours if terminal and not self._environ.get("NO_COLOR") else {}
        cells = padded(rows, self.stdout.columns() if terminal else None)
        self._print(self.stdout, ("  ".join(_coloured(line(cell), shown) for cell in row).rstrip() for row in cells))
        self.stdout.require()

    def err(self, *lines: str) -> None:
        """Print lines to stderr: what else a person should know."""
        self._print(self.stderr, map(line, lines))

    def debug(self, text: str) -> None:
        """Print a line to stderr where debug logging is on."""
        if is_debugging(self._environ):
            self.err(f"debug: {text}")

    def json(self, document: str) -> None:
        """Print a JSON document: the same values, with what could take effect written as `\\u001b`.

        Raises `OutputError` where it cannot be written.
        """
        self._print(self.stdout, [_NOT_PLAIN.sub(_escaped, document.removesuffix("\n"))])
        self.stdout.require()

    def commands(self, *lines: str) -> None:
        """Print commands for the runner, as `github.commands` makes them."""
        self._print(self.stdout, lines)

    def is_live(self) -> bool:
        """Return whether a line may be written over: a person looks at a terminal that can do that.

        The log of a job may come by way of a terminal; the environment tells.
        """
        is_job = self._environ.get("CI", "").lower() not in ("", "0", "false") or is_actions(self._environ)
        return self.stderr.is_terminal() and self._environ.get("TERM") != "dumb" and not is_job

    def status(self, *lines: str, colour: int | None = None) -> None:
        """Show lines on the terminal in place of those before; none take them away. What is printed does too.

        The cursor stays at their begin, also in a terminal that is made narrower, so that all can be erased:
        in most of them a line is several rows then, and in some it is cut.
        """
        columns = self.stderr.columns() - 1 if lines else 0
        shown = tuple(fitted(printable(text), columns) for text in lines)
        if shown == self._status:
            return
        before, self._status = self._status, shown
        if not self.stderr.is_in_foreground():
            self._status = ()
            return
        styled = (text if colour is None else f"\x1b[{colour}m{text}\x1b[0m" for text in shown)
        data = "\n".join(styled).encode(errors="backslashreplace") + b"\r" if shown else b""
        if len(shown) > 1:
            data += b"\x1b[%dA" % (len(shown) - 1)
        self.stderr.write((_ERASED if before else b"") + data)
        self.stderr.flush()

    def height(self) -> int:
        """Return how many lines the terminal has, of which `status` can have one less."""
        return self.stderr.lines()

    def erase_echo(self) -> None:
        """Take away what a terminal shows of a key, such as `^C`."""
        if self.is_live() and self.stderr.is_in_foreground():
            self._status = ()
            self.stderr.write(_ERASED)

    def leave(self) -> None:
        """Take the line away that `status` shows, in a program that a signal ends at once."""
        if self._status and self.stderr.is_in_foreground():
            os.write(2, _ERASED)

    def copy(self, chunks: Iterable[bytes], *, at_once: bool = False) -> None:
        """Write bytes to stdout, in order, each `at_once` if asked. Raises `OutputError` where that is impossible."""
        for chunk in chunks:
            self.stdout.write(chunk)
            if at_once:
                self.stdout.flush()
            self.stdout.require()
        self.stdout.flush()
        self.stdout.require()

    def quoted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what a user's program wrote: to a file or a pipe as it is, to a terminal or a job as harmless
        lines.
        """
        if not self.stdout.is_terminal() and not is_actions(self._environ):
            yield from chunks
            return
        kept = b""
        for chunk in chunks:
            data = kept + chunk
            whole = data.rfind(b"\n") + 1
            kept = data[whole:]
            yield _quoted(data[:whole])
            while len(kept) >= LINE_MAX_BYTES:
                yield _quoted(kept[:LINE_MAX_BYTES] + b"\n")
                kept = kept[LINE_MAX_BYTES:]
        yield _quoted(kept)

    def flush(self) -> None:
        """Flush everything that was written, before another program writes to the same streams."""
        self.stdout.flush()
        self.stderr.flush()

    def _print(self, output: Output, lines: Iterable[str]) -> None:
        if self._status and output.is_terminal():
            self.status()
        output.write("".join(f"{text}\n" for text in lines).encode(errors="backslashreplace"))
        output.flush()

    def is_lost_by(self, error: OSError) -> bool:
        """Return whether stdout cannot be written, for the same reason."""
        self.stdout.flush()
        return self.stdout.lost is not None and self.stdout.lost.errno == error.errno


def line(text: str) -> str:
    """Return a text as one line in which nothing takes effect; a line break in it is a space.

    Not only where the environment tells of a job: in a container, or behind a wrapper, it may not.
    """
    return escape_commands(printable(text))


def _coloured(cell: str, colours: Mapping[str, int]) -> str:
    colour = colours.get(cell.strip())
    return cell if colour is None else f"\x1b[{colour}m{cell}\x1b[0m"


def _quoted(data: bytes) -> bytes:
    """Return lines, the last one perhaps without its end; what was written over and colours go, the rest is shown."""
    lines = _COLOURS.sub("", data.decode(errors="replace")).split("\n")
    last_written = (text.rstrip("\r").rpartition("\r")[2] for text in lines)
    return "\n".join("\t".join(map(line, text.split("\t"))) for text in last_written).encode()


def _escaped(found: re.Match[str]) -> str:
    """Return a character as JSON has it escaped, if it is one of those that take effect; `##[` begins a command."""
    character = found[0]
    if character != "#" and character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def occupy_closed_streams() -> None:
    """Open what is closed of stdin, stdout and stderr on nothing: else a file of this program would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


console: Final = Console(Output(lambda: sys.stdout), Output(lambda: sys.stderr), os.environ)
"""That of this process."""
