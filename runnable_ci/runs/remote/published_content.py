"""What tags of a registry point to: manifests of runs, and the run logs that they name, verified and fit to be used.

Tags have no compare-and-swap, so each writer of a run has a tag of its own, `RUN_ID--WRITER`, and reading a run is
merging what all of them say. The plain tag `RUN_ID` is for people and other tools: it points to the newest version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from runnable_ci.errors import BlobCorruptError, BlobMissingError, ManifestNotFoundError, RunLogError
from runnable_ci.pipeline.command_line import of_registry
from runnable_ci.runs.artifact import RUN_LOG_MEDIA_TYPE
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.live.life_sign import LifeSign
from runnable_ci.runs.live.segments import JOURNAL_MEDIA_TYPE, log_of_segments
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.remote.manifest_forms import is_run, original_type
from runnable_ci.runs.remote.sound_log import require_sound
from runnable_ci.runs.remote.writers import Writer
from runnable_ci.store.content_cache import ContentCache
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import (
    MANIFEST_ELEMENTS_MAX,
    MANIFEST_MEDIA_TYPES,
    Descriptor,
    manifest_parts,
    read_manifest,
    verified,
)
from runnable_ci.util.bounded_json import indentation, parse_json
from runnable_ci.util.threads import map_all

SEPARATOR = "--"
RUN_LOG_MAX_BYTES = 256 * 1024 * 1024
LOG_SLACK_BYTES = 64 * 1024
_JOBS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class WriterManifest:
    """What one writer published of a run."""

    manifest: Descriptor
    log: RunLog
    size_bytes: int
    """Of the log, as it came."""
    names: Sequence[str] = ()
    """What follows the run id in the tags that point to it."""
    sign: LifeSign | None = None
    """Of who writes it, where it is a part of a run in progress."""
    is_live: bool = False
    """Whether it was published while the run was being written."""

    @property
    def writer(self) -> Writer:
        """Who wrote it, as it says."""
        return Writer.of(self.log, self.manifest.digest, self.names)


class PublishedContent:
    """The content of a registry. What a digest names cannot change, so what is known here is not fetched again."""

    def __init__(self, registry: Registry, layout: Layout | None = None) -> None:
        self.registry = registry
        self._layout = layout
        self._cache = ContentCache.of(layout)
        self._read: dict[str, bytes] = {}

    def resolve(self, tags: Iterable[str]) -> dict[str, Descriptor]:
        """Return tag → manifest, without the tags that are gone since they were listed."""

        def resolve(tag: str) -> Descriptor | None:
            try:
                return self.registry.resolve(tag)
            except ManifestNotFoundError:
                return None

        found = self.each(resolve, in_order := list(tags))
        return {tag: manifest for tag, manifest in zip(in_order, found, strict=True) if manifest is not None}

    def resolve_with(self, tag: str, expected: Descriptor) -> Descriptor | None:
        """Return the manifest that a tag points to; the same request brings it, where the expected one is not known."""
        try:
            if self._known(expected) is not None:
                return self.registry.resolve(tag)
            manifest, raw = self.registry.manifest(tag)
        except ManifestNotFoundError:
            return None
        self._keep(manifest, raw)
        return manifest

    def annotations(self, manifest: Descriptor) -> dict[str, str]:
        """Return the annotations of a run's manifest; empty for anything else."""
        try:
            raw = self._bytes(manifest)
        except BlobMissingError:  # Pulp lists and resolves the tags of what was removed
            return {}
        try:
            parsed = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)
            annotations = parsed["annotations"] if is_run(parsed) else {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
        is_text = isinstance(annotations, dict) and all(isinstance(value, str) for value in annotations.values())
        return annotations if is_text else {}

    def annotations_of(self, manifests: Mapping[str, Descriptor]) -> dict[str, dict[str, str]]:
        """Return digest → annotations of manifests, each of which is read once."""
        unique = {manifest.digest: manifest for manifest in manifests.values()}
        return dict(zip(unique, self.each(self.annotations, unique.values()), strict=True))

    def part(self, manifest: Descriptor, *, log_max_bytes: int = RUN_LOG_MAX_BYTES) -> WriterManifest:
        """Return a manifest's run log, verified, and fit to be used: no name or digest in it leads anywhere."""
        label = self.registry.label
        listing = of_registry(self.registry, "runs", "--from", label)
        found = read_part(manifest, self._bytes, label=label, hint=listing, log_max_bytes=log_max_bytes)
        if not found.is_live:
            return found
        return replace(found, sign=LifeSign.of(self.annotations(manifest)))

    def each(self, work: Callable[[T], R], items: Collection[T]) -> list[R]:
        """Return the results for all items, in their order; many at a time."""
        found = list(map_all(work, list(items), jobs=_JOBS, name="registry"))
        if self._cache is not None:
            self._cache.trim()
        return found

    def _bytes(self, descriptor: Descriptor) -> bytes:
        known = self._known(descriptor)
        if known is not None:
            return known
        with self.registry.fetch(descriptor) as source:
            if descriptor.media_type in MANIFEST_MEDIA_TYPES:
                raw = read_manifest(source, descriptor, label=self.registry.label)
            else:
                raw = b"".join(verified(source, descriptor, label=self.registry.label))
        self._keep(descriptor, raw)
        return raw

    def _known(self, descriptor: Descriptor) -> bytes | None:
        found = self._read.get(descriptor.digest)
        if found is None and self._cache is not None:
            found = self._cache.read(descriptor)
        if found is None and self._layout is not None and self._layout.exists(descriptor):
            try:
                found = self._layout.read_bytes(descriptor)
            except BlobCorruptError:
                return None
        return found

    def _keep(self, descriptor: Descriptor, content: bytes) -> None:
        if self._cache is not None:
            self._cache.keep(descriptor, content)
        elif descriptor.media_type in MANIFEST_MEDIA_TYPES:
            self._read[descriptor.digest] = content


def read_part(
    manifest: Descriptor,
    read: Callable[[Descriptor], bytes],
    *,
    label: str,
    hint: str,
    log_max_bytes: int = RUN_LOG_MAX_BYTES,
) -> WriterManifest:
    """Return a manifest's run log, from wherever `read` brings its verified contents, fit to be used.

    Raises `RunLogError`, with the `hint` for what is no run, `StoreError`.
    """
    where = f"{manifest.digest} in {label}"
    raw = read(manifest)
    manifest = replace(manifest, size=len(raw))  # a registry may have announced another one
    parts = manifest_parts(raw, manifest, label=label)
    logs = [part for part in parts if original_type(part) == RUN_LOG_MEDIA_TYPE]
    journal = [part for part in parts if original_type(part) == JOURNAL_MEDIA_TYPE]
    if len(logs) != (0 if journal else 1):
        raise RunLogError(f"{where} is not a run", hint=hint)
    if (size := sum(part.size for part in logs or journal)) > log_max_bytes:
        raise BlobCorruptError(f"the run log of {where} is larger than {log_max_bytes >> 20} MiB; it was not used")
    if journal:
        log = log_of_segments(map(read, journal), where=where)
        document = encode(log)
    else:
        document = read(logs[0])
        log = decode(document, where=where)
    if indentation(parse_json(document)) > len(document) + LOG_SLACK_BYTES:
        raise RunLogError(f"the run log of {where} is nested too deeply for its size; it was not used")
    require_sound(log, {part.digest: part.size for part in parts}, where)
    return WriterManifest(manifest, log, max(size, len(document) if journal else 0), is_live=bool(journal))


def may_be_of(tag: str, run_id: str) -> bool:
    """Return whether a tag is a run's by its name: the plain one, or a writer's."""
    return tag == run_id or is_writers_tag(tag, run_id)


def is_writers_tag(tag: str, run_id: str) -> bool:
    """Return whether a tag is that of a writer of a run, by its name."""
    return tag.startswith(f"{run_id}{SEPARATOR}")
