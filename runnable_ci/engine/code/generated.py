"""Which files steps made, as far as the logs of runs here tell: by path and content, never by a pattern alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.patterns import matches
from runnable_ci.runs.code_states import states
from runnable_ci.runs.model import CatalogEntry
from runnable_ci.runs.reader import load, run_ids
from runnable_ci.store.local import Layout

RUNS_MAX: Final = 5
"""The logs of so many of the newest runs are read, the newest first, and only where a file is asked for."""


class GeneratedFiles:
    """The files that steps put, of the newest runs and of this one.

    What was a change of the code with the same content before is a person's, though a pattern matches it since.
    """

    def __init__(self, layout: Layout, patterns: Sequence[str]) -> None:
        self._layout = layout
        self._is_put = lru_cache(maxsize=65_536)(lambda path: any(matches(pattern, path) for pattern in patterns))
        self._made: set[tuple[str, str]] = set()
        self._changes: dict[str, set[str]] = {}
        self._unread: list[str] | None = None

    def __call__(self, path: str, sha256: str) -> bool:
        """Return whether a step made the file at a path, from the pipeline's folder, with just this content."""
        if not self._is_put(path):
            return False
        while (path, sha256) not in self._made:
            if not self._read_next():
                return False
        return not any(f"/{name}".endswith(f"/{path}") for name in self._changes.get(sha256, ()))

    def add(self, entries: Iterable[CatalogEntry]) -> None:
        """Know what an attempt put."""
        self._made.update((entry.name, entry.data_hash) for entry in entries if entry.stage == "put")

    def add_changes(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """Know what was a change of the code, by its path from the repository's root."""
        for name, (_, sha256) in changes.items():
            self._changes.setdefault(sha256, set()).add(name)

    def _read_next(self) -> bool:
        if self._unread is None:
            try:
                self._unread = run_ids(self._layout)[-RUNS_MAX:]
            except (RunnableError, OSError):  # a store that cannot be read says nothing of files
                self._unread = []
        if not self._unread:
            return False
        try:
            log = load(self._layout, self._unread.pop())
        except (RunnableError, OSError):
            return True
        for step in log.steps.values():
            self.add(step.data_catalog)
            for attempt in step.attempts:
                self.add(attempt.data_catalog)
        for state in states(log):
            self.add_changes(state.changes)
        return True
