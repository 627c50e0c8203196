"""A run for people who look at it from Python: a notebook, a report, a script of their own."""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnable_ci.errors import RunNotFoundError, did_you_mean
from runnable_ci.pipeline.project import find_store
from runnable_ci.runs.branches.labels import step_named
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.links import put_files
from runnable_ci.runs.model import CatalogEntry, RunLog
from runnable_ci.runs.reader import catalog_of, load, output_of, resolve_id, suggest_pull
from runnable_ci.store.target import Descriptor


@dataclass(frozen=True)
class OpenRun:
    """One run. Everything is read from the store, nothing is written except by `save`."""

    log: RunLog
    """The whole run log."""
    _catalog: Catalog

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.log.run_id

    @property
    def status(self) -> str:
        """`SUCCESS`, `FAIL`, or `PROCESSING` while it runs."""
        return self.log.status

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics by name."""
        return self.log.metrics()

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters by name: what the run began with and what its steps returned; objects are left out."""
        return {name: p.value for name, p in self.log.parameters.items() if p.kind != "object"}

    @property
    def objects(self) -> dict[str, str]:
        """Names of the objects that steps returned → their types."""
        return {name: p.object_type for name, p in self.log.parameters.items() if p.kind == "object"}

    @property
    def files(self) -> list[str]:
        """Names of the files that steps put."""
        return sorted(self._files())

    def read(self, name: str) -> bytes:
        """Return a file's content, verified. Raises `RunNotFoundError`, `BlobMissingError`, `BlobCorruptError`."""
        entry = self._file(name)
        with self._hint():
            return b"".join(self._catalog.read(entry.data_hash, entry.size))

    def save(self, name: str, path: str | Path) -> Path:
        """Write a file's content, verified, to a path."""
        with self._hint():
            self._catalog.extract(self._file(name), Path(path))
        return Path(path)

    def logs(self, step: str) -> str:
        """Return what a step's last attempt wrote, stdout and stderr in the order they came."""
        found = step_named(self.log, step, RunNotFoundError)
        names = [name for name in self.log.steps if name == found or name.startswith(f"{found}.")]
        last = [(name, attempt) for name in names for attempt in self.log.steps[name].attempts[-1:]]
        layout = self._catalog.layout
        outputs = (output_of(layout, self.log, f"{name}.{one.attempt_number}", one) for name, one in last)
        return b"".join(chunk for output in outputs for _, chunk in output).decode(errors="replace")

    def load_object(self, name: str) -> Any:
        """Unpickle an object that a step returned; this executes code of the run's author, whom you must trust.

        The bytes are checked against the run log's sha256 first; what the object's classes need must be installed here.
        """
        parameter = self.log.parameters.get(name)
        if parameter is None or parameter.kind != "object":
            raise RunNotFoundError(f"run {self.run_id} has no object `{name}`", hint=did_you_mean(name, self.objects))
        if parameter.items:  # of the instances of a matrix
            return [self._unpickled(it.data_hash, it.size) if it.data_hash else None for it in parameter.items]
        return self._unpickled(parameter.data_hash, parameter.size or 0)

    def _unpickled(self, sha256: str, size: int) -> Any:
        with self._hint(), self._catalog.layout.path(Descriptor.of_hash(sha256, size)).open("rb") as file:
            return pickle.load(file)  # noqa: S301 - asked for by name, and documented as what it is

    def _hint(self) -> AbstractContextManager[None]:
        return suggest_pull(self._catalog.layout, self.run_id)

    def _files(self) -> dict[str, CatalogEntry]:
        return put_files(self.log)

    def _file(self, name: str) -> CatalogEntry:
        files = self._files()
        if name not in files:
            raise RunNotFoundError(f"run {self.run_id} has no file `{name}`", hint=did_you_mean(name, files))
        return files[name]


def open_run(run_id: str, folder: Path | None) -> OpenRun:
    """Return the run of an id, or `latest`."""
    layout = find_store(folder)
    log = load(layout, resolve_id(layout, run_id))
    return OpenRun(log, catalog_of(layout, log))
