"""Writes one run: each change is a line appended to the run's journal, so that a killed run is readable up to there.

`runs/RUN_ID/journal.jsonl` is the truth while a run lives; sealing makes the run log document, a manifest and a tag in
the layout of it, which any OCI client can copy.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from runnable_ci.errors import RunExistsError, RunInUseError
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.artifact import RUN_LOG_MEDIA_TYPE, build_manifest, manifest_annotations
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.document import (
    attempt_without_repeats,
    encode,
    log_value_hashes,
    value_hashes,
    values_of,
    without_repeats,
)
from runnable_ci.runs.events import (
    STARTED_LINE_END,
    AttemptSaved,
    CodeStateRecorded,
    Event,
    LogImported,
    PackStored,
    Started,
    apply,
    decode_event,
    decode_events,
    encode_event,
    mark_interrupted,
    with_schema,
)
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.journal import Journal, Seal, is_current
from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.runs.orphans import end_orphans
from runnable_ci.runs.output import large_outputs, recover, redact_kept
from runnable_ci.runs.paths import (
    CHECKPOINTS,
    JOURNAL,
    OUTPUTS,
    PROCESSES,
    READS_SUFFIX,
    STORE_LOCK,
    in_flight,
    last_write_time,
    lock_run,
    run_folder,
    shared,
)
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.store.local import Layout
from runnable_ci.store.store_identity import make_identity, store_identity
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE
from runnable_ci.util.clock import now
from runnable_ci.util.files import claim_of, renew_folder, share_lock, temporary_folder

_LOOKED_AT_S = 0.5
"""Who only looks whether a run is written holds its lock for a moment; so long that may take on a busy machine."""


class Recorder:
    """The one writer of a run. Use as a context; it holds the run's lock until it ends."""

    def __init__(self, layout: Layout, log: RunLog, journal: Journal, lock: int, redactor: Redactor) -> None:
        self.layout = layout
        self.log = log
        self.redactor = redactor
        """What it knows does not get into the log."""
        self.changed: Callable[[], None] = lambda: None
        """Called once something was recorded."""
        self.folder = run_folder(layout, log.run_id)
        self.outputs = self.folder / OUTPUTS
        self.outputs.mkdir(exist_ok=True)
        self._journal = journal
        self._values = log_value_hashes(log)
        """sha256 of the large values that stand in the log where they came from."""
        self._scratch = ExitStack()
        self._locks = [lock]
        self._writing = threading.RLock()

    def record(self, *events: Event, synced: bool = True) -> None:
        """Apply events to the log, and write them to disk before this returns, or with the next if not `synced`."""
        with self._writing:
            lines = []
            for event in (each for given in events for each in with_schema(given, self.log)):
                clean, line = _clean(_signed(event, self.layout), self.redactor)
                self.log = apply(self.log, clean)
                lines.append(self._without_repeats(clean, line))
            self._journal.append(lines, synced=synced)
        self.changed()

    def _without_repeats(self, event: Event, line: bytes) -> bytes:
        """Return the line of an event that repeats no large value which the log has already."""
        match event:
            case Started():
                self._values |= value_hashes(values_of(event.invocation)).keys()
            case AttemptSaved(attempt=attempt):
                self._values |= value_hashes(values_of(attempt)).keys()
                slim = attempt_without_repeats(attempt, self._values)
                if slim is not attempt:
                    return encode_event(event.model_copy(update={"attempt": slim}))
        return line

    def redact_past(self, *, outputs: Collection[str], replaced: Mapping[str, CodeState]) -> None:
        """Remove from what this invocation has recorded what became known as a secret since.

        Also of these `outputs` of attempts; and states of the code that are to be `replaced`, by their keys.
        """
        lines = self._journal.lines()
        # What was before it may be published, and is of others as much as ours.
        logs: dict[str, LogFile | None] = {}
        begin = max(position for position, line in enumerate(lines) if line.endswith(STARTED_LINE_END))
        for position, line in enumerate(lines[begin:], start=begin):
            if outputs or replaced or self.redactor.finds(line):  # else it need not be decoded
                event = decode_event(line, where=str(self._journal.path))
                match event:
                    case AttemptSaved():
                        self._redact_output(event, outputs, logs)
                    case CodeStateRecorded():
                        event.state = replaced.get(event.key, event.state)
                lines[position] = _clean(event, self.redactor)[1]
        with self._writing:
            if self._journal.rewrite(lines[begin:], begin=begin):
                self.log = decode_events(lines, where=str(self._journal.path)) or self.log
                self._values = log_value_hashes(self.log)

    def _redact_output(self, event: AttemptSaved, outputs: Collection[str], logs: dict[str, LogFile | None]) -> None:
        """Redact an attempt's output; once, though several events may tell of it. `logs` are the new ones."""
        attempt = event.attempt
        title = f"{event.step}.{attempt.attempt_number}"
        if attempt.log and title in outputs:
            if title not in logs:
                logs[title] = redact_kept(self.outputs, title, attempt.log, self.redactor, through=self.scratch)
            attempt.log = logs[title]

    @cached_property
    def scratch(self) -> Path:
        """A folder for the attempts' own folders; it is gone when the recorder is closed."""
        return self._scratch.enter_context(temporary_folder(self.layout.temporaries))

    @cached_property
    def _lasting(self) -> tuple[str, ...]:
        """What is there as long as no step removes it; as texts, since it is looked for twice a step."""
        return tuple(map(str, (self.scratch, claim_of(self.scratch), self.folder / JOURNAL, self.outputs)))

    @property
    def processes(self) -> Path:
        """Where the steps' processes are noted."""
        return self.folder / PROCESSES

    def restore(self) -> list[str] | None:
        """Make the store and the run in it again where a step removed them; None where all is there.

        Return the names of the files and objects that steps of this run stored and that are lost. Safe in threads.
        """
        if all(map(os.path.exists, self._lasting)):
            return None
        with self._writing:
            renew_folder(self.scratch)
            if (self.folder / JOURNAL).exists():
                self.outputs.mkdir(parents=True, exist_ok=True)
                return None
            from runnable_ci.runs.products.lost import lost_content, without_lost_output

            self.layout.create()
            self.outputs.mkdir(parents=True, exist_ok=True)
            self._locks += [share_lock(self.layout.folder / STORE_LOCK), _take_lock(self.folder, self.log.run_id)]
            self._journal.restore()
            catalog = catalog_of(self.layout, self.log)
            if events := without_lost_output(catalog, self.log, self.outputs):
                self.record(*events)
            return lost_content(catalog, self.log)

    def is_sealed(self) -> bool:
        """Return whether the artifact of the run tells of it as it is now; one that came from elsewhere always does."""
        known = self.layout.manifests().get(self.log.run_id)
        if known is None or not self.layout.exists(known):
            return False
        seal = Seal.of(known.annotations)
        return seal is None or seal.size == self._journal.seal().size

    def seal(self, catalog: Catalog) -> None:
        """Make an OCI artifact of the run as it is now, tagged with its id. The newest seal takes the tag."""
        files = {path.name: path for path in self.outputs.iterdir()}
        for name, digest in large_outputs(self.outputs, self.log).items():
            self.layout.move_file_in(files.pop(name), digest=f"sha256:{digest}")
        reads = {name for name in files if name.endswith(READS_SUFFIX)}
        # Apart from the output: they are what a retry elsewhere fetches before anything else.
        for kind, names in (("logs", files.keys() - reads), ("reads", reads)):
            stored = catalog.store([(files[name], f"{kind}/{_title(name)}") for name in sorted(names)])
            if stored.packs:
                self.record(*(PackStored(digest=digest, pack=pack) for digest, pack in stored.packs.items()))
        has_checkpoints = (self.folder / CHECKPOINTS).exists()
        if has_checkpoints:
            from runnable_ci.runs.checkpoints import contents  # few steps keep any

            self.record(*contents.adopt(catalog, self.log))
        log = self.layout.put_bytes(encode(self.log), RUN_LOG_MEDIA_TYPE)
        config, manifest = build_manifest(self.log, log)
        self.layout.put_bytes(config, "")
        descriptor = self.layout.put_bytes(manifest, MANIFEST_MEDIA_TYPE)
        summary = {**manifest_annotations(self.log), **self._journal.seal().annotations()}
        self.layout.tag(replace(descriptor, annotations=summary), self.log.run_id)
        for path in files.values():
            path.unlink()
        if has_checkpoints:
            contents.remove(catalog)

    def close(self) -> None:
        """Release the run for other processes."""
        with suppress(OSError):  # what stays is put in order when the run is opened again
            self._scratch.close()
            self.processes.unlink(missing_ok=True)
        self._journal.close()
        for lock in self._locks:
            os.close(lock)


def _title(name: str) -> str:
    """Return what a file of an attempt is called in a pack, as it is in the manifest."""
    return f"{name.removesuffix(READS_SUFFIX)}.json" if name.endswith(READS_SUFFIX) else name


def require_unused(layout: Layout, run_id: str) -> None:
    """Raise `RunExistsError` where there is a run of that id."""
    if (run_folder(layout, run_id) / JOURNAL).exists() or run_id in layout.manifests():
        raise _already_there(run_id)


def _already_there(run_id: str) -> RunExistsError:
    return RunExistsError(f"there is already a run `{run_id}`")


@contextmanager
def create(layout: Layout, started: Started, redactor: Redactor | None = None) -> Iterator[Recorder]:
    """Yield the recorder of a new run, whose log contains nothing that `redactor` knows.

    Raises `RunExistsError` where there is a run of that id.
    """
    layout.create()
    layout.sweep()
    with shared(layout):
        folder = run_folder(layout, started.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_run(folder)
        if lock is None:
            raise _already_there(started.run_id)
        try:
            require_unused(layout, started.run_id)
            clean, line = _clean(_signed(started, layout), redactor or Redactor())
            journal = Journal.begin(layout, started.run_id, [line])
        except BaseException:
            os.close(lock)
            raise
        log = apply(RunLog(run_id=started.run_id), clean)
        recorder = Recorder(layout, log, journal, lock, redactor or Redactor())
        try:
            yield recorder
        finally:
            recorder.close()


@contextmanager
def reopen(
    layout: Layout, log: RunLog, redactor: Redactor | None = None, *, conclude: bool = True
) -> Iterator[Recorder]:
    """Yield the recorder of an existing run, after what a killed process left is put in order (`conclude`d).

    `log` is what was read of it (a run that came as an artifact has no journal yet); it gets nothing that `redactor`
    knows. Raises `RunInUseError`, also where another process began an invocation since the log was read.
    """
    with shared(layout):
        folder = run_folder(layout, log.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(folder, log.run_id)
        try:
            seen = last_write_time(folder)
            written, journal = _open_journal(log, layout)
        except BaseException:
            os.close(lock)
            raise
        recorder = Recorder(layout, written, journal, lock, redactor or Redactor())
        try:
            if written.invocation > log.invocation:  # what was made of the log, as the redactor, is of an older one
                raise RunInUseError(f"run `{log.run_id}` was written by another process just now", hint="try again")
            end_orphans(recorder.processes)
            layout.sweep()
            elsewhere = in_flight(layout, log.run_id)
            ended = mark_interrupted(recorder.log, time=seen or now(), elsewhere=elsewhere) if conclude else []
            if events := ended:
                recorder.record(*(_with_output(event, recorder) for event in events))
            elif recorder.log.status == SUCCESS and not recorder.is_sealed():
                recorder.seal(catalog_of(layout, recorder.log))
            yield recorder
        finally:
            recorder.close()


def ensure_sealed(layout: Layout, run_id: str) -> None:
    """Seal a run that is not sealed as it is now. Raises `RunInUseError`, `StoreError`."""
    journal = run_folder(layout, run_id) / JOURNAL
    sealed = layout.manifests().get(run_id)
    if sealed is not None and (not journal.exists() or is_current(sealed.annotations, journal)):
        return
    with reopen(layout, load(layout, run_id)) as recorder:
        recorder.seal(catalog_of(layout, recorder.log))


def _open_journal(log: RunLog, layout: Layout) -> tuple[RunLog, Journal]:
    """Return what a run's journal says, without a torn last line; it begins with `log` where there is none."""
    sealed = layout.manifests().get(log.run_id)
    if opened := Journal.open(layout, log.run_id, sealed=sealed):
        journal, written = opened
        return written, journal
    imported = with_schema(LogImported(run_log=without_repeats(log)), None)
    return log, Journal.begin(layout, log.run_id, map(encode_event, imported), sealed=sealed)


def _signed(event: Event, layout: Layout) -> Event:
    """Return the event; the beginning of an invocation says which store recorded it."""
    if not isinstance(event, Started):
        return event
    make_identity(layout)
    return event.model_copy(update={"store": store_identity(layout)})


def _clean(event: Event, redactor: Redactor) -> tuple[Event, bytes]:
    """Return the event without secrets, and its line."""
    line = encode_event(event)
    if redactor.finds(line):  # else it is as it may be recorded: most are
        from runnable_ci.runs.event_redaction import cleaned

        event = cleaned(event, redactor)
        line = encode_event(event)
    return event, line


def _with_output(event: Event, recorder: Recorder) -> Event:
    """Return an interrupted attempt with the output that it left."""
    if isinstance(event, AttemptSaved):
        title = f"{event.step}.{event.attempt.attempt_number}"
        event.attempt.log = recover(recorder.outputs, title, through=recorder.layout.temporaries)
    return event


def _take_lock(folder: Path, run_id: str) -> int:
    until_s = time.monotonic() + _LOOKED_AT_S
    while (lock := lock_run(folder)) is None and time.monotonic() < until_s:
        time.sleep(_LOOKED_AT_S / 20)
    if lock is None:
        raise RunInUseError(
            f"run `{run_id}` is in use by another process", hint="wait until it has finished, or stop it"
        )
    return lock
