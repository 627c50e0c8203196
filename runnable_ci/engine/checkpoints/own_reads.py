"""What a step read, without its own checkpoint: that is no input of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from posixpath import join

from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step


def without_checkpoint(reads: ReadSet, step: Step) -> ReadSet:
    """Return the record of what a step read without the files of its checkpoint, also in folders that it listed."""

    def counts(path: str) -> bool:
        return not any(may_name(pattern, path) for pattern in step.checkpoint)

    def counting(folder: str, names: Iterable[str]) -> list[str]:
        return [name for name in names if counts(join(folder, name))]

    listings = {
        folder: listing.model_copy(
            update={"names": counting(folder, listing.names), "unsettled": counting(folder, listing.unsettled)}
        )
        for folder, listing in reads.listings.items()
        if not folder or counts(folder)
    }
    return reads.model_copy(
        update={
            "files": {path: read for path, read in reads.files.items() if counts(path)},
            "listings": listings,
            "absent": {path: grade for path, grade in reads.absent.items() if counts(path)},
            "links": {path: target for path, target in reads.links.items() if counts(path)},
            "removed": [path for path in reads.removed if counts(path)],
        }
    )
