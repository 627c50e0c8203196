"""Large files that an attempt read, which are hashed beside the next steps.

They are open since the attempt ended: to open them while another step runs would be an event like that step's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline.patterns import matches
from runnable_ci.runs.events import AttemptSaved
from runnable_ci.runs.files.workspace import UnhashedFile
from runnable_ci.runs.model import StepLog
from runnable_ci.util.threads import join_all, start

OPEN_MAX: Final = 64
"""How many files are open for that at most: others are hashed before the next step."""
_TICK_S: Final = 0.5
_HURRY_S: Final = 1.0
NOT_HASHED: Final = "the run ended before it was hashed"
"""Why it was not seen what an attempt read, as long as not all of it is hashed."""


class KeptReads(NamedTuple):
    """Where the document of an attempt's reads is, or why there is none."""

    reads: str = ""
    """sha256."""
    reads_size: int = 0
    not_seen: str = ""

    def saved(self, past: StepLog) -> AttemptSaved:
        """Return the event of a step's last attempt, which is over, with what it read."""
        attempt = past.attempts[-1].model_copy(update=self._asdict())
        return AttemptSaved(step=past.name, attempt=attempt, data_catalog=past.data_catalog)


class PendingReads(NamedTuple):
    """What an attempt read, but for the contents of some files."""

    reads: ReadSet
    unhashed: Mapping[str, UnhashedFile]
    """Path → the file."""
    hash_opened: Callable[[UnhashedFile], str | None]
    keep: Callable[[ReadSet], KeptReads]

    def has_any_of(self, patterns: Iterable[str]) -> bool:
        """Return whether one of the files matches one of these patterns."""
        return any(matches(pattern, path) for pattern in patterns for path in self.unhashed)

    def finish(self) -> KeptReads:
        """Hash the files, and keep what was read."""
        files = dict(self.reads.files)
        for path, unhashed in self.unhashed.items():
            digest = self.hash_opened(unhashed)
            if path in files and not files[path].digest:  # else it was known: the step declares it
                files[path] = files[path].model_copy(update={"digest": digest or ""})
        return self.keep(self.reads.model_copy(update={"files": files}))


@dataclass(slots=True)
class Hashing:
    """Finishes the reads of attempts in threads; used by one thread, which gets the results."""

    tell: Callable[[str, KeptReads | BaseException], None]
    """Called by those threads."""
    is_cancelled: Callable[[], object]
    """Whether the run is to end soon: then what takes longer is not waited for."""
    _running: dict[str, tuple[PendingReads, threading.Thread | None]] = field(default_factory=dict)

    def begin(self, step: str, pending: PendingReads) -> None:
        """Finish the reads of a step's attempt; at once where the system has no room for a thread."""

        def work() -> None:
            kept: KeptReads | BaseException
            try:
                kept = pending.finish()
            except OSError as e:
                kept = KeptReads(not_seen=e.strerror or str(e))
            except BaseException as e:  # noqa: BLE001 - handed over to the main thread, which raises it
                kept = e
            self.tell(step, kept)

        thread = start(work, name=f"hash what {step} read")
        if thread is None:
            work()
        self._running[step] = pending, thread

    def end(self, step: str) -> None:
        """Note that the result for a step was taken."""
        self._running.pop(step, None)

    def is_over(self) -> bool:
        """Return whether nothing is hashed any more, and all results are taken."""
        if self._running and self.is_cancelled():
            join_all(self._threads(), timeout_s=_HURRY_S)
            self._running = {step: it for step, it in self._running.items() if not (it[1] and it[1].is_alive())}
        return not self._running

    def before(self, patterns: Iterable[str]) -> Callable[[], None]:
        """Return what waits until no file that matches one of these is hashed any more: it may be changed then."""
        names = list(patterns)
        threads = [thread for pending, thread in self._running.values() if thread and pending.has_any_of(names)]

        def wait() -> None:
            for thread in threads:
                while thread.is_alive() and not self.is_cancelled():
                    thread.join(_TICK_S)

        return wait

    def _threads(self) -> list[threading.Thread]:
        return [thread for _, thread in self._running.values() if thread]
