"""A run of another store on this machine, taken into this one."""

from __future__ import annotations

from collections.abc import Iterable

from runnable_ci.runs.artifact import layers
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import shared
from runnable_ci.runs.reader import catalog_of
from runnable_ci.runs.recorder import reopen
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor


def adopt(source: Layout, layout: Layout, log: RunLog) -> None:
    """Take a run with all of its content into a store that has none of its id; `log` is what it becomes.

    Raises `BlobMissingError`, `BlobCorruptError`, `StoreError`; the run is there only once all of it is.
    """
    layout.create()
    with shared(layout):
        bring(source, layout, layers(log).values())
        with reopen(layout, log) as recorder:
            recorder.seal(catalog_of(layout, recorder.log))


def bring(source: Layout, layout: Layout, contents: Iterable[Descriptor]) -> None:
    """Copy contents from one store of this machine into another. Raises `BlobMissingError`, `BlobCorruptError`."""
    for content in contents:
        if not layout.exists(content):
            with source.fetch(content) as file:
                layout.push(content, file)
