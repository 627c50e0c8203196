"""The only place that starts processes: output as it comes, time limits, and an end for the whole process group."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from runnable_ci.errors import StepError

Stream = Literal["o", "e"]
"""Which of the two a chunk of output came from: stdout or stderr."""

GRACE_S = 2.0
"""How long a group may take to end after a signal before the next, harder one. GitHub allows 10 s for all."""
DRAIN_S = 1.0
"""How long output is awaited from what a finished process left running in the background."""
_READ_BYTES = 1 << 16
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code, or the negative number of the signal that ended it."""

    code: int
    timed_out: bool = False
    cancelled: bool = False


class Supervisor:
    """Starts processes in groups of their own, from any thread, and can end them all at once.

    A group that does not end by a signal gets a harder one after `grace_s` seconds.
    """

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self.cancelled_by: signal.Signals | None = None
        self._wake_read, self._wake_write = os.pipe()
        self._groups: set[int] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give back the pipe; no process may be running."""
        os.close(self._wake_read)
        if self._wake_write >= 0:
            os.close(self._wake_write)

    def cancel(self, by: signal.Signals) -> None:
        """End all processes: `by` first, harder signals later; a second call kills. Safe in a signal handler."""
        again = self.cancelled_by is not None
        self.cancelled_by = by
        for group in tuple(self._groups):
            _signal_group(group, signal.SIGKILL if again else by)
        if self._wake_write >= 0:
            os.close(self._wake_write)
            self._wake_write = -1

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: Callable[[Stream, bytes], None],
        started: Callable[[int], None] = lambda _: None,
        timeout_s: float | None = None,
    ) -> Exit:
        """Run a program to its end, handing over each chunk of its output; `started` gets its pid.

        Raises `StepError` where it cannot be started.
        """
        with self._lock:
            if self.cancelled_by:
                return Exit(-self.cancelled_by, cancelled=True)
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                )
            except (OSError, ValueError) as e:
                raise _start_error(argv, cwd, e) from e
            self._groups.add(process.pid)
            if self.cancelled_by:  # while it was started: that signal went to the others only
                _signal_group(process.pid, self.cancelled_by)
        try:
            started(process.pid)
            return self._attend(process, output, timeout_s)
        except BaseException:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            self._groups.discard(process.pid)
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()

    def _attend(
        self, process: subprocess.Popen[bytes], output: Callable[[Stream, bytes], None], timeout_s: float | None
    ) -> Exit:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        escalation: list[tuple[float, signal.Signals]] = []
        timed_out = False
        with _exit_descriptor(process.pid) as exit_descriptor, selectors.DefaultSelector() as selector:
            for pipe, stream in ((process.stdout, "o"), (process.stderr, "e")):
                if pipe:
                    selector.register(pipe.fileno(), selectors.EVENT_READ, stream)
            selector.register(self._wake_read, selectors.EVENT_READ, "cancel")
            if exit_descriptor is not None:
                selector.register(exit_descriptor, selectors.EVENT_READ, "exit")
            open_pipes = 2
            exited = False
            drain_until = 0.0
            while open_pipes or not exited:
                waits = [moment - time.monotonic() for moment, _ in escalation[:1]]
                if deadline is not None:
                    waits.append(deadline - time.monotonic())
                if exited:
                    waits.append(drain_until - time.monotonic())
                elif exit_descriptor is None or not open_pipes:
                    waits.append(_POLL_S)
                for key, _ in selector.select(max(0.0, min(waits)) if waits else None):
                    match key.data:
                        case "cancel":
                            selector.unregister(self._wake_read)
                            escalation = self._harder_than(self.cancelled_by or signal.SIGTERM)
                        case "exit":
                            selector.unregister(key.fd)
                            exited = True
                        case stream:
                            if chunk := os.read(key.fd, _READ_BYTES):
                                output(stream, chunk)
                            else:
                                selector.unregister(key.fd)
                                open_pipes -= 1
                if not exited and (exit_descriptor is None or not open_pipes):
                    exited = process.poll() is not None
                now = time.monotonic()
                if exited and not drain_until:
                    drain_until, deadline, escalation = now + DRAIN_S, None, []
                if exited and now >= drain_until:
                    break
                if deadline is not None and now >= deadline:
                    timed_out, deadline = True, None
                    escalation = [(now, signal.SIGTERM), (now + self._grace_s, signal.SIGKILL)]
                while escalation and now >= escalation[0][0]:
                    _signal_group(process.pid, escalation.pop(0)[1])
        code = process.wait()
        cancelled = self.cancelled_by is not None
        if timed_out or cancelled:
            _signal_group(process.pid, signal.SIGKILL)
        return Exit(code, timed_out=timed_out, cancelled=cancelled)

    def _harder_than(self, by: signal.Signals) -> list[tuple[float, signal.Signals]]:
        soon = time.monotonic() + self._grace_s
        if by == signal.SIGINT:
            return [(soon, signal.SIGTERM), (soon + self._grace_s, signal.SIGKILL)]
        return [(soon, signal.SIGKILL)]


def capture(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> bytes | None:
    """The stdout of a short program; None where it cannot be started, fails or takes too long."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Go on as another program: the same process, so that signals meant for this one reach it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is what is wanted


def start_time(pid: int) -> str:
    """When a process was started, as the kernel counts it: with the pid its identity. Empty where it is not known."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        stat = os.read(file, 4096)
        os.close(file)
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] == b"Z" else fields[19].decode()


def end_group(pid: int, started: str) -> bool:
    """Kill the process group of a step that outlived its run; False where that process is gone."""
    if not started or start_time(pid) != started:
        return False
    _signal_group(pid, signal.SIGKILL)
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@contextlib.contextmanager
def _exit_descriptor(pid: int) -> Iterator[int | None]:
    """A descriptor that is readable once the process has ended; None where the system has none (macOS)."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _start_error(argv: Sequence[str], cwd: Path, e: OSError | ValueError) -> StepError:
    if not cwd.is_dir():
        return StepError(f"the working directory {cwd} does not exist")
    if isinstance(e, FileNotFoundError):
        return StepError(f"`{argv[0]}` is not installed, or not on PATH")
    reason = e.strerror if isinstance(e, OSError) else "an argument or a variable of its environment holds a NUL"
    return StepError(f"`{argv[0]}` cannot be started: {reason}")
