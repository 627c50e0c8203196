"""Results of runs of a branch that its index lacks, found again in the runs themselves: some at each publish.

An index loses entries where two write it at one moment, and all where its tag is deleted or damaged. It says itself of
which runs it had all, so what is lost goes together with the sign that it was there. Of the newest runs in the record
of tags the others are looked at, once each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

from runnable_ci.errors import BlobCorruptError, RunLogError, RunnableError, StoreError
from runnable_ci.observe.reads import decode_reads
from runnable_ci.runs.artifact import reads_blobs
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.remote.published_content import PublishedContent
from runnable_ci.runs.remote.tag_record import RecordedTag, read_record
from runnable_ci.runs.reuse.entries import PULL, ReuseEntry, branch_of, entries_of
from runnable_ci.runs.reuse.index_tag import StoredIndex
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import Descriptor, verified

NEWEST_MAX = 200
"""Of so many runs' manifests, the newest ones, the index is to have all; it remembers more."""
MANIFESTS_MAX = 20
"""So many are looked at in one publish, each by a request."""
LOGS_MAX = 5
"""So many of the branch are read then."""
_LOG_MAX_BYTES = 32 * 1024 * 1024
_READS_BLOBS_MAX = 3
_READS_BLOB_MAX_BYTES = 4 * 1024 * 1024
_REF = "vnd.runnable.ref"


class FoundAgain(NamedTuple):
    """What an index lacked."""

    entries: tuple[ReuseEntry, ...] = ()
    manifests: tuple[str, ...] = ()
    """Digests of those that were looked at, and need not be again; the newest last."""


def find_again(
    registry: Registry, branch: str, there: StoredIndex, layout: Layout, *, except_for: str = ""
) -> FoundAgain:
    """Return what recent runs of a branch gave that its index lacks; nothing where that cannot be looked at now.

    `except_for` is the digest of a manifest that need not be.
    """
    with suppress(RunnableError):
        recorded = sorted({*read_record(registry).values()}, reverse=True)
        unknown = (it for it in recorded[:NEWEST_MAX] if it.digest != except_for and not there.has(it.digest))
        if found := list(islice(unknown, MANIFESTS_MAX)):
            return _found_in(PublishedContent(registry, layout), found, branch)
    return FoundAgain()


def _found_in(content: PublishedContent, recorded: list[RecordedTag], branch: str) -> FoundAgain:
    annotations = content.each(partial(_annotations, content), recorded)
    of_branch = [it for it, its_own in zip(recorded, annotations, strict=True) if _may_be_of(branch, its_own)]
    later = of_branch[LOGS_MAX:]
    read = content.each(partial(_entries_in, content, branch), of_branch[:LOGS_MAX])
    entries = tuple(entry for found in read for entry in found or ())
    unread = [it for it, found in zip(of_branch, read, strict=False) if found is None]
    done = [it.digest for it in reversed(recorded) if it not in later and it not in unread]
    return FoundAgain(entries, tuple(done))


def _annotations(content: PublishedContent, recorded: RecordedTag) -> Mapping[str, str]:
    with suppress(BlobCorruptError):  # the record is wrong of it
        return content.annotations(recorded.manifest)
    return {}


def _may_be_of(branch: str, annotations: Mapping[str, str]) -> bool:
    """Return whether a run's manifest may have results of a branch; that of a pull request's job says nothing of it."""
    return bool(annotations) and (branch.startswith(PULL) or annotations.get(_REF, branch) == branch)


def _entries_in(content: PublishedContent, branch: str, recorded: RecordedTag) -> list[ReuseEntry] | None:
    """Return what a run gives; None where the registry did not say."""
    try:
        log = content.part(recorded.manifest, log_max_bytes=_LOG_MAX_BYTES).log
        entries = entries_of(log, manifest=recorded.digest, reads_of=_reads_in(content.registry, log), is_here=False)
        return [entry for entry in entries if branch_of(entry.refs) == branch]
    except (RunLogError, BlobCorruptError):  # nobody else can use it either
        return []
    except StoreError:
        return None


def _reads_in(registry: Registry, log: RunLog) -> Callable[[StepAttempt], bytes | None]:
    """Return what gives the documents of what attempts read, as far as few requests bring them."""
    wanted = [blob for blob in reads_blobs(log) if blob.size <= _READS_BLOB_MAX_BYTES][-_READS_BLOBS_MAX:]
    blobs = {blob.hex: _content(registry, blob) for blob in wanted}
    packs = PackIndex(log.packs)

    def reads_of(attempt: StepAttempt) -> bytes | None:
        if attempt.reads in packs:
            offset, size = packs.section(attempt.reads)
            document = blobs.get(packs[attempt.reads][0], b"")[offset : offset + size]
        else:
            document = blobs.get(attempt.reads, b"")
        if hashlib.sha256(document).hexdigest() != attempt.reads:
            return None
        decode_reads(document, where=f"what run {log.run_id} read")
        return document

    return reads_of


def _content(registry: Registry, blob: Descriptor) -> bytes:
    try:
        with registry.fetch(blob) as source:
            return b"".join(verified(source, blob, label=registry.label))
    except StoreError:  # it is fetched, or found missing, by who looks at the result
        return b""
