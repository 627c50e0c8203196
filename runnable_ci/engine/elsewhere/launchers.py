"""How workers are started elsewhere: one interface of four verbs, and the launcher that only starts a command.

A launcher is asked whether a worker still runs, and why it does not. Nothing that it says is a result: only what a
worker wrote itself counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.runs.elsewhere.places import ElsewhereFolder, read_note, write_note
from runnable_ci.util.process import Supervisor, end_outliving, start_time
from runnable_ci.util.text import printable

_MIB: Final = 1 << 20
_LINES_SAID: Final = 3
_TAIL_BYTES: Final = 4096


class Handle(NamedTuple):
    """A worker that was started, by what it is asked for; kept in the store, for an invocation that attaches to it."""

    worker: str
    executor: str
    pid: int = 0
    """Of the process on this machine that leads to it; 0 where there is none."""
    started: str = ""
    """When that process started, so that no other one is taken for it."""
    host: str = ""
    """The machine that this process is on."""
    job: str = ""
    """How its scheduler names it, where it is known."""

    def keep(self, folder: ElsewhereFolder) -> None:
        """Write it down."""
        write_note(folder.worker(self.worker), **self._asdict())

    @classmethod
    def read(cls, path: Path) -> Handle | None:
        """Return a handle that was written down; None for what is none."""
        found: dict[str, Any] = read_note(path)
        try:
            return cls(**{name: found[name] for name in cls._fields})
        except KeyError:
            return None


class Launcher(Protocol):
    """Starts workers of one executor, follows them and ends them."""

    look_s: float
    """How often to ask at most."""

    @property
    def starts_many(self) -> bool:
        """Whether many workers are started as easily as one, and wait where there is no room for them."""

    def start(self, queue: Path | str, workers: Sequence[str], share: Share, *, stays: bool) -> list[Handle]:
        """Start workers of a queue, each with the resources of a share. Raises `StepError`."""

    def alive(self, handles: Collection[Handle]) -> Mapping[str, str]:
        """Return which of these workers are gone, and as far as it is known why."""

    def know_job(self, worker: str, job: Mapping[str, str]) -> None:
        """Know in which job of a scheduler a worker found itself."""

    def reason(self, worker: str) -> str | None:
        """Return why a scheduler ended a worker: empty where it did not, None where there is no scheduler."""

    def last_reason(self, worker: str) -> str | None:
        """Return why a scheduler ended a worker that is lost, empty where nobody knows; None: it may find out yet."""

    def awaited(self, handles: Sequence[Handle]) -> str:
        """Return what workers that have not begun wait for; empty where no scheduler has them wait."""

    def withdraw(self, handles: Collection[Handle]) -> None:
        """Let go of those workers that have not begun."""

    def stop(self, handles: Collection[Handle]) -> None:
        """End workers that did not end when they were asked to."""

    def attach(self, handles: Collection[Handle]) -> None:
        """Follow workers that an earlier invocation started."""


def worker_command(executor: Executor, queue: Path | str, worker: str, *, stays: bool) -> list[str]:
    """Return the command that a launcher starts; `queue` is a letter's address where the machines share no folder."""
    project = ["--project", executor.project] if executor.project else []
    return [*executor.program, "attempt", str(queue), worker, *(["--stays"] if stays else []), *project]


@dataclass(slots=True, eq=False, repr=False)
class CommandLauncher:
    """Starts each worker by a command, such as `ssh node {}`: it runs as long as that does."""

    executor: Executor
    supervisor: Supervisor
    folder: ElsewhereFolder
    cwd: Path
    environ: Mapping[str, str]
    host: str
    look_s: float = 0.2
    _gone: dict[str, str] = field(default_factory=dict)

    @property
    def starts_many(self) -> bool:
        """Return False: each worker is a process on this machine too."""
        return False

    def start(self, queue: Path | str, workers: Sequence[str], share: Share, *, stays: bool) -> list[Handle]:
        """Start a process for each worker."""
        return [self._start(queue, worker, share, stays=stays) for worker in workers]

    def _start(self, queue: Path | str, worker: str, share: Share, *, stays: bool) -> Handle:
        words = self.executor.launch(worker_command(self.executor, queue, worker, stays=stays))
        return self.start_process([with_share(word, share) for word in words], worker)

    def start_process(self, argv: Sequence[str], worker: str) -> Handle:
        """Start a process that leads to a worker."""
        pid = self.supervisor.start_apart(argv, cwd=self.cwd, env=self.environ, output=self.folder.output(worker))
        return Handle(worker, self.executor.name, pid, start_time(pid), self.host)

    def alive(self, handles: Collection[Handle]) -> Mapping[str, str]:
        """Return the workers whose process has ended, with what it said last."""
        self.supervisor.reap()
        return {it.worker: self.last_lines(it.worker) for it in handles if not self.runs(it)}

    def runs(self, handle: Handle) -> bool:
        """Return whether the process of a worker runs; on another machine nobody can tell, and it counts as gone."""
        return handle.host == self.host and bool(handle.pid) and start_time(handle.pid) == handle.started != ""

    def know_job(self, worker: str, job: Mapping[str, str]) -> None:
        """Pass over it: a command has no scheduler."""

    def reason(self, worker: str) -> str | None:  # noqa: ARG002 - whichever it is
        """Return None: a command has no scheduler."""
        return None

    def last_reason(self, worker: str) -> str | None:  # noqa: ARG002 - whichever it is
        """Return nothing: a command has no scheduler."""
        return ""

    def awaited(self, handles: Sequence[Handle]) -> str:  # noqa: ARG002 - whichever they are
        """Return nothing: a command has no scheduler."""
        return ""

    def withdraw(self, handles: Collection[Handle]) -> None:
        """Do nothing: a command begins at once."""

    def stop(self, handles: Collection[Handle]) -> None:
        """Kill the processes."""
        own = {it.pid: it.started for it in handles if it.host == self.host and it.pid}
        if own:
            end_outliving(own, ())

    def attach(self, handles: Collection[Handle]) -> None:
        """Nothing is needed: a process is found by its number."""

    def last_lines(self, worker: str) -> str:
        """Return what a worker's process said last, in one line."""
        try:
            with self.folder.output(worker).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        said = [printable(line.strip()) for line in lines if line.strip()]
        return "; ".join(said[-_LINES_SAID:])


def with_share(word: str, share: Share) -> str:
    """Return a word of a command with `{cpus}`, `{memory}` (MiB) and `{gpus}` replaced by what a step takes."""
    values = {"{cpus}": share.cpus, "{memory}": -(-share.memory // _MIB), "{gpus}": share.gpus}
    for place, value in values.items():
        word = word.replace(place, str(value))
    return word
