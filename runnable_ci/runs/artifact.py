"""A run as an OCI artifact: which of its contents stand in the manifest, under which titles. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runnable_ci.runs.files.links import stored_files
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.notes.notes_model import note_annotations
from runnable_ci.runs.run_identity import (
    BEGUN_BY,
    CREATED,
    IDENTITY,
    INVOCATIONS,
    REVISION,
    beginnings,
    known_invocations,
    mocked_steps,
    number_taken,
    run_identity,
)
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor

ARTIFACT_TYPE = "application/vnd.runnable.run.v1+json"
RUN_LOG_MEDIA_TYPE = "application/vnd.runnable.runlog.v1+json"
LOG_MEDIA_TYPE = "text/plain"
LOG_INDEX_MEDIA_TYPE = "application/vnd.runnable.log-index.v1"
READS_MEDIA_TYPE = "application/vnd.runnable.reads.v1+json"
OBJECT_MEDIA_TYPE = "application/vnd.runnable.object.v1+pickle"
SNAPSHOT_MEDIA_TYPE = "application/vnd.runnable.snapshot.v1.tar"
"""Of earlier versions."""
BUNDLE_MEDIA_TYPE = "application/vnd.runnable.snapshot.v2.bundle"
PACK_MEDIA_TYPE = "application/vnd.runnable.pack.v1.tar"
EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"
READS_FETCH_MAX_BYTES = 64 * 1024 * 1024
"""What is above it stays in the registry: those steps are compared by the whole repository."""
TITLE = "org.opencontainers.image.title"
ORIGINAL_TYPE = "vnd.runnable.media-type"
"""Of a layer: its media type, where a registry takes only those of images."""
RUN_LOG_TITLE = "run-log.json"
EMPTY = b"{}"
EMPTY_CONFIG = Descriptor(
    EMPTY_MEDIA_TYPE, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2
)


def build_manifest(log: RunLog, run_log: Descriptor) -> tuple[bytes, bytes]:
    """Return the config and the manifest of a run whose run log document is `run_log`.

    Source: OCI image-spec v1.1.1, manifest.md, "Guidelines for Artifact Usage" (empty config).
    """
    return EMPTY, manifest_with(log, {RUN_LOG_TITLE: run_log}, {})


def manifest_with(log: RunLog, first: Mapping[str, Descriptor], more: Mapping[str, str]) -> bytes:
    """Return the manifest of a run with these layers first, by their titles, and `more` annotations."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _json(EMPTY_CONFIG),
        "layers": [_json(layer, title) for title, layer in {**first, **layers(log)}.items()],
        "annotations": {**manifest_annotations(log), **more},
    }
    return json.dumps(manifest, separators=(",", ":")).encode()


def manifest_annotations(log: RunLog) -> dict[str, str]:
    """Return what a listing of runs shows without reading a run log."""
    code, seconds = log.code(), log.seconds()
    found = {
        "org.opencontainers.image.title": log.run_id,
        CREATED: log.start_time,
        REVISION: code.code_identifier if code else "",
        "org.opencontainers.image.source": code.code_identifier_url if code else "",
        IDENTITY: run_identity(log),
        BEGUN_BY: ", ".join(dict.fromkeys(invocation.actor for invocation in beginnings(log) if invocation.actor)),
        INVOCATIONS: known_invocations(log),
        "vnd.runnable.ref": code.ref if code else "",
        "vnd.runnable.name": log.name,
        "vnd.runnable.status": log.status,
        "vnd.runnable.ended": log.end_time,
        "vnd.runnable.ended-by": log.ended_by,
        "vnd.runnable.seconds": "" if seconds is None else f"{seconds:.3f}",
        "vnd.runnable.attempts": str(log.invocation),
        "vnd.runnable.dirty": "" if code is None else str(not code.code_identifier_dependable).lower(),
        "vnd.runnable.failed": ",".join(log.failed_steps())[:1000],
        "vnd.runnable.metrics": _metrics(log),
        "vnd.runnable.mocked": ",".join(mocked_steps(log))[:1000],
        "vnd.runnable.reused": str(number_taken(log) or ""),
        "vnd.runnable.tag": log.tag,
        **note_annotations(log.notes, log.reproduction, log.made_from),
        "vnd.runnable.parameters": _parameters(log),
    }
    if any("." in name for name in log.steps):
        from runnable_ci.runs.branches.metrics import instance_annotation  # few runs have any

        found["vnd.runnable.instance-metrics"] = instance_annotation(log)
    return {key: value for key, value in found.items() if value}


def layers(log: RunLog) -> dict[str, Descriptor]:
    """Return title → content: what a plain pull of the artifact leaves in a folder.

    The files of the last attempts are under `catalog/`, earlier versions under `history/STEP.ATTEMPT/`, what failed
    attempts made under `failed/STEP.ATTEMPT/`, inputs that an attempt changed, as they were, under
    `inputs/STEP.ATTEMPT/`, output under `logs/`, pickled objects under `objects/` (earlier ones in
    `objects/STEP.ATTEMPT/`), checkpoints under `checkpoints/STEP.ATTEMPT/`, what attempts read under `reads/`, packs of
    small files under `packs/`, differences from the commit under `code/`.
    """
    packs, named = PackIndex(log.packs), [*contents(log)]
    titled = {title: content for title, content in named if content.hex not in packs}
    needed = {content.hex for _, content in named}
    for digest, pack in log.packs.items():
        blob = Descriptor.of_hash(digest, pack.size, PACK_MEDIA_TYPE)
        if not needed.isdisjoint(pack.members):  # else of a checkpoint that counts no more
            titled[f"packs/{digest[:12]}.tar"] = blob
    return titled


def reads_blobs(log: RunLog) -> list[Descriptor]:
    """Return the blobs with what the steps' last attempts read, without which a retry cannot compare it.

    The small ones first, as many as come within `READS_FETCH_MAX_BYTES`.
    """
    packs = PackIndex(log.packs)
    newest = [step.attempts[-1] for step in log.steps.values() if step.attempts and step.attempts[-1].reads]
    blobs = {blob.digest: blob for a in newest for blob in [packs.blob_of(a.reads, a.reads_size)]}
    taken: list[Descriptor] = []
    left = READS_FETCH_MAX_BYTES
    for blob in sorted(blobs.values(), key=lambda blob: blob.size):
        left -= blob.size
        if left < 0:
            break
        taken.append(blob)
    return taken


def referenced_digests(log: RunLog) -> set[str]:
    """Return the sha256 (hex) of all contents that a run log names, packed ones by their pack."""
    return {descriptor.hex for descriptor in layers(log).values()}


def made_contents(log: RunLog) -> Iterator[tuple[str, int]]:
    """Yield sha256 (hex) and size of what the attempts of a run made: the files that `catalog` can fetch."""
    return (
        (file.content.hex, file.content.size)
        for step in log.steps.values()
        for file in stored_files(step)
        if file.entry.stage != "get"
    )


def contents(log: RunLog) -> Iterator[tuple[str, Descriptor]]:
    """Yield each content that a run log names, also where a pack holds it, with its title."""
    current = {entry.name: (step.name, entry.data_hash) for step in log.steps.values() for entry in step.put_entries()}
    newest = {
        name: attempt.output_parameters
        for step in log.steps.values()
        for attempt in step.attempts[-1:]
        for name in attempt.output_parameters
    }
    for step in log.steps.values():
        for number, entry, content in stored_files(step):
            is_current = entry.stage == "put" and current.get(entry.name) == (step.name, entry.data_hash)
            folder = {"put": "history", "failed": "failed"}.get(entry.stage, "inputs")
            place = "catalog" if is_current else f"{folder}/{step.internal_name}.{number}"
            yield f"{place}/{entry.name}", content
        for attempt in step.attempts:
            title = f"{step.internal_name}.{attempt.attempt_number}"
            yield from _attempt_contents(attempt, title)
            for name, parameter in attempt.output_parameters.items():
                if parameter.kind == "object":
                    is_only_one = newest.get(name) is attempt.output_parameters and "." not in step.name
                    place = "objects" if is_only_one else f"objects/{title}"
                    pickled = Descriptor.of_hash(parameter.data_hash, parameter.size or 0, OBJECT_MEDIA_TYPE)
                    yield f"{place}/{name}.pickle", pickled
    if any(attempt.checkpoint for step in log.steps.values() for attempt in step.attempts):
        from runnable_ci.runs.checkpoints.newest import checkpoint_contents  # few steps keep any

        yield from checkpoint_contents(log)
    for state in log.code_states.values():
        for digest, size in state.bundles.values():
            yield f"code/{digest[:12]}.bundle", Descriptor.of_hash(digest, size, BUNDLE_MEDIA_TYPE)


def _attempt_contents(attempt: StepAttempt, title: str) -> Iterator[tuple[str, Descriptor]]:
    if (log := attempt.log) and log.size:
        yield f"logs/{title}.log", Descriptor.of_hash(log.data_hash, log.size, LOG_MEDIA_TYPE)
        if log.index_hash:
            yield f"logs/{title}.idx", Descriptor.of_hash(log.index_hash, log.index_size, LOG_INDEX_MEDIA_TYPE)
    if attempt.reads:
        yield f"reads/{title}.json", Descriptor.of_hash(attempt.reads, attempt.reads_size, READS_MEDIA_TYPE)
    for code in attempt.code_identities:
        if code.snapshot:
            snapshot = Descriptor.of_hash(code.snapshot, code.snapshot_size, SNAPSHOT_MEDIA_TYPE)
            yield f"code/{code.snapshot[:12]}.tar", snapshot


def _metrics(log: RunLog) -> str:
    text = json.dumps(log.metrics())
    return text if text != "{}" and len(text) <= 4000 else ""


def _parameters(log: RunLog) -> str:
    """Return the run's own parameters, as many as are short."""
    own = {name: value for invocation in log.invocations for name, value in invocation.parameters.items()}
    short: dict[str, Any] = {}
    left = 4000
    for name, value in own.items():
        size = len(json.dumps({name: value}))
        if size <= min(left, 300):
            short[name] = value
            left -= size
    return json.dumps(short) if short else ""


def _json(descriptor: Descriptor, title: str = "") -> dict[str, Any]:
    described: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if title:
        described["annotations"] = {TITLE: title, **descriptor.annotations}
    if descriptor.media_type == EMPTY_MEDIA_TYPE:
        described["data"] = "e30="
    return described
