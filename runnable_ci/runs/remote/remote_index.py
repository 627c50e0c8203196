"""Which runs a registry holds, and what their logs say.

Tags have no compare-and-swap, so each writer of a run has a tag of its own, `RUN_ID--WRITER`, and reading a run is
merging what all of them say. The plain tag `RUN_ID` is for people and other tools: it points to the newest version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    RegistryProtocolError,
    RunLogError,
    RunNotFoundError,
    did_you_mean,
)
from runnable_ci.pipeline.command_line import of_registry
from runnable_ci.runs.artifact import RUN_LOG_MEDIA_TYPE, TITLE, manifest_annotations
from runnable_ci.runs.causality.versions import newest_versions
from runnable_ci.runs.document import decode
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import LATEST, Summary
from runnable_ci.runs.remote.manifest_forms import DERIVED_FROM, is_run, original_type
from runnable_ci.runs.remote.sound_log import require_sound
from runnable_ci.runs.remote.writers import Writer
from runnable_ci.runs.run_identity import IDENTITY, describe_beginning, run_identity
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import (
    DIGEST,
    MANIFEST_ELEMENTS_MAX,
    TAG,
    Descriptor,
    manifest_parts,
    read_manifest,
    verified,
)
from runnable_ci.util.bounded_json import indentation, parse_json
from runnable_ci.util.responses import TRIES
from runnable_ci.util.threads import map_all

SEPARATOR = "--"
BRANCH_PREFIX = f"_branch{SEPARATOR}"
RUN_LOG_MAX_BYTES = 256 * 1024 * 1024
LOG_SLACK_BYTES = 64 * 1024
_each = partial(map_all, jobs=16, name="registry")


class SeveralRunsError(RunLogError):
    """Several runs have one id; each is known by a reference of its own."""

    def __init__(self, message: str, *, hint: str, references: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.references = references


@dataclass(frozen=True, slots=True)
class WriterManifest:
    """What one writer published of a run."""

    manifest: Descriptor
    log: RunLog
    size_bytes: int
    """Of the log, as it came."""
    names: Sequence[str] = ()
    """What follows the run id in the tags that point to it."""

    @property
    def writer(self) -> Writer:
        """Who wrote it, as it says."""
        return Writer.of(self.log, self.manifest.digest, self.names)


def find_manifests(registry: Registry, reference: str) -> list[WriterManifest]:
    """Return all that is published of a run: of a run id, of `latest`, or just the part that one writer's tag or
    a digest is.

    Raises `RunNotFoundError`, `RunLogError` where a tag of the run holds another run, `StoreError`.
    """
    if DIGEST.fullmatch(reference):
        return [read_part(registry, _resolve_digest(registry, reference))]
    tags = set(registry.tags())
    run_id = _newest(registry, tags) if reference == LATEST else reference
    # A list may be older than a tag, or be answered by something that is no registry.
    mine = sorted({tag for tag in (run_id, *tags) if TAG.fullmatch(tag) and _may_be_of(tag, run_id)})
    manifests = _resolve(registry, mine)
    if not manifests:
        known = sorted(tag for tag in tags if SEPARATOR not in tag)
        raise RunNotFoundError(
            f"{registry.label} has no run `{run_id}`",
            hint=did_you_mean(run_id, known, of_registry(registry, "runs", "--from", registry.label)),
        )
    return _parts(registry, run_id, manifests)


def find_unlisted(registry: Registry, run_id: str, *, writers: Sequence[str]) -> list[WriterManifest]:
    """Return what is published of a run under its own tag and those of `writers`, without the list of tags.

    None where the tags are not there, or where we may not look. Raises as `find_manifests`.
    """
    try:
        manifests = _resolve(registry, [run_id, *(f"{run_id}{SEPARATOR}{writer}" for writer in writers)])
    except RegistryAuthError:
        return []
    return _parts(registry, run_id, manifests) if manifests else []


def _parts(registry: Registry, run_id: str, manifests: Mapping[str, Descriptor]) -> list[WriterManifest]:
    unique = {manifest.digest: manifest for manifest in manifests.values()}
    parts = dict(zip(unique, _each(partial(read_part, registry), unique.values()), strict=True))
    if (own := manifests.get(run_id)) and _is_writers_tag(run_id, parts[own.digest].log.run_id):
        return [_with_names(parts[own.digest], manifests)]
    for tag, manifest in manifests.items():
        stored_id = parts[manifest.digest].log.run_id
        if stored_id != run_id and (tag == run_id or not _may_be_of(tag, stored_id)):
            raise RunLogError(
                f"the tag {tag} in {registry.label} holds run `{stored_id}`, not `{run_id}`; nothing was used",
                hint="the tag was moved: publish the run again from its original store, or pull it by its digest",
            )
    return [_with_names(part, manifests) for part in parts.values() if part.log.run_id == run_id]


def _with_names(part: WriterManifest, manifests: Mapping[str, Descriptor]) -> WriterManifest:
    tags = [tag for tag, manifest in manifests.items() if manifest.digest == part.manifest.digest]
    writers = filter(None, (tag.removeprefix(part.log.run_id).removeprefix(SEPARATOR) for tag in tags))
    return replace(part, names=sorted(writers))


def require_one_run(parts: Sequence[WriterManifest], registry: Registry) -> None:
    """Raise for parts that are of several runs, naming each with a reference that is its own."""
    run_id = parts[0].log.run_id
    newest = {run_identity(part.log): part for part in sorted(parts, key=lambda part: part.log.end_time)}
    if len(newest) < 2:
        return
    named = [
        (describe_beginning(manifest_annotations(part.log)), f"{registry.label}@{part.manifest.digest}")
        for part in sorted(newest.values(), key=lambda part: part.log.start_time)
    ]
    raise SeveralRunsError(
        f"{registry.label} holds {len(named)} runs with the id `{run_id}`, nothing was used: "
        + "; ".join(f"one {beginning} ({reference})" for beginning, reference in named),
        hint=f"pull one of them by its digest: {of_registry(registry, 'pull', named[0][1])}",
        references=[reference for _, reference in named],
    )


@dataclass(frozen=True, slots=True)
class Occupant:
    """A run that has an id in a registry."""

    manifest: Descriptor
    annotations: Mapping[str, str]
    """Of the manifest; its run id and its identity are always among them."""

    @property
    def identity(self) -> str:
        """What tells the run from another one of its id."""
        return self.annotations[IDENTITY]


def find_occupant(registry: Registry, run_id: str, *, tries: int = TRIES) -> Occupant | None:
    """Return the run that the plain tag of an id points to; where there is none, that costs one request.

    Raises `StoreError`.
    """
    try:
        manifest = registry.resolve(run_id, to_write=True, tries=tries)
    except (ManifestNotFoundError, RegistryAuthError):  # some registries refuse to look at what there is not yet
        return None
    found = _occupant(registry, manifest)
    return found if found is not None and found.annotations[TITLE] == run_id else None


def find_occupants(registry: Registry, run_id: str) -> list[Occupant]:
    """Return all that has an id in the registry, by any tag; nothing where its tags cannot be listed."""
    try:
        tags = [tag for tag in registry.tags() if _may_be_of(tag, run_id)]
    except (RegistryAuthError, RegistryProtocolError):  # that is not needed for anything else of a publish
        return []
    manifests = {manifest.digest: manifest for manifest in _resolve(registry, tags).values()}
    found = _each(partial(_occupant, registry), manifests.values())
    return [occupant for occupant in found if occupant is not None and occupant.annotations[TITLE] == run_id]


def find_published(registry: Registry, tag: str, own: Descriptor) -> Descriptor | None:
    """Return the manifest that a tag points to where it is `own` or derived from it; None for any other and none.

    The first is found out by one request.
    """
    try:
        found = registry.resolve(tag, to_write=True)
        if found.digest == own.digest or _annotations(registry, found).get(DERIVED_FROM) == own.digest:
            return found
    except (ManifestNotFoundError, RegistryAuthError):  # some registries refuse to look at what there is not yet
        return None
    return None


def _occupant(registry: Registry, manifest: Descriptor) -> Occupant | None:
    annotations = _annotations(registry, manifest)
    if not annotations.get(TITLE) or not annotations.get(IDENTITY):  # an earlier version, or another tool, wrote it
        try:
            annotations = manifest_annotations(read_part(registry, manifest).log)
        except (RunLogError, BlobCorruptError, BlobMissingError):
            return None
    return Occupant(manifest, annotations)


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A run in a registry, as its manifests describe it."""

    summary: Summary
    manifests: Mapping[str, Descriptor]
    """Tag → manifest, that of the part which was written last at the end."""
    versions: Sequence[str]
    """Digests of the manifests that no other one contains: several where writers had not seen each other."""
    pinned_by: Sequence[str]
    """Other tags that point to one of the manifests: it is to be kept."""
    beginning: str
    """Who began the run and when, in words."""

    @property
    def newest(self) -> Descriptor:
        """The manifest of the part that was written last."""
        return list(self.manifests.values())[-1]


def published(registry: Registry) -> list[Summary]:
    """Return a line for each run, the newest last, from the manifests alone; what is no run is left out."""
    return [run.summary for run in list_published(registry)]


def list_published(registry: Registry) -> list[PublishedRun]:
    """Return the runs of a registry, the newest last, by their manifests alone; what is no run is left out."""
    return _runs_of(registry, sorted(registry.tags()))


def remove(registry: Registry, run: PublishedRun, delete: Callable[[Descriptor], None]) -> bool:
    """Remove a run by `delete`; False, and nothing is removed, where it was modified since it was looked at.

    What is broken off leaves a run that can be read and removed. Raises `StoreError`, and what `delete` raises.
    """
    tags = list(run.manifests)
    if _resolve(registry, tags) != run.manifests:
        return False
    for manifest in {manifest.digest: manifest for manifest in run.manifests.values()}.values():
        delete(manifest)
    return True


def newest_of_branch(registry: Registry, pipeline: str, branch: str) -> Summary | None:
    """Return the run of a pipeline that was kept as the newest of a branch; None where there is none."""
    try:
        annotations = _annotations(registry, registry.resolve(branch_tag(pipeline, branch)))
    except ManifestNotFoundError:
        return None
    return Summary.of(annotations[TITLE], annotations) if TITLE in annotations else None


def keep_as_newest(registry: Registry, manifest: Descriptor, pipeline: str, branch: str) -> None:
    """Tag a published run as the newest of a branch, found by two requests however many runs there are."""
    registry.tag(manifest, branch_tag(pipeline, branch))


def branch_tag(pipeline: str, branch: str) -> str:
    """Return a tag that no run has: a run's tags begin with its id, and no id begins so."""
    digest = hashlib.sha256(f"{pipeline}\n{branch}".encode()).hexdigest()[:12]
    word = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{branch}-{pipeline}")[:80]
    return f"{BRANCH_PREFIX}{word}-{digest}"


def _runs_of(registry: Registry, tags: Sequence[str]) -> list[PublishedRun]:
    manifests = _resolve(registry, tags)
    unique = {manifest.digest: manifest for manifest in manifests.values()}
    found = dict(zip(unique, _each(partial(_annotations, registry), unique.values()), strict=True))
    tags_of: dict[str, list[str]] = {}
    pins: dict[str, list[str]] = {}
    for tag, manifest in manifests.items():
        run_id = found[manifest.digest].get(TITLE, "")
        if _may_be_of(tag, run_id):
            tags_of.setdefault(run_id, []).append(tag)
        else:
            pins.setdefault(manifest.digest, []).append(tag)
    runs = [
        _published_run(of_one, found, pins)
        for mine in tags_of.values()
        for of_one in _by_identity(registry, {tag: manifests[tag] for tag in mine}, found)
    ]
    return sorted(runs, key=lambda run: run.summary.end_time or run.summary.start_time)


def _by_identity(
    registry: Registry, manifests: Mapping[str, Descriptor], annotations: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Descriptor]]:
    """Return the tags of one run id by the run that they are of: more than one where two runs have it."""
    unique = {manifest.digest: manifest for manifest in manifests.values()}
    identities = {digest: annotations[digest].get(IDENTITY, "") for digest in unique}
    if len(unique) > 1:  # else it is one run, and not even the log of an old one need be read
        for digest, manifest in unique.items():
            if not identities[digest]:
                occupant = _occupant(registry, manifest)
                identities[digest] = occupant.identity if occupant else digest
    runs: dict[str, dict[str, Descriptor]] = {}
    for tag, manifest in manifests.items():
        runs.setdefault(identities[manifest.digest], {})[tag] = manifest
    return list(runs.values())


def _published_run(
    manifests: Mapping[str, Descriptor],
    annotations: Mapping[str, dict[str, str]],
    pins: Mapping[str, Sequence[str]],
) -> PublishedRun:
    parts = [(Summary.of(annotations[m.digest][TITLE], annotations[m.digest]), tag) for tag, m in manifests.items()]
    versions = newest_versions({m.digest: annotations[m.digest] for m in manifests.values()})
    in_order = sorted(parts, key=lambda it: (manifests[it[1]].digest in versions, it[0].end_time or it[0].start_time))
    attempts = max(summary.attempts for summary, _ in parts)
    mine = {tag: manifests[tag] for _, tag in in_order}
    pinned_by = [tag for digest in {m.digest for m in mine.values()} for tag in pins.get(digest, ())]
    summary, newest = replace(in_order[-1][0], attempts=attempts), annotations[mine[in_order[-1][1]].digest]
    return PublishedRun(summary, mine, versions, sorted(pinned_by), describe_beginning(newest))


def _newest(registry: Registry, tags: set[str]) -> str:
    found = _runs_of(registry, sorted(tags))
    if not found:
        raise RunNotFoundError(f"no runs in {registry.label}")
    return found[-1].summary.run_id


def _may_be_of(tag: str, run_id: str) -> bool:
    return tag == run_id or _is_writers_tag(tag, run_id)


def _is_writers_tag(tag: str, run_id: str) -> bool:
    return tag.startswith(f"{run_id}{SEPARATOR}")


def _resolve_digest(registry: Registry, digest: str) -> Descriptor:
    try:
        return registry.resolve(digest)
    except ManifestNotFoundError as e:
        raise RunNotFoundError(e.message, hint=of_registry(registry, "runs", "--from", registry.label)) from e


def _resolve(registry: Registry, tags: Sequence[str]) -> dict[str, Descriptor]:
    """Tag → manifest, without the tags that are gone since they were listed."""

    def resolve(tag: str) -> Descriptor | None:
        try:
            return registry.resolve(tag)
        except ManifestNotFoundError:
            return None

    found = zip(tags, _each(resolve, tags), strict=True)
    return {tag: manifest for tag, manifest in found if manifest is not None}


def _annotations(registry: Registry, manifest: Descriptor) -> dict[str, str]:
    """Return the annotations of a run's manifest; empty for anything else."""
    with registry.fetch(manifest) as content:
        raw = read_manifest(content, manifest, label=registry.label)
    try:
        parsed = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)
        annotations = parsed["annotations"] if is_run(parsed) else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    is_text = isinstance(annotations, dict) and all(isinstance(value, str) for value in annotations.values())
    return annotations if is_text else {}


def read_part(registry: Registry, manifest: Descriptor, *, log_max_bytes: int = RUN_LOG_MAX_BYTES) -> WriterManifest:
    """Return a manifest's run log, verified, and fit to be used: no name or digest in it leads anywhere."""
    where = f"{manifest.digest} in {registry.label}"
    with registry.fetch(manifest) as content:
        raw = read_manifest(content, manifest, label=registry.label)
    parts = manifest_parts(raw, manifest, label=registry.label)
    logs = [part for part in parts if original_type(part) == RUN_LOG_MEDIA_TYPE]
    if len(logs) != 1:
        raise RunLogError(f"{where} is not a run", hint=of_registry(registry, "runs", "--from", registry.label))
    if logs[0].size > log_max_bytes:
        raise BlobCorruptError(f"the run log of {where} is larger than {log_max_bytes >> 20} MiB; it was not used")
    with registry.fetch(logs[0]) as content:
        document = b"".join(verified(content, logs[0], label=registry.label))
    log = decode(document, where=where)
    if indentation(parse_json(document)) > len(document) + LOG_SLACK_BYTES:
        raise RunLogError(f"the run log of {where} is nested too deeply for its size; it was not used")
    require_sound(log, {part.digest: part.size for part in parts}, where)
    return WriterManifest(manifest, log, len(document))
