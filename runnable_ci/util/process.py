"""The only place that starts processes: output as it comes, time limits, and an end for the whole process group."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from runnable_ci.errors import TOO_LITTLE, RunnableError, StepError, SystemCallError
from runnable_ci.util.console import console
from runnable_ci.util.leftovers import PS, Leftover, ProcessTable, adopt_orphans, kill_all, read_proc, reap
from runnable_ci.util.process_output import Finished, ProcessReader, Stream, exchange

GRACE_S = 2.0
"""How long a group may take to end after a signal before the next, harder one. GitHub allows 10 s for all."""
DRAIN_S = 1.0
"""How long output is awaited from what a finished process left running in the background."""
_SETTLE_S = 1.0
"""`settle` is called at least so often."""
Ended = Callable[[], signal.Signals | None]
_NOT_STARTED: Final = (OSError, ValueError, MemoryError, subprocess.SubprocessError)


class Exit(NamedTuple):
    """How a process ended: its exit code, or the negative number of the signal that ended it."""

    code: int
    timed_out: bool = False
    cancelled: bool = False
    ended: tuple[Leftover, ...] = ()
    """What it left running, and was ended with it."""


def _signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to all processes of a group, unless they are gone or another user's. Safe in a signal handler."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class Supervisor:
    """Starts processes in groups of their own, from any thread, and can end them all at once.

    A group that does not end by a signal gets a harder one after `grace_s` seconds; `send` sends it.
    """

    def __init__(
        self, *, grace_s: float = GRACE_S, send: Callable[[int, signal.Signals], None] = _signal_group
    ) -> None:
        self._grace_s = grace_s
        self._send = send
        self.cancelled_by: signal.Signals | None = None
        self._killed_by: signal.Signals | None = None  # by the second signal
        self._wake_read, self._wake_write = os.pipe()
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        adopt_orphans()
        self._table = ProcessTable(processes_of_ps)
        self._running = set[object]()
        """A token for each program that is being started or runs, or that could leave what it likes."""

    @property
    def is_killing(self) -> bool:
        """Whether a second signal came: nothing is waited for any more."""
        return self._killed_by is not None

    def start_apart(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path) -> int:
        """Start a program that may outlive this one, and whose output goes to a file; its pid.

        Neither the end of a step nor `cancel` ends it. Raises `StepError` where it cannot be started.
        """
        with self._lock, output.open("ab") as file:
            self._running.add(output)  # from now on nothing that is adopted is a step's: it may be this program's
            null = subprocess.DEVNULL
            try:
                process = subprocess.Popen(
                    argv, cwd=cwd, env=env, stdin=null, stdout=file, stderr=file, start_new_session=True
                )
            except _NOT_STARTED as e:
                raise _start_error(argv, cwd, e) from e
            self._table.spare(process.pid)
            process.returncode = 0  # `reap` takes its end
            return process.pid

    def close(self) -> None:
        """Close the pipe; no process may be running."""
        for end in filter(lambda it: it >= 0, (self._wake_read, self._wake_write)):
            os.close(end)

    def cancel(self, by: signal.Signals) -> None:
        """End all processes: `by` first, harder signals later; a second call kills. Safe in a signal handler."""
        again = self.cancelled_by is not None
        self.cancelled_by, self._killed_by = by, signal.SIGKILL if again else None
        for group in tuple(self._groups):
            self._send(group, signal.SIGKILL if again else by)
        end, self._wake_write = self._wake_write, -1
        if end >= 0:
            os.close(end)

    def end_for_good(self) -> None:
        """Kill all processes; none is started any more, and no `run` returns: this program is about to end."""
        self._lock.acquire()
        self.cancel(signal.SIGKILL)
        self.cancel(signal.SIGKILL)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: Callable[[Stream, bytes], None],
        settle: Callable[[], None] = lambda: None,
        started: Callable[[int], None] = lambda _: None,
        timeout_s: float | None = None,
        mark: str = "",
        though_cancelled: bool = False,
    ) -> Exit:
        """Run a program to its end, handing over each chunk of its output; `started` gets its pid.

        What it leaves running is ended with it if there is a `mark`, which must stand in `env`. With `though_cancelled`
        only a second `cancel` ends it. After each chunk the other pipe is looked at once more and `settle` called:
        what was written before the chunk is handed over by now. Raises `StepError` where it cannot be started.
        """
        token = object()
        ended_by: Ended = (lambda: self._killed_by) if though_cancelled else (lambda: self.cancelled_by)
        with self._lock:
            if by := ended_by():
                return Exit(-by, cancelled=True)
            self._running.add(token)  # before it runs: nobody else's end may take what it starts for its own
            process = self._start(argv, cwd, env, token)
            if by := ended_by():  # while it was started: that signal went to the others only
                self._send(process.pid, by)
        try:
            try:
                reader = ProcessReader(process, self._wake_read)
            except _NOT_STARTED as e:
                raise _start_error(argv, cwd, e) from e
            with closing(reader):
                started(process.pid)
                ended = self._supervise(process, reader, output, settle, timeout_s, ended_by)
                if not mark:
                    token = None  # what it left may be adopted at any time
                    return ended
                self._running.discard(token)
                return ended._replace(ended=self._end_left(process.pid, mark, ended, output))
        except BaseException:
            self._send(process.pid, signal.SIGKILL)
            try:
                process.wait(self._grace_s)
            except subprocess.TimeoutExpired:
                _abandon(process)
            raise
        finally:
            with self._lock:
                self._groups.discard(process.pid)
                self._running.discard(token)

    def _start(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], token: object) -> subprocess.Popen[bytes]:
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
        except _NOT_STARTED as e:
            self._running.discard(token)
            raise _start_error(argv, cwd, e) from e
        self._groups.add(process.pid)
        return process

    def _supervise(
        self,
        process: subprocess.Popen[bytes],
        reader: ProcessReader,
        output: Callable[[Stream, bytes], None],
        settle: Callable[[], None],
        timeout_s: float | None,
        ended_by: Ended,
    ) -> Exit:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        escalation: list[tuple[float, signal.Signals | None]] = []
        timed_out = escalated = False
        drain_until = 0.0
        reap_at = time.monotonic() + _SETTLE_S
        heard = False
        while reader.open_pipes or not reader.exited:
            waits = [_SETTLE_S, *(moment - time.monotonic() for moment, _ in escalation[:1])]
            if deadline is not None:
                waits.append(deadline - time.monotonic())
            if reader.exited:
                waits.append(drain_until - time.monotonic())
            if heard:
                waits.append(0.0)
            heard = False
            for stream, chunk in reader.read(max(0.0, min(waits))):
                output(stream, chunk)
                heard = True
            settle()
            now = time.monotonic()
            if now >= reap_at:
                reap_at = now + _SETTLE_S
                self.reap()
            if (by := ended_by()) and not escalated:
                escalated, escalation, deadline = True, self._escalation(by), None
            if reader.exited and not drain_until:
                drain_until, deadline, escalation = now + DRAIN_S, None, []
            if reader.exited and now >= drain_until:
                break
            if deadline is not None and now >= deadline:
                timed_out, deadline = True, None
                escalation = self._one_by_one(now, signal.SIGTERM, signal.SIGKILL)
            while escalation and now >= escalation[0][0]:
                _, number = escalation.pop(0)
                if number is None:
                    output("e", f"process {process.pid} survives SIGKILL: it is left running\n".encode())
                    _abandon(process)
                    self._table.spare(process.pid)
                    return Exit(-signal.SIGKILL, timed_out=timed_out, cancelled=ended_by() is not None)
                self._send(process.pid, number)
        code = process.wait()
        cancelled = ended_by() is not None
        if timed_out or cancelled:
            self._send(process.pid, signal.SIGKILL)
        return Exit(code, timed_out=timed_out, cancelled=cancelled)

    def _end_left(
        self, group: int, mark: str, exited: Exit, output: Callable[[Stream, bytes], None]
    ) -> tuple[Leftover, ...]:
        """End what a program left running; return what did not end by itself."""
        is_urgent = exited.cancelled or exited.timed_out
        ended = tuple(
            self._table.end(
                group,
                mark,
                grace_s=self._grace_s,
                is_urgent=lambda: is_urgent or self.cancelled_by is not None,
                leaders=self._groups,
                is_alone=lambda: not self._running,
            )
        )
        left = self._table.left(group, mark) if ended else []
        for process in left:
            output("e", f"process {process.pid} survives SIGKILL: it is left running\n".encode())
            self._table.spare(process.pid)
        self.reap()
        return tuple(process for process in ended if process not in left)

    def reap(self) -> None:
        """Let what has ended and was adopted, or started apart, go."""
        with self._lock:  # else one that has just been started might be among them
            reap(self._groups)

    def _escalation(self, by: signal.Signals) -> list[tuple[float, signal.Signals | None]]:
        harder = (signal.SIGTERM, signal.SIGKILL) if by == signal.SIGINT else (signal.SIGKILL,)
        return self._one_by_one(time.monotonic() + self._grace_s, *harder)

    def _one_by_one(self, begin: float, *signals: signal.Signals) -> list[tuple[float, signal.Signals | None]]:
        """Yield when to send which signal. None: nothing can end it, such as another user's program (sudo)."""
        return [(begin + i * self._grace_s, number) for i, number in enumerate((*signals, None))]


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Stop waiting for a process, even when the interpreter discards its object."""
    process.returncode = -signal.SIGKILL


def check_output(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float) -> bytes | None:
    """Return the stdout of a short program; None where it cannot be started, fails or takes too long."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, MemoryError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def run_with_input(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str]) -> Finished:
    """Run a short program that reads `stdin`. Raises `OSError`, `MemoryError`."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


def run_bounded(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str], timeout_s: float, most: int) -> Finished:
    """Run a program that reads a short `stdin`; it and its group are ended after `timeout_s`, or `most` bytes written.

    Raises `OSError`, `MemoryError`, `TimeoutError`, `OverflowError`.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            return exchange(process, stdin, until_s=time.monotonic() + timeout_s, most_bytes=most)
        except BaseException:
            _signal_group(process.pid, signal.SIGKILL)
            raise


def run_together(commands: Iterable[Sequence[str]], *, env: Mapping[str, str]) -> list[Finished]:
    """Run short programs that read nothing at the same time. Raises `OSError`, `MemoryError`."""
    with ExitStack() as ending:
        started: list[subprocess.Popen[bytes]] = []
        for argv in commands:
            process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            ending.enter_context(process)
            started.append(process)
        try:
            outputs = [process.communicate() for process in started]
        except BaseException:
            for process in started:
                process.kill()
            raise
    return [Finished(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def exec_program(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process by another program, so that signals sent to this one reach it."""
    console.flush()
    try:
        os.execve(argv[0], list(argv), dict(env))  # noqa: S606 - no shell is what is wanted
    except OSError as e:
        error = _start_error(argv, Path.cwd(), e)
        raise RunnableError(error.message, hint=error.hint) from e


def start_time(pid: int) -> str:
    """Return when a process was started, according to the system: with the pid its identity. Empty if unknown."""
    return _start_in_proc(pid) if sys.platform == "linux" else start_by_ps(pid)


def _start_in_proc(pid: int) -> str:
    try:
        stat = read_proc(f"{pid}/stat")
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] == b"Z" else fields[19].decode()


def start_by_ps(pid: int) -> str:
    """Return the start time to the second, on any system that has `ps`."""
    argv = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    answer = check_output(argv, cwd=Path("/"), env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, timeout_s=5) or b""
    state, _, started = " ".join(answer.decode(errors="replace").split()).partition(" ")
    return "" if state.startswith("Z") else started


def oom_kills() -> int:
    """Return how many processes the system has ended for lack of memory since it started; 0 where it does not say."""
    try:
        _, _, after = read_proc("vmstat").partition(b"\noom_kill ")
    except OSError:
        return 0
    return int(after.partition(b"\n")[0] or b"0")


def processes_of_ps() -> bytes:
    """Return what `PS` prints, on any system that has it; empty where that fails."""
    return check_output(PS, cwd=Path("/"), env={"PATH": os.defpath, "LC_ALL": "C"}, timeout_s=5) or b""


def end_outliving(started: Mapping[int, str], marks: Collection[str]) -> None:
    """Kill what outlived its run: programs by their pids, where they started at these times, and all that has a mark.

    All that they started is ended with them.
    """
    leaders = {pid for pid, time_text in started.items() if time_text and start_time(pid) == time_text}
    if leaders or marks:
        kill_all(leaders, marks, listed=processes_of_ps, within_s=GRACE_S)


def _start_error(argv: Sequence[str], cwd: Path, e: Exception) -> StepError:
    if not cwd.is_dir():
        return StepError(f"the working directory {cwd} does not exist")
    match e:
        case FileNotFoundError():
            return StepError(f"`{argv[0]}` is not installed, or not on PATH")
        case MemoryError() | OSError(errno=errno.EAGAIN | errno.ENOMEM):
            reason, hint = "the system allows no more processes", TOO_LITTLE
        case OSError():
            reason = e.strerror or str(e)
            hint = SystemCallError.of(e).hint
        case _:
            reason, hint = "an argument or a variable of its environment holds a NUL", ""
    return StepError(f"`{argv[0]}` cannot be started: {reason}", hint=hint)
