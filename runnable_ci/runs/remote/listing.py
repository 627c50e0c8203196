"""The runs of a registry, by their manifests alone, and which of them is the newest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from runnable_ci.errors import ManifestNotFoundError
from runnable_ci.runs.artifact import TITLE
from runnable_ci.runs.causality.versions import newest_versions
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.live.life_sign import LifeSign
from runnable_ci.runs.model import FAIL
from runnable_ci.runs.remote.published_content import PublishedContent, may_be_of
from runnable_ci.runs.remote.remote_index import occupant_of
from runnable_ci.runs.remote.tag_record import BRANCH_PREFIX, ListedTags, list_tags
from runnable_ci.runs.run_identity import IDENTITY, describe_beginning
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import Descriptor


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
    sign: LifeSign | None = None
    """Of who is writing it at this moment."""

    @property
    def newest(self) -> Descriptor:
        """The manifest of the part that was written last."""
        return list(self.manifests.values())[-1]


def published(registry: Registry) -> list[Summary]:
    """Return a line for each run, the newest last, from the manifests alone; what is no run is left out."""
    return [run.summary for run in list_published(registry)]


def list_published(registry: Registry, layout: Layout | None = None, *, exact: bool = False) -> list[PublishedRun]:
    """Return the runs of a registry, the newest last, by their manifests alone; what is no run is left out.

    What the store at `layout` knows is not fetched; with `exact` no record is believed of what a tag points to.
    """
    content = PublishedContent(registry, layout)
    return _runs_of(content, list_tags(registry, with_record=not exact))


def remove(registry: Registry, run: PublishedRun, delete: Callable[[Descriptor], None]) -> bool:
    """Remove a run by `delete`; False, and nothing is removed, where it was modified since it was looked at.

    What is broken off leaves a run that can be read and removed. Raises `StoreError`, and what `delete` raises.
    """
    if PublishedContent(registry).resolve(run.manifests) != run.manifests:
        return False
    for manifest in {manifest.digest: manifest for manifest in run.manifests.values()}.values():
        delete(manifest)
    return True


def newest_of_branch(registry: Registry, pipeline: str, branch: str) -> Summary | None:
    """Return the run of a pipeline that was kept as the newest of a branch; None where there is none."""
    try:
        annotations = PublishedContent(registry).annotations(registry.resolve(branch_tag(pipeline, branch)))
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


def _runs_of(content: PublishedContent, listed: ListedTags) -> list[PublishedRun]:
    manifests = {tag: entry.manifest for tag, entry in listed.record.items()} | content.resolve(listed.unknown)
    manifests = {tag: manifests[tag] for tag in sorted(manifests)}
    found = content.annotations_of(manifests)
    if not all(found[entry.digest].get(TITLE) for entry in listed.record.values()):  # what was recorded is gone
        return _runs_of(content, replace(listed, record={}))
    tags_of: dict[str, list[str]] = {}
    pins: dict[str, list[str]] = {}
    for tag, manifest in manifests.items():
        run_id = found[manifest.digest].get(TITLE, "")
        if may_be_of(tag, run_id):
            tags_of.setdefault(run_id, []).append(tag)
        else:
            pins.setdefault(manifest.digest, []).append(tag)
    runs = [
        _published_run(of_one, found, pins, content.registry.now_s())
        for mine in tags_of.values()
        for of_one in _by_identity(content, {tag: manifests[tag] for tag in mine}, found)
    ]
    return sorted(runs, key=lambda run: run.summary.end_time or run.summary.start_time)


def _by_identity(
    content: PublishedContent, manifests: Mapping[str, Descriptor], annotations: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Descriptor]]:
    """Return the tags of one run id by the run that they are of: more than one where two runs have it."""
    unique = {manifest.digest: manifest for manifest in manifests.values()}
    identities = {digest: annotations[digest].get(IDENTITY, "") for digest in unique}
    if len(unique) > 1:  # else it is one run, and not even the log of an old one need be read
        for digest, manifest in unique.items():
            if not identities[digest]:
                occupant = occupant_of(content, manifest)
                identities[digest] = occupant.identity if occupant else digest
    runs: dict[str, dict[str, Descriptor]] = {}
    for tag, manifest in manifests.items():
        runs.setdefault(identities[manifest.digest], {})[tag] = manifest
    return list(runs.values())


def _published_run(
    manifests: Mapping[str, Descriptor],
    annotations: Mapping[str, dict[str, str]],
    pins: Mapping[str, Sequence[str]],
    now_s: float,
) -> PublishedRun:
    parts = [(Summary.of(annotations[m.digest][TITLE], annotations[m.digest]), tag) for tag, m in manifests.items()]
    versions = newest_versions({m.digest: annotations[m.digest] for m in manifests.values()})
    in_order = sorted(parts, key=lambda it: (manifests[it[1]].digest in versions, it[0].end_time or it[0].start_time))
    attempts = max(summary.attempts for summary, _ in parts)
    mine = {tag: manifests[tag] for _, tag in in_order}
    pinned_by = [tag for digest in {m.digest for m in mine.values()} for tag in pins.get(digest, ())]
    summary, newest = replace(in_order[-1][0], attempts=attempts), annotations[mine[in_order[-1][1]].digest]
    sign = LifeSign.of(newest)
    if sign is not None and not sign.is_alive(now_s):  # as a run is that was killed here
        summary, sign = replace(summary, status=FAIL), None
    return PublishedRun(summary, mine, versions, sorted(pinned_by), describe_beginning(newest), sign)
