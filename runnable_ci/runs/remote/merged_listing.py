"""The runs of a registry as a pull would bring each: where no version contains all others, these are merged."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunLogError
from runnable_ci.runs.artifact import manifest_annotations
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.remote.listing import PublishedRun, list_published
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.remote.published_content import PublishedContent
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry

LOG_MAX_BYTES = 16 * 1024 * 1024


def list_merged(registry: Registry, layout: Layout | None = None) -> list[PublishedRun]:
    """Return the runs of a registry, the newest last. Run logs are read only where versions are to be merged.

    What the store at `layout` knows is not fetched.
    """
    content = PublishedContent(registry, layout)
    return content.each(partial(_with_all_versions, content), list_published(registry, layout))


def is_pinned(registry: Registry, run: PublishedRun) -> bool:
    """Return whether a run of a registry is pinned, by the newest notes of all its versions."""
    return _with_all_versions(PublishedContent(registry), run).summary.pinned


def _with_all_versions(content: PublishedContent, run: PublishedRun) -> PublishedRun:
    if len(run.versions) < 2:
        return run
    manifests = {manifest.digest: manifest for manifest in run.manifests.values()}
    try:
        log = merge([content.part(manifests[it], log_max_bytes=LOG_MAX_BYTES).log for it in run.versions])
    except (RunLogError, BlobCorruptError, BlobMissingError):  # the newest speaks for it; to use the run is an error
        return run
    return replace(run, summary=Summary.of(log.run_id, manifest_annotations(log)))
