"""Runs made without the program, for tests of how they travel."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from registry_server import described

from runnable_ci.runs.artifact import ARTIFACT_TYPE, RUN_LOG_MEDIA_TYPE, layers
from runnable_ci.runs.events import (
    AttemptSaved,
    InvocationFinished,
    PackStored,
    Started,
)
from runnable_ci.runs.live.publisher import LivePublisher
from runnable_ci.runs.model import (
    SUCCESS,
    Invocation,
    RunLog,
    StepAttempt,
)
from runnable_ci.runs.reader import catalog_of, load, run_ids
from runnable_ci.runs.recorder import Recorder, create, reopen
from runnable_ci.runs.remote.publish import Published, publish
from runnable_ci.runs.remote.pull import Pulled, pull
from runnable_ci.runs.remote.tag_record import RECORD_TAG, REUSE_PREFIX
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE
from runnable_ci.util.clock import now


def opened(repository: str) -> Registry:
    """A repository of a registry that asks for no credentials."""
    return Registry(repository, environ={})


def store(folder: Path) -> Layout:
    """The store of a workspace."""
    folder.mkdir(parents=True, exist_ok=True)
    return Layout(folder / ".runnable")


def record(layout: Layout, step: str, files: Mapping[str, bytes], *, run_id: str = "r") -> RunLog:
    """The log after one more invocation of a run, in which one step put these files."""
    workspace = layout.folder.parent
    known = load(layout, run_id) if run_id in run_ids(layout) else None
    number = known.invocation + 1 if known else 1
    invocation = Invocation(number=number, command="retry" if known else "run", start_time=now())
    started = Started(run_id=run_id, name="n", dag_hash="d", run_config={}, invocation=invocation)
    with reopen(layout, known) if known else create(layout, started) as recorder:
        if known:
            recorder.record(started)
        catalog = catalog_of(layout, recorder.log, workspace)
        for name, content in files.items():
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace / name).write_bytes(content)
        past = recorder.log.steps.get(step)
        attempt = StepAttempt(
            attempt_number=len(past.attempts) + 1 if past else 1, start_time=now(), invocation=number, reason="test"
        )
        recorder.record(AttemptSaved(step=step, attempt=attempt))
        entries, packs = catalog.put(list(files))
        recorder.record(*(PackStored(digest=digest, pack=pack) for digest, pack in packs.items()))
        over = attempt.model_copy(update={"status": SUCCESS, "outcome": "succeeded", "end_time": now()})
        recorder.record(
            AttemptSaved(step=step, attempt=over, data_catalog=entries), InvocationFinished.of("succeeded", time=now())
        )
        recorder.seal(catalog)
        return recorder.log


def run_tags(remote: Registry) -> list[str]:
    """The tags of a registry's runs: all but those of the record of them, and of what may be reused."""
    return [tag for tag in remote.tags() if tag != RECORD_TAG and not tag.startswith(REUSE_PREFIX)]


def contents(layout: Layout, run_id: str = "r") -> dict[str, bytes]:
    """Each file of a run, verified."""
    log = load(layout, run_id)
    catalog = catalog_of(layout, log)
    entries = [entry for step in log.steps.values() for entry in step.put_entries()]
    return {entry.name: b"".join(catalog.read(entry.data_hash, entry.size)) for entry in entries}


def sent(layout: Layout, remote: Registry, run_id: str = "r", **environ: str) -> Published:
    """Publish a run."""
    return publish(layout, run_id, remote, environ=environ)


def got(folder: Path, remote: Registry, reference: str = "r") -> tuple[Layout, Pulled]:
    """A store of its own that pulled a run."""
    layout = store(folder)
    return layout, pull(layout, remote, reference)


def forge(remote: Registry, layout: Layout, run_log: bytes, run_id: str = "r") -> str:
    """Publish something else as the log of a run, with all of the run's content; the manifest's digest."""
    config = described(b"{}", "application/vnd.oci.empty.v1+json")
    log = described(run_log, RUN_LOG_MEDIA_TYPE)
    blobs = {blob.digest: blob for blob in layers(load(layout, run_id)).values()}
    entries = [
        {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
        for blob in (config, log, *blobs.values())
    ]
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": entries[0],
            "layers": entries[1:],
        }
    ).encode()
    remote.push(config, io.BytesIO(b"{}"))
    remote.push(log, io.BytesIO(run_log))
    for blob in blobs.values():
        with layout.fetch(blob) as content:
            remote.push(blob, content)
    manifest = described(raw, MANIFEST_MEDIA_TYPE)
    remote.push(manifest, io.BytesIO(raw))
    return manifest.digest


def begun(layout: Layout) -> Started:
    invocation = Invocation(number=1, command="run", start_time=now(), identity="of the test")
    return Started(run_id="r", name="n", dag_hash="d", run_config={}, invocation=invocation)


def do_step(recorder: Recorder, name: str, *, size: int = 100, reason: str = "test") -> None:
    """Record a step that put a file and wrote output, as the loop does."""
    catalog = catalog_of(recorder.layout, recorder.log, recorder.layout.folder.parent)
    attempt = StepAttempt(start_time=now(), reason=reason, definition={"run": "true"})
    recorder.record(AttemptSaved(step=name, attempt=attempt))
    (catalog.workspace / f"{name}.txt").write_bytes(os.urandom(size))
    entries, _ = catalog.put([f"{name}.txt"])
    over = attempt.model_copy(update={"status": SUCCESS, "outcome": "succeeded", "end_time": now()})
    recorder.record(AttemptSaved(step=name, attempt=over, data_catalog=entries))


def publisher(layout: Layout, remote: Registry, said: Callable[[str], None] = print) -> LivePublisher:
    """A publisher that works only when it is told to."""
    found = LivePublisher(layout, "r", remote, environ={}, say=said, first_after_s=3600.0)
    found.start()
    return found
