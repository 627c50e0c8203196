"""What a process writes, as it comes, and that it has ended."""

from __future__ import annotations

import os
import selectors
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import IO, Literal, NamedTuple, Protocol

Stream = Literal["o", "e"]
"""Which of the two a chunk of output came from: stdout or stderr."""

_READ_BYTES = 1 << 16
_POLL_S = 0.05
_FIRST_POLL_S = 0.001


class Process(Protocol):
    """A started process whose output goes into two pipes."""

    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""

    def wait(self) -> int:
        """Wait for its end, and return how it ended."""


class Finished(NamedTuple):
    """A program that ran to its end, and all that it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


class _Poll:
    """How long to wait before the next look at a process."""

    def __init__(self) -> None:
        self._soon_s = _FIRST_POLL_S

    def within(self, timeout_s: float | None, *, soon: bool) -> float:
        """Return a pause, shorter where the end is to be expected soon, at most the time that there is."""
        pause_s = self._soon_s if soon else _POLL_S
        if soon:
            self._soon_s = min(2 * self._soon_s, _POLL_S)
        return pause_s if timeout_s is None else min(timeout_s, pause_s)


class ProcessReader:
    """Waits for everything at once: for both pipes, for the end, and for a byte or an end in `wake`."""

    def __init__(self, process: Process, wake: int) -> None:
        self.open_pipes = 0
        self.exited = False
        self._process = process
        self._poll = _Poll()
        with ExitStack() as held:  # given back at once where this fails
            for pipe, _ in _pipes(process):
                held.callback(pipe.close)
            self._selector = held.enter_context(selectors.PollSelector())
            for pipe, stream in _pipes(process):
                self._selector.register(pipe.fileno(), selectors.EVENT_READ, stream)
                self.open_pipes += 1
            self._selector.register(wake, selectors.EVENT_READ, "wake")
            self._exit = _exit_descriptor(process.pid)
            if self._exit is not None:
                held.callback(os.close, self._exit)
                self._selector.register(self._exit, selectors.EVENT_READ, "exit")
            self._held = held.pop_all()

    def read(self, timeout_s: float | None) -> Iterator[tuple[Stream, bytes]]:
        """Yield chunks of output, once there is news or the time is over; None: as long as it takes."""
        if not self.exited and (self._exit is None or not self.open_pipes):
            timeout_s = self._poll.within(timeout_s, soon=not self.open_pipes)
        for key, _ in self._selector.select(timeout_s):
            match key.data:
                case "wake":
                    self._selector.unregister(key.fd)
                case "exit":
                    self._selector.unregister(key.fd)
                    self.exited = True
                case stream:
                    if chunk := os.read(key.fd, _READ_BYTES):
                        yield stream, chunk
                    else:
                        self._selector.unregister(key.fd)
                        self.open_pipes -= 1
        if not self.exited and (self._exit is None or not self.open_pipes):
            self.exited = self._process.poll() is not None

    def close(self) -> None:
        """Close the pipes: what the process left running can no longer write to them."""
        self._held.close()


def exchange(process: Process, stdin: bytes, *, until_s: float, most_bytes: int) -> Finished:
    """Send a short input to a process that began; return how it ended and all that it wrote.

    Raises `TimeoutError`, and `OverflowError` for more than `most_bytes` in one of them.
    """
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin as pipe:  # it may do without
            pipe.write(stdin)
    written: dict[Stream, bytearray] = {"o": bytearray(), "e": bytearray()}
    never, wake = os.pipe()
    try:
        with closing(ProcessReader(process, never)) as reader:
            while reader.open_pipes or not reader.exited:
                for stream, chunk in reader.read(max(0.0, until_s - time.monotonic())):
                    written[stream] += chunk
                    if len(written[stream]) > most_bytes:
                        raise OverflowError(f"more than {most_bytes} bytes of output")
                if time.monotonic() >= until_s:
                    raise TimeoutError("not finished in time")
    finally:
        os.close(never)
        os.close(wake)
    return Finished(process.wait(), bytes(written["o"]), bytes(written["e"]))


def _pipes(process: Process) -> Iterator[tuple[IO[bytes], Stream]]:
    if process.stdout:
        yield process.stdout, "o"
    if process.stderr:
        yield process.stderr, "e"


def _exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that is readable once the process has ended; None where the system has none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
