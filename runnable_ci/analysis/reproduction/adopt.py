"""A run of another store on this machine, taken into this one."""

from __future__ import annotations

from runnable_ci.runs.artifact import layers
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import shared
from runnable_ci.runs.reader import catalog_of
from runnable_ci.runs.recorder import reopen
from runnable_ci.store.local import Layout


def adopt(source: Layout, layout: Layout, log: RunLog) -> None:
    """Take a run with all of its content into a store that has none of its id; `log` is what it becomes.

    Raises `BlobMissingError`, `BlobCorruptError`, `StoreError`; the run is there only once all of it is.
    """
    layout.create()
    with shared(layout):
        for content in layers(log).values():
            if not layout.exists(content):
                with source.fetch(content) as file:
                    layout.push(content, file)
        with reopen(layout, log) as recorder:
            recorder.seal(catalog_of(layout, recorder.log))
