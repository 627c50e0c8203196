"""The runs of a store, for reading: which there are, and each one's run log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnable_ci.artifact import RUN_LOG_MEDIA_TYPE, manifest_annotations
from runnable_ci.catalog import Catalog
from runnable_ci.errors import BlobMissingError, RunLogError, RunNotFoundError, did_you_mean
from runnable_ci.output import split
from runnable_ci.process import Stream
from runnable_ci.recorder import JOURNAL, JOURNAL_SIZE, is_running, now, run_folder
from runnable_ci.runlog import PROCESSING, RunLog, StepAttempt, apply, decode, decode_events, mark_interrupted
from runnable_ci.store.layout import Layout
from runnable_ci.store.target import TAG, Descriptor

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a listing of runs."""

    run_id: str
    name: str
    status: str
    start_time: str
    end_time: str
    commit: str
    dirty: bool | None
    attempts: int
    failed: str
    metrics: dict[str, Any]

    @classmethod
    def of(cls, run_id: str, annotations: dict[str, str]) -> Summary:
        """From the annotations of a run's manifest."""
        try:
            metrics = json.loads(annotations.get("vnd.runnable.metrics", "{}"))
        except ValueError:
            metrics = {}
        attempts = annotations.get("vnd.runnable.attempts", "")
        dirty = annotations.get("vnd.runnable.dirty")
        return cls(
            run_id=run_id,
            name=annotations.get("vnd.runnable.name", ""),
            status=annotations.get("vnd.runnable.status", "?"),
            start_time=annotations.get("org.opencontainers.image.created", ""),
            end_time=annotations.get("vnd.runnable.ended", ""),
            commit=annotations.get("org.opencontainers.image.revision", ""),
            dirty=None if dirty is None else dirty == "true",
            attempts=int(attempts) if attempts.isdigit() else 0,
            failed=annotations.get("vnd.runnable.failed", ""),
            metrics=metrics if isinstance(metrics, dict) else {},
        )


def run_ids(layout: Layout) -> list[str]:
    """All run ids, the one that was written to last at the end."""
    times: dict[str, float] = dict.fromkeys(layout.manifests(), 0.0)
    for folder in (layout.folder / "runs").glob("*"):
        if (journal := folder / JOURNAL).exists():
            times[folder.name] = journal.stat().st_mtime
    return sorted(times, key=lambda run_id: times[run_id])


def resolve_id(layout: Layout, given: str) -> str:
    """The run id that is meant by one, or by `latest`. Raises `RunNotFoundError`."""
    known = run_ids(layout)
    if given == LATEST and known:
        return known[-1]
    if given in known and TAG.fullmatch(given):
        return given
    where = f"no run `{given}` in {layout.label}" if known else f"there is no run yet in {layout.label}"
    raise RunNotFoundError(where, hint=did_you_mean(given, known, "runnable-ci runs lists them" if known else ""))


def load(layout: Layout, run_id: str) -> RunLog:
    """A run's log as it stands; a run whose process was killed reads as the failure that it is."""
    journal = run_folder(layout, run_id) / JOURNAL
    log = _read_journal(journal) if journal.exists() else None
    if log is None:
        log = _read_artifact(layout, run_id)
    if log.status == PROCESSING and not is_running(layout, run_id):
        for event in mark_interrupted(log, time=now()):
            log = apply(log, event)
    return log


def summaries(layout: Layout) -> Iterator[Summary]:
    """A line for each run, newest last. Reads a run log only where the index does not know its latest state."""
    sealed = layout.manifests()
    for run_id in run_ids(layout):
        journal = run_folder(layout, run_id) / JOURNAL
        annotations = dict(sealed[run_id].annotations) if run_id in sealed else {}
        size = annotations.get(JOURNAL_SIZE)
        if not annotations or (journal.exists() and size is not None and size != str(journal.stat().st_size)):
            try:
                annotations = manifest_annotations(load(layout, run_id))
            except RunLogError:
                annotations = {"vnd.runnable.status": "DAMAGED"}
        yield Summary.of(run_id, annotations)


def catalog_of(layout: Layout, log: RunLog, workspace: Path | None = None) -> Catalog:
    """The files of a run."""
    return Catalog(layout, workspace or layout.folder.parent, run_folder(layout, log.run_id), dict(log.packs))


def output_of(layout: Layout, log: RunLog, title: str, attempt: StepAttempt) -> Iterator[tuple[Stream, bytes]]:
    """What an attempt wrote, as (stream, bytes) in order; `title` is `STEP.ATTEMPT`.

    Also of a run that is not over. Raises `BlobMissingError`, `BlobCorruptError`.
    """
    folder = run_folder(layout, log.run_id) / "logs"
    if (file := folder / f"{title}.log").exists():
        index = folder / f"{title}.idx"
        with file.open("rb") as written:
            yield from split(iter(lambda: written.read(1 << 20), b""), _bytes(index), only_stream=_only(attempt))
    elif attempt.log is not None:
        catalog = catalog_of(layout, log)
        index_content = b""
        if attempt.log.index_hash:
            index_content = b"".join(catalog.read(attempt.log.index_hash, attempt.log.index_size))
        content = catalog.read(attempt.log.data_hash, attempt.log.size)
        yield from split(content, index_content, only_stream=_only(attempt))


def _only(attempt: StepAttempt) -> Stream:
    return "e" if attempt.log and not attempt.log.stdout_bytes else "o"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _read_journal(path: Path) -> RunLog | None:
    with path.open("rb") as lines:
        return decode_events(lines, where=str(path))


def _read_artifact(layout: Layout, run_id: str) -> RunLog:
    manifest = layout.manifest(layout.resolve(run_id))
    for layer in manifest.get("layers", []):
        if layer.get("mediaType") == RUN_LOG_MEDIA_TYPE:
            descriptor = Descriptor(RUN_LOG_MEDIA_TYPE, str(layer["digest"]), int(layer["size"]))
            log = decode(layout.read_bytes(descriptor), where=f"{run_id} in {layout.label}")
            if log.run_id != run_id:
                raise RunLogError(f"the tag {run_id} in {layout.label} stands for the run log of {log.run_id}")
            return log
    raise BlobMissingError(f"`{run_id}` in {layout.label} is not a run: it has no run log")
