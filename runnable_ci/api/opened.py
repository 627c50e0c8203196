"""One run: its log as plain data, its files, its output, and the objects that its steps returned."""

from __future__ import annotations

import io
import os
import pickle
import posixpath
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Union

from runnable_ci.api.documents import load
from runnable_ci.api.journals import Log
from runnable_ci.api.listed import rows
from runnable_ci.api.rows import Row, code_of, labels, metrics_of, row_of_log, step_rows
from runnable_ci.api.shown import code, html_table, status
from runnable_ci.api.stores import Store, find_store, proven
from runnable_ci.errors import BlobMissingError, RunNotFoundError, did_you_mean
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import format_duration, format_pairs, listed

_LINKS_MAX = 40


class OpenRun:
    """One run. Everything is read from the store, nothing is written except by `save`."""

    def __init__(self, log: Log, store: Store) -> None:
        self.log = log
        """The whole run log, as `docs/reference/run-log.md` has it; steps of branches stand among the others."""
        self._store = store
        self._packs = {
            name: (pack, place) for pack, held in log["packs"].items() for name, place in held["members"].items()
        }

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.log["run_id"])

    @property
    def status(self) -> str:
        """`SUCCESS`, `FAIL`, or `PROCESSING` while it runs."""
        return str(self.log["status"])

    @property
    def metrics(self) -> Dict[str, Any]:
        """Metrics by name."""
        return metrics_of(self.log)

    @property
    def parameters(self) -> Dict[str, Any]:
        """Parameters by name: what the run began with and what its steps returned; objects are left out."""
        return {name: p["value"] for name, p in self.log["parameters"].items() if p["kind"] != "object"}

    @property
    def objects(self) -> Dict[str, str]:
        """Names of the objects that steps returned → their types."""
        return {name: p["object_type"] for name, p in self.log["parameters"].items() if p["kind"] == "object"}

    @property
    def files(self) -> List[str]:
        """Names of the files that steps put."""
        return sorted(self._files())

    @property
    def steps(self) -> List[Row]:
        """The steps, a table each: `pandas.DataFrame(run.steps)`."""
        return step_rows(self.log)

    @property
    def code(self) -> Dict[str, Any]:
        """The commit of the newest attempt, its branch, and whether it was all that the code was."""
        return code_of(self.log) or {}

    def read(self, name: str) -> bytes:
        """Return a file's content, verified. Raises `RunNotFoundError`, `BlobMissingError`, `BlobCorruptError`."""
        entry = self._file(name)
        return b"".join(self._content(entry["data_hash"], entry["size"]))

    def save(self, name: str, path: Union[str, Path]) -> Path:
        """Write a file's content, verified, to a path: whole or not at all."""
        entry, target = self._file(name), Path(path)
        handle, half = tempfile.mkstemp(dir=str(target.parent), prefix=f".{target.name}.")
        try:
            with open(handle, "wb") as file:
                for chunk in self._content(entry["data_hash"], entry["size"]):
                    file.write(chunk)
                os.fchmod(file.fileno(), entry["mode"] & 0o777)
            os.replace(half, target)
        except BaseException:
            os.unlink(half)
            raise
        return target

    def logs(self, step: str) -> str:
        """Return what a step's last attempt wrote, stdout and stderr in the order they came; of branches all theirs."""
        found = self._step(step)
        names = [name for name in self.log["steps"] if name == found or name.startswith(f"{found}.")]
        last = [(name, attempt) for name in names for attempt in self.log["steps"][name]["attempts"][-1:]]
        written = (chunk for name, attempt in last for chunk in self._output(name, attempt))
        return b"".join(written).decode(errors="replace")

    def load_object(self, name: str) -> Any:
        """Unpickle an object that a step returned; this executes code of the run's author, whom you must trust.

        The bytes are checked against the run log's sha256 first; what the object's classes need must be installed here.
        """
        parameter = self.log["parameters"].get(name)
        if parameter is None or parameter["kind"] != "object":
            raise RunNotFoundError(f"run {self.run_id} has no object `{name}`", hint=did_you_mean(name, self.objects))
        if parameter["items"]:  # of the instances of a matrix
            return [self._unpickled(it) if it["data_hash"] else None for it in parameter["items"]]
        return self._unpickled(parameter)

    def __repr__(self) -> str:
        row = row_of_log(self.log)
        said = [status(row["status"]), format_duration(row["seconds"]), code(row), format_pairs(row["metrics"])]
        if self.log["end_time"] and any(one["status"] == "PROCESSING" for one in self.steps):  # elsewhere
            said.append(f"{self.log['message']}: `{command('retry', self.run_id)}`")
        return f"<run {self.run_id}: {', '.join(filter(None, said))}>"

    def _repr_html_(self) -> str:
        head = ("step", "status", "attempts", "duration", "metrics", "files", "message")
        cells = (
            (
                *(step["label"], status(step["status"]), str(step["attempts"]), format_duration(step["seconds"])),
                *(format_pairs(step["metrics"]), ", ".join(step["files"][:5]), step["message"]),
            )
            for step in self.steps
        )
        return html_table(head, cells, caption=repr(self)[1:-1])

    def _unpickled(self, stored: Dict[str, Any]) -> Any:
        content = b"".join(self._content(stored["data_hash"], stored["size"] or 0))
        return pickle.load(io.BytesIO(content))  # noqa: S301 - asked for by name, and documented as what it is

    def _content(self, sha256: str, size: int) -> Iterator[bytes]:
        pack, (offset, size) = self._packs.get(sha256, (None, (0, size)))
        try:
            yield from self._store.chunks(sha256, size, blob=pack, offset=offset)
        except BlobMissingError as e:
            if not self._store.is_partial(self.run_id):
                raise
            raise BlobMissingError(e.message, hint=f"`{command('pull', self.run_id)}` downloads the whole run") from e

    def _output(self, name: str, attempt: Dict[str, Any]) -> Iterator[bytes]:
        kept = self._store.run_folder(self.run_id) / "logs" / f"{name}.{attempt['attempt_number']}.log"
        log = attempt["log"]
        if kept.exists():
            content = [kept.read_bytes()]
            yield from proven(content, log["data_hash"], log["size"], where=str(kept.parent)) if log else content
        elif log:
            yield from self._content(log["data_hash"], log["size"])

    def _step(self, word: str) -> str:
        known = dict(labels(self.log["steps"]))
        for name, label in known.items():
            if word in (name, label):
                return name
        hint = did_you_mean(word, known.values(), f"the steps are: {listed(known.values(), at_most=50)}")
        raise RunNotFoundError(f"run {self.run_id} has no step `{word}`", hint=hint)

    def _files(self) -> Dict[str, Dict[str, Any]]:
        """Return the files that the steps put, by their names; of a link what it leads to."""
        entries = (entry for step in self.log["steps"].values() for entry in step["data_catalog"])
        put = {entry["name"]: entry for entry in entries if entry["stage"] == "put"}
        found = {name: _followed(name, put) for name in put}
        return {name: entry for name, entry in found.items() if entry and not entry["kind"]}

    def _file(self, name: str) -> Dict[str, Any]:
        files = self._files()
        if name not in files:
            raise RunNotFoundError(f"run {self.run_id} has no file `{name}`", hint=did_you_mean(name, files))
        return files[name]


def open_run(word: str, folder: Optional[Path]) -> OpenRun:
    """Return the run of an id, `latest`, `latest-success` or a branch, as the command line finds it.

    Raises `RunNotFoundError`, `RunLogError`, `StoreError`.
    """
    store = find_store(folder)
    sealed = store.sealed()
    if word not in sealed:
        known = rows(store)
        run_id = word if word in known else _described(word, [*known.values()])
        if not run_id:
            raise _not_found(word, known, store)
        word = run_id
    return OpenRun(load(store, word, sealed.get(word)), store)


def _described(word: str, known: List[Row]) -> str:
    """Return the newest run that a word describes, empty for none; an experiment only as `latest`, of nothing else."""
    own = [row for row in known if not row["made_for"]]
    found = [
        row
        for row in (own or known if word == "latest" else own)
        if word == "latest"
        or (word == "latest-success" and row["status"] == "SUCCESS")
        or (row["ref"] == word and row["status"] != "PROCESSING")
    ]
    return str(found[-1]["run_id"]) if found else ""


def _not_found(word: str, known: Iterable[str], store: Store) -> RunNotFoundError:
    if not known:
        return RunNotFoundError(f"no runs in {store.folder}", hint=f"`{command('run')}` makes the first one")
    hint = did_you_mean(word, [*known, "latest", "latest-success"], f"`{command('runs')}` lists them")
    return RunNotFoundError(f"no run `{word}` in {store.folder}", hint=hint)


def _followed(name: str, entries: Dict[str, Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """Return the file to which a name leads through links; None where that is none of the entries."""
    for _ in range(_LINKS_MAX):
        parts = name.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        link = next((place for place in above if place in entries and entries[place]["kind"] == "link"), None)
        if link is None:
            return entries.get(name)
        place = posixpath.join(posixpath.dirname(link), entries[link]["target"], name[len(link) + 1 :])
        name = posixpath.normpath(place)
    return None
