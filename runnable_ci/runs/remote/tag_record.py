"""What the tags of a registry's runs point to, in one manifest that each publish updates.

A listing asks for two thousand tags one by one; with the record it asks for the list, the record, and for those tags
alone that the record does not have. So the list of tags says what there is, and the record only what needs no request.

Registries have no compare-and-swap: of two updates at one moment the last wins. What the other one lost is a tag that
the record does not have, and is asked for. A tag that was *moved* would be believed at its old place: so its new place
is recorded before it is moved, and looked at again afterwards. To read a run, its plain tag is asked for anyway.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from runnable_ci.errors import RegistryAuthError, RegistryProtocolError, StoreError
from runnable_ci.runs.artifact import TITLE
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.live.life_sign import ALIVE
from runnable_ci.runs.remote.published_content import SEPARATOR, PublishedContent, may_be_of
from runnable_ci.runs.reuse.tagged_manifest import tag_manifest
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_ELEMENTS_MAX, MANIFEST_MEDIA_TYPE, TAG, Descriptor
from runnable_ci.util.bounded_json import parse_json

BRANCH_PREFIX = f"_branch{SEPARATOR}"
REUSE_PREFIX = f"_reuse{SEPARATOR}"
"""Of the tags of indexes of results, which are no runs' either."""
ATTEMPT_PREFIX = f"_attempt{SEPARATOR}"
"""Of what goes to another machine that runs an attempt, and comes back."""
RECORD_TAG = f"_tags{SEPARATOR}record"
RECORD_TYPE = "application/vnd.runnable.tags.v1+json"
RECORD_KEY = "vnd.runnable.tags"
RECORD_MAX_BYTES = 3 * 1024 * 1024
"""Below the four of a manifest; of more runs than that the oldest are left out, and asked for."""
LEARNED_AT_ONCE = 200
_TRIES = 3
_LINE = re.compile(
    r"([0-9a-f]{64}) ([0-9]{1,7}) ([0-9A-Za-z:.+-]{1,40}) ([A-Za-z0-9._-]{1,128}) ([A-Za-z0-9._,-]{0,20000})"
)


@dataclass(frozen=True, slots=True, order=True)
class RecordedTag:
    """What a tag of a run points to."""

    written: str
    """When that part of the run ended, or else began; `-` where it does not say."""
    run_id: str
    digest: str
    size: int

    @property
    def manifest(self) -> Descriptor:
        """The manifest of a run that it is."""
        return Descriptor(MANIFEST_MEDIA_TYPE, self.digest, self.size)

    @classmethod
    def of(cls, manifest: Descriptor, annotations: Mapping[str, str]) -> RecordedTag:
        """Return it by the annotations of a run's manifest."""
        return cls(written_at(annotations), annotations[TITLE], manifest.digest, manifest.size)


TagRecord = Mapping[str, RecordedTag]


@dataclass(frozen=True, slots=True)
class ListedTags:
    """The tags of a registry."""

    tags: frozenset[str]
    record: TagRecord
    """What is recorded of them."""

    @property
    def unknown(self) -> list[str]:
        """Those of which nothing is recorded, in order."""
        return sorted(self.tags - self.record.keys())


def list_tags(registry: Registry, *, with_record: bool) -> ListedTags:
    """Return the tags of runs, and what points to one, with what is recorded of them. Raises `StoreError`.

    Where the list is refused, or has nothing, those that are recorded are taken.
    """
    try:
        tags, refusal = frozenset(registry.tags()), None
    except (RegistryAuthError, RegistryProtocolError) as error:
        tags, refusal = frozenset[str](), error
    record = read_record(registry) if with_record and (RECORD_TAG in tags or not tags) else {}
    if refusal is not None and not record:
        raise refusal
    tags = tags or frozenset(record)
    of_runs = frozenset(tag for tag in tags if tag != RECORD_TAG and not tag.startswith((REUSE_PREFIX, ATTEMPT_PREFIX)))
    return ListedTags(of_runs, {tag: entry for tag, entry in record.items() if tag in of_runs})


def newest_first(content: PublishedContent, listed: ListedTags) -> Iterator[str]:
    """Yield the ids of the runs, the newest first, without fetching what is recorded of them."""
    manifests = content.resolve(listed.unknown)
    annotations = content.annotations_of(manifests)
    entries = dict(listed.record)
    for tag, manifest in manifests.items():
        if may_be_of(tag, annotations[manifest.digest].get(TITLE) or tag + SEPARATOR):
            entries[tag] = RecordedTag.of(manifest, annotations[manifest.digest])
    in_order = sorted(entries.items(), key=lambda item: (item[1].written, item[0]), reverse=True)
    yield from dict.fromkeys(entry.run_id for _, entry in in_order)


def written_at(annotations: Mapping[str, str]) -> str:
    """Return when a part of a run was written, by the annotations of its manifest."""
    summary = Summary.of(annotations[TITLE], dict(annotations))
    return summary.end_time or summary.start_time or "-"


def read_record(registry: Registry) -> TagRecord:
    """Return what is recorded; nothing where that cannot be read, as it only spares requests."""
    try:
        _, raw = registry.manifest(RECORD_TAG)
        return parse_record(parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)["annotations"][RECORD_KEY])
    except (StoreError, ValueError, KeyError, TypeError):
        return {}


def parse_record(text: str) -> TagRecord:
    """Return what lines say. Raises `ValueError` for any that is not as we write it."""
    found: dict[str, RecordedTag] = {}
    for line in text.split("\n") if text else ():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError("not a record of tags")
        digest, size, written, run_id, suffixes = match.groups()
        for suffix in suffixes.split(","):
            tag = f"{run_id}{suffix}"
            if not TAG.fullmatch(tag) or not may_be_of(tag, run_id):
                raise ValueError("not a record of tags")
            found[tag] = RecordedTag(written, run_id, f"sha256:{digest}", int(size))
    return found


def format_record(record: TagRecord) -> str:
    """Return lines, one for each manifest, the newest first; the oldest are left out where they are too many."""
    suffixes: dict[RecordedTag, list[str]] = {}
    for tag, entry in record.items():
        suffixes.setdefault(entry, []).append(tag.removeprefix(entry.run_id))
    lines: list[str] = []
    left = RECORD_MAX_BYTES
    for entry in sorted(suffixes, reverse=True):
        names = ",".join(sorted(suffixes[entry]))
        line = f"{entry.digest.removeprefix('sha256:')} {entry.size} {entry.written} {entry.run_id} {names}"
        left -= len(line) + 2
        if left < 0:
            break
        if _LINE.fullmatch(line):  # else it is asked for: what another tool wrote may have anything as its time
            lines.append(line)
    return "\n".join(lines)


def note_tags(registry: Registry, tags: Mapping[str, RecordedTag | None], *, learn: bool) -> None:
    """Record where tags point to, or will in a moment; None of one that is to be asked for, as all are if that fails.

    With `learn` some other tags that the record does not have yet are added, and those are dropped that are gone.
    """
    with suppress(StoreError):
        listed = _all_tags(registry) if learn else None
        learned: TagRecord | None = None
        for _ in range(_TRIES):
            record = read_record(registry)
            if learned is None:
                learned = _learned(registry, listed - record.keys() - tags.keys()) if listed else {}
            now = {tag: entry for tag, entry in {**record, **learned, **tags}.items() if entry is not None}
            if listed is not None:
                now = {tag: entry for tag, entry in now.items() if tag in listed or tag in tags}
            if parse_record(format_record(now)) == record:
                return
            _write(registry, now)


def _all_tags(registry: Registry) -> set[str] | None:
    """Return the tags; None where they are not listed, as none at all is no list of what was just written."""
    try:
        return {*registry.tags()} or None
    except (RegistryAuthError, RegistryProtocolError):
        return None


def _learned(registry: Registry, unknown: Collection[str]) -> TagRecord:
    content = PublishedContent(registry)
    manifests = content.resolve(sorted(_of_runs(unknown))[:LEARNED_AT_ONCE])
    annotations = content.annotations_of(manifests)
    return {
        tag: RecordedTag.of(manifest, annotations[manifest.digest])
        for tag, manifest in manifests.items()
        if may_be_of(tag, annotations[manifest.digest].get(TITLE) or tag + SEPARATOR)
        and ALIVE not in annotations[manifest.digest]  # it moves without a word here
    }


def _of_runs(tags: Collection[str]) -> Iterator[str]:
    """Yield what may be tags of runs: those of writers, and those that writers' tags begin with."""
    for tag in tags:
        if tag != RECORD_TAG and not tag.startswith((BRANCH_PREFIX, REUSE_PREFIX, ATTEMPT_PREFIX)) and SEPARATOR in tag:
            yield tag
            for match in re.finditer(f"(?={SEPARATOR})", tag):
                if tag[: match.start()] in tags:
                    yield tag[: match.start()]


def _write(registry: Registry, record: TagRecord) -> None:
    tag_manifest(registry, RECORD_TAG, RECORD_TYPE, {RECORD_KEY: format_record(record)})
