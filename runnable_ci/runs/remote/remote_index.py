"""All that a registry holds of one run, by its id, a tag or a digest; and who has an id there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
from runnable_ci.runs.artifact import TITLE, manifest_annotations
from runnable_ci.runs.reader import LATEST
from runnable_ci.runs.remote.manifest_forms import DERIVED_FROM
from runnable_ci.runs.remote.published_content import (
    SEPARATOR,
    PublishedContent,
    WriterManifest,
    is_writers_tag,
    may_be_of,
)
from runnable_ci.runs.remote.tag_record import ListedTags, TagRecord, list_tags, newest_first, written_at
from runnable_ci.runs.run_identity import IDENTITY, describe_beginning, run_identity
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import DIGEST, TAG, Descriptor
from runnable_ci.util.responses import TRIES


class SeveralRunsError(RunLogError):
    """Several runs have one id; each is known by a reference of its own."""

    def __init__(self, message: str, *, hint: str, references: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.references = references


def find_manifests(registry: Registry, reference: str, layout: Layout | None = None) -> list[WriterManifest]:
    """Return all that is published of a run: of a run id, of `latest`, or just the part that one writer's tag or
    a digest is.

    What the store at `layout` knows is not fetched. Raises `RunNotFoundError`, `RunLogError` where a tag of the run
    holds another run, `StoreError`.
    """
    content = PublishedContent(registry, layout)
    if DIGEST.fullmatch(reference):
        return [content.part(_resolve_digest(registry, reference))]
    if reference != LATEST:
        return _parts_of(content, reference, list_tags(registry, with_record=False))
    for parts in newest_runs(registry, layout):
        return parts
    raise RunNotFoundError(f"no runs in {registry.label}")


def newest_runs(registry: Registry, layout: Layout | None = None) -> Iterator[list[WriterManifest]]:
    """Yield all that is published of each run, the newest first.

    The record of tags is believed until it is found to be wrong of a run; then each tag is asked for.
    """
    content = PublishedContent(registry, layout)
    listed = list_tags(registry, with_record=True)
    done: set[str] = set()
    for believed in (listed, replace(listed, record={})):
        for run_id in newest_first(content, believed):
            if run_id in done:
                continue
            try:
                parts = _parts_of(content, run_id, believed)
            except BlobMissingError:
                if not believed.record:
                    raise
                break  # a manifest that was recorded is gone
            if not _is_as_recorded(content, run_id, parts, believed.record):
                break
            done.add(run_id)
            yield parts
        else:
            return


def _is_as_recorded(content: PublishedContent, run_id: str, parts: Sequence[WriterManifest], record: TagRecord) -> bool:
    recorded = [entry.written for entry in record.values() if entry.run_id == run_id]
    found = [written_at(content.annotations(part.manifest)) for part in parts] if recorded else []
    return max(recorded, default="") == max(found, default="")


def _parts_of(content: PublishedContent, run_id: str, listed: ListedTags) -> list[WriterManifest]:
    registry = content.registry
    # A list may be older than a tag, or be answered by something that is no registry.
    mine = sorted({tag for tag in (run_id, *listed.tags) if TAG.fullmatch(tag) and may_be_of(tag, run_id)})
    manifests = _recorded(content, run_id, mine, listed.record) or content.resolve(mine)
    if not manifests:
        known = sorted(tag for tag in listed.tags if SEPARATOR not in tag)
        raise RunNotFoundError(
            f"{registry.label} has no run `{run_id}`",
            hint=did_you_mean(run_id, known, of_registry(registry, "runs", "--from", registry.label)),
        )
    return _parts(content, run_id, manifests)


def find_unlisted(registry: Registry, run_id: str, *, writers: Sequence[str]) -> list[WriterManifest]:
    """Return what is published of a run under its own tag and those of `writers`, without the list of tags.

    None where the tags are not there, or where we may not look. Raises as `find_manifests`.
    """
    content = PublishedContent(registry)
    try:
        manifests = content.resolve([run_id, *(f"{run_id}{SEPARATOR}{writer}" for writer in writers)])
    except RegistryAuthError:
        return []
    return _parts(content, run_id, manifests) if manifests else []


def _parts(content: PublishedContent, run_id: str, manifests: Mapping[str, Descriptor]) -> list[WriterManifest]:
    unique = {manifest.digest: manifest for manifest in manifests.values()}
    parts = dict(zip(unique, content.each(content.part, unique.values()), strict=True))
    if (own := manifests.get(run_id)) and is_writers_tag(run_id, parts[own.digest].log.run_id):
        return [_with_names(parts[own.digest], manifests)]
    for tag, manifest in manifests.items():
        stored_id = parts[manifest.digest].log.run_id
        if stored_id != run_id and (tag == run_id or not may_be_of(tag, stored_id)):
            raise RunLogError(
                f"the tag {tag} in {content.registry.label} holds run `{stored_id}`, not `{run_id}`; nothing was used",
                hint="the tag was moved: publish the run again from its original store, or pull it by its digest",
            )
    return [_with_names(part, manifests) for part in parts.values() if part.log.run_id == run_id]


def _recorded(
    content: PublishedContent, run_id: str, tags: Collection[str], record: TagRecord
) -> dict[str, Descriptor]:
    """Return tag → manifest as recorded, if the plain tag, which each publish moves, still points there."""
    if run_id not in record or not record.keys() >= set(tags):
        return {}
    if content.resolve_with(run_id, record[run_id].manifest) != record[run_id].manifest:
        return {}
    return {tag: record[tag].manifest for tag in tags}


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
    found = occupant_of(PublishedContent(registry), manifest)
    return found if found is not None and found.annotations[TITLE] == run_id else None


def find_occupants(registry: Registry, run_id: str) -> list[Occupant]:
    """Return all that has an id in the registry, by any tag; nothing where its tags cannot be listed."""
    try:
        tags = [tag for tag in registry.tags() if may_be_of(tag, run_id)]
    except (RegistryAuthError, RegistryProtocolError):  # that is not needed for anything else of a publish
        return []
    content = PublishedContent(registry)
    manifests = {manifest.digest: manifest for manifest in content.resolve(tags).values()}
    found = content.each(lambda manifest: occupant_of(content, manifest), manifests.values())
    return [occupant for occupant in found if occupant is not None and occupant.annotations[TITLE] == run_id]


def find_published(registry: Registry, tag: str, own: Descriptor) -> Descriptor | None:
    """Return the manifest that a tag points to where it is `own`, by one request, or derived from it; else None."""
    try:
        found = registry.resolve(tag, to_write=True)
        if found.digest == own.digest or PublishedContent(registry).annotations(found).get(DERIVED_FROM) == own.digest:
            return found
    except (ManifestNotFoundError, RegistryAuthError):  # some registries refuse to look at what there is not yet
        return None
    return None


def occupant_of(content: PublishedContent, manifest: Descriptor) -> Occupant | None:
    """Return the run that a manifest is of; None for anything else."""
    annotations = content.annotations(manifest)
    if not annotations.get(TITLE) or not annotations.get(IDENTITY):  # an earlier version, or another tool, wrote it
        try:
            annotations = manifest_annotations(content.part(manifest).log)
        except (RunLogError, BlobCorruptError, BlobMissingError):
            return None
    return Occupant(manifest, annotations)


def _resolve_digest(registry: Registry, digest: str) -> Descriptor:
    try:
        return registry.resolve(digest)
    except ManifestNotFoundError as e:
        raise RunNotFoundError(e.message, hint=of_registry(registry, "runs", "--from", registry.label)) from e
