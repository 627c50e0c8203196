"""A run of a registry, as `show` and `logs` read it: by now, or again and again while another machine writes it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.cli.show.attempts import chosen_attempts, nothing_written
from runnable_ci.cli.show.follow import write_parts
from runnable_ci.cli.show.output import logs
from runnable_ci.cli.show.run import show
from runnable_ci.cli.show.watching import steps_now
from runnable_ci.config import Settings
from runnable_ci.errors import ManifestNotFoundError, RegistryAuthError, StoreError
from runnable_ci.runs.branches.labels import find_step, labels_of, step_named
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.live.life_sign import LifeSign
from runnable_ci.runs.model import PROCESSING, RunLog, StepAttempt
from runnable_ci.runs.reader import output_of
from runnable_ci.runs.remote.pull import FoundRun, Origin, fetch, find, take
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.store.local import Layout
from runnable_ci.store.target import DIGEST, Descriptor
from runnable_ci.util.clock import now
from runnable_ci.util.console import console
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import format_elapsed, listed

LEAST_PAUSE_S: Final = 3.0
MOST_PAUSE_S: Final = 30.0
"""Where nothing is new the pauses become longer, up to this."""
_LONGER: Final = 1.5
_TICK_S: Final = 1.0
_TROUBLES_MAX: Final = 5


@dataclass(slots=True, eq=False)
class RemoteRun:
    """A run of a registry, and a folder for what came of it."""

    layout: Layout
    found: FoundRun
    is_fixed: bool
    """Whether it was named by its digest: nothing else will ever be there."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    trouble: str = ""
    """Why the registry could not be asked the last time."""
    _seen: str = ""
    _troubles: int = 0

    @property
    def log(self) -> RunLog:
        """As it was when it was last read."""
        return self.found.log

    def is_running(self) -> bool:
        """Return whether another part of the run is expected."""
        return self.log.status == PROCESSING and self.found.writer_now() is not None and not self.is_fixed

    def look(self) -> bool:
        """Read the run again if it was published since; return whether its log is another one.

        Where nothing was published, that is one request. Raises `StoreError`, `RunLogError`.
        """
        registry, before = self.found.registry, self.log
        newest = registry.resolve(before.run_id).digest  # each publish moves this tag
        if newest == self._seen:
            return False
        self.found = find(registry, before.run_id, layout=self.layout)
        self._seen = newest
        return self.log != before

    def logs(self, shown: Callable[[], None] = lambda: None) -> Iterator[RunLog]:
        """Yield the log, and then each later one, until no other is expected. In between `shown` is called each second.

        Raises as `look`, of a registry that does not answer after some tries.
        """
        yield self.log
        pause_s = LEAST_PAUSE_S
        while self.is_running():
            until_s = self.clock() + pause_s
            while (left_s := until_s - self.clock()) > 0:
                shown()
                self.sleep(min(_TICK_S, left_s))
            is_new = self._try_to_look()
            pause_s = LEAST_PAUSE_S if is_new else min(MOST_PAUSE_S, pause_s * _LONGER)
            if is_new:
                yield self.log

    def _try_to_look(self) -> bool:
        try:
            is_new = self.look()
        except (RegistryAuthError, ManifestNotFoundError):
            raise
        except StoreError as e:
            self._troubles += 1
            if self._troubles > _TROUBLES_MAX:
                raise
            self.trouble = e.message
            return False
        self.trouble, self._troubles = "", 0
        return is_new

    def last_sign(self) -> LifeSign | None:
        """Return the newest sign of life in the run's parts; None where it has none."""
        signs = [part.sign for part in self.found.parts if part.sign is not None]
        return max(signs, key=lambda sign: sign.at_s, default=None)

    def heard(self) -> str:
        """Return when something was heard of who writes the run; empty of a run that is over."""
        if self.log.status != PROCESSING or (sign := self.last_sign()) is None:
            return ""
        if (writer := self.found.writer_now()) is None:
            return f"nothing was heard of run {self.log.run_id} any more: {sign}"
        ago = format_elapsed(max(0.0, self.found.registry.now_s() - sign.at_s))
        return f"heard {ago} ago, again by {sign.next_by}: {writer.writer}"

    def output_of(self, name: str, attempt: StepAttempt) -> Iterator[tuple[Stream, bytes]]:
        """Yield what an attempt that has ended wrote, fetched now."""
        if (kept := attempt.log) is None:
            return
        packs = PackIndex(self.log.packs)
        wanted = [packs.blob_of(kept.data_hash, kept.size)]
        if kept.index_hash:
            wanted.append(packs.blob_of(kept.index_hash, kept.index_size))
        self._fetch(wanted)
        yield from output_of(self.layout, self.log, f"{name}.{attempt.attempt_number}", attempt)

    def _fetch(self, wanted: list[Descriptor]) -> None:
        registry = self.found.registry
        origin = Origin(registry.label, tuple(part.manifest.digest for part in self.found.parts))
        fetch(self.layout, registry, origin, wanted)


@contextmanager
def opened_run(run: str, settings: Settings, environ: Mapping[str, str]) -> Iterator[RemoteRun]:
    """Find a run by its reference; what comes of it is in a folder that is removed in the end.

    Raises `RunNotFoundError`, `UsageError`, `StoreError`.
    """
    registry, reference = Registries(settings, environ).run(run, None)
    with tempfile.TemporaryDirectory(prefix="runnable-show-") as folder:
        layout = Layout(Path(folder) / ".runnable")
        layout.create()
        found = find(registry, reference, layout=layout)
        yield RemoteRun(layout, found, bool(DIGEST.fullmatch(reference.rpartition("@")[2])))


def show_published(
    run: str,
    step: str | None,
    *,
    reads: bool,
    as_json: bool,
    watched: bool,
    settings: Settings,
    environ: Mapping[str, str],
) -> None:
    """Print a run of a registry as `show` does; one that is `watched` when nobody writes it any more."""
    with opened_run(run, settings, environ) as remote:
        if watched:
            watch(remote)
        if heard := remote.heard():
            console.err(f"note: {heard}")
        taken = take(remote.layout, remote.found, only_log=True)
        where = f"{remote.found.registry.label}:{taken.run_id}"
        show(remote.layout, taken.run_id, step, reads=reads, as_json=as_json, where=where)


def watch(remote: RemoteRun) -> None:
    """Return once no other part of the run is expected; on a terminal its steps are shown until then."""

    def shown() -> None:
        if console.is_live():
            trouble = [f"{remote.found.registry.label}: {remote.trouble}"] if remote.trouble else []
            lines = [remote.heard(), *trouble]
            console.status(*steps_now(remote.log, now(), lines=console.height() - 1 - len(lines)), *lines)

    try:
        for _ in remote.logs(shown):
            shown()
    finally:
        console.status()


def logs_published(
    run: str,
    step: str | None,
    *,
    attempt: int | None,
    stdout: bool,
    stderr: bool,
    followed: bool,
    settings: Settings,
    environ: Mapping[str, str],
) -> None:
    """Print what the steps of a run in a registry wrote; of one that is `followed` each attempt when it has ended."""
    stream: Stream | None = None if stdout == stderr else "o" if stdout else "e"
    with opened_run(run, settings, environ) as remote:
        if followed:
            write_parts(PublishedOutput(remote, step, attempt, stream), step)
            if heard := remote.heard():
                console.err(f"note: {heard}")
            return
        name = None if step is None else step_named(remote.log, step)
        for chosen, one in chosen_attempts(remote.log, name, attempt):
            for _ in remote.output_of(chosen, one):
                pass  # it is in the folder now
        taken = take(remote.layout, remote.found, only_log=True)
        logs(remote.layout, taken.run_id, step, attempt=attempt, stdout=stdout, stderr=stderr)


@dataclass(slots=True, eq=False)
class PublishedOutput:
    """The output of a run in a registry, or of a step of it, as it is published: with the end of each attempt."""

    remote: RemoteRun
    step: str | None
    attempt: int | None
    stream: Stream | None
    labels: list[str] = field(default_factory=list)
    """How people know the steps that are known by now."""

    def parts(self) -> Iterator[tuple[str, bytes]]:
        """Yield (label of a step, what it wrote), an empty one at the end of each attempt.

        Raises `UsageError` where nothing is to be read once the run is over.
        """
        done: set[tuple[str, int]] | None = None
        is_found = False
        for log in self.remote.logs():
            labels = labels_of(log.steps)
            self.labels = [*labels.values()]
            step = find_step(log, self.step) if self.step is not None else None
            if self.step is not None and step is None:
                continue
            chosen = chosen_attempts(log, step, self.attempt, every=done is not None)
            if done is None:  # what is known at first is shown as `logs` does it: of each step the last attempt
                done = _attempts(log) - {(name, one.attempt_number) for name, one in chosen}
                if self.remote.is_running():
                    console.err(_waits_for(log, labels))
            for name, one in chosen:
                if (key := (name, one.attempt_number)) in done or not one.end_time:
                    continue
                done.add(key)
                is_found = True
                for written_to, chunk in self.remote.output_of(name, one):
                    if self.stream in (None, written_to):
                        yield labels[name], chunk
                yield labels[name], b""
        if not is_found:
            log = self.remote.log
            raise nothing_written(log, None if self.step is None else step_named(log, self.step), self.attempt)


def _attempts(log: RunLog) -> set[tuple[str, int]]:
    return {(name, one.attempt_number) for name, step in log.steps.items() for one in step.attempts}


def _waits_for(log: RunLog, labels: Mapping[str, str]) -> str:
    """Return what is said of steps whose output is not there yet."""
    running = [labels[name] for name, step in log.steps.items() if any(not one.end_time for one in step.attempts[-1:])]
    now_running = f"; by now it runs {listed(running, at_most=3)}" if running else ""
    return f"note: what a step writes is published when it has ended{now_running}"
