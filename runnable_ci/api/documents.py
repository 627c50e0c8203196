"""A run log as plain data: of a run that was sealed the document that its manifest proves, else what its journal says.

It has the fields of the schema of run logs, all of them, also where an earlier version wrote it, or a journal, which
leaves out what is as by default.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional

from runnable_ci.api.journals import Log, applied, flat, interruption, json_parameter, read_journal, require_readable
from runnable_ci.api.stores import JOURNAL, Sealed, Store
from runnable_ci.errors import BlobCorruptError, BlobMissingError, RunLogError
from runnable_ci.util.shell_command import command

_RUN_LOG_TYPE, _TYPE_BEFORE = "application/vnd.runnable.runlog.v1+json", "vnd.runnable.media-type"
_JOURNAL_SIZE = "vnd.runnable.journal-size"


def load(store: Store, run_id: str, sealed: Optional[Sealed]) -> Log:
    """Return the log of a run as it stands; one whose process was killed reads as the failure that it is.

    Raises `RunLogError`, `BlobMissingError`, `BlobCorruptError`.
    """
    try:
        log = _read(store, run_id, sealed)
        is_open = log.get("status", "PROCESSING") == "PROCESSING"
        if is_open and not store.is_written(run_id) and not _is_elsewhere(store, run_id):
            moment = _last_write(store.run_folder(run_id)) or log.get("start_time", "")
            for event in interruption(log, moment, store.in_flight(run_id)):
                log = applied(log, event)
        return _filled(log)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
        raise RunLogError(f"what {store.folder} has of run {run_id} is not a run log") from e


def is_row_current(sealed: Sealed, journal: Path) -> bool:
    """Return whether the annotations that the index has of a run say how it stands."""
    known = sealed.annotations
    return "vnd.runnable.status" in known and (_JOURNAL_SIZE not in known or _is_current(sealed, journal))


def time_of(moment_s: float) -> str:
    """Return a time of the file system, in seconds since 1970, as the run log has times."""
    return datetime.fromtimestamp(moment_s, timezone.utc).isoformat(timespec="microseconds")


def _is_current(sealed: Sealed, journal: Path) -> bool:
    """Return whether the journal has not grown since the run was sealed."""
    size = sealed.annotations.get(_JOURNAL_SIZE, "")
    return size.isdecimal() and (not journal.exists() or journal.stat().st_size == int(size))


def _read(store: Store, run_id: str, sealed: Optional[Sealed]) -> Log:
    journal = store.run_folder(run_id) / JOURNAL
    log = None
    if sealed and _is_current(sealed, journal):
        try:
            log = _document(store, run_id, sealed)
        except (BlobMissingError, BlobCorruptError):
            if not journal.exists():
                raise
    log = log or read_journal(journal, run_id) or (_document(store, run_id, sealed) if sealed else None)
    if log is None:
        raise RunLogError(f"{journal} has not one whole line", hint=f"`{command('show', run_id)}` says more")
    return log


def _document(store: Store, run_id: str, sealed: Sealed) -> Log:
    manifest = json.loads(store.read(sealed.sha256, sealed.size))
    for layer in manifest.get("layers", []):
        if _RUN_LOG_TYPE in (layer.get("mediaType"), (layer.get("annotations") or {}).get(_TYPE_BEFORE)):
            log: Log = json.loads(store.read(str(layer["digest"])[7:], int(layer["size"])))
            require_readable(str(log.get("schema_version", "1")), run_id)
            if log.get("run_id") != run_id:
                raise RunLogError(f"the tag {run_id} in {store.folder} points to the run log of {log.get('run_id')}")
            log["steps"] = dict(flat(log.get("steps", {}).items()))
            return log
    raise BlobMissingError(f"`{run_id}` in {store.folder} is not a run: it has no run log")


def _filled(log: Log) -> Log:
    """Return a log with all fields of its schema, and its large values wherever they were inputs."""
    schema = json.loads(Path(__file__).with_name("run-log.schema.json").read_text(encoding="utf-8"))
    log = _with_defaults(log, schema, schema["$defs"])
    attempts = [attempt for step in log["steps"].values() for attempt in step["attempts"]]
    inputs = [p for a in attempts for p in a["input_parameters"].values() if p["value_hash"]]
    if inputs:
        values = [value for one in log["invocations"] for value in one["parameters"].values()]
        values += [p["value"] for a in attempts for p in a["output_parameters"].values() if p["kind"] != "object"]
        known = {hashlib.sha256(json.dumps(v, sort_keys=True).encode()).hexdigest(): v for v in values}
        for parameter in inputs:
            if parameter["value_hash"] in known:
                parameter.update(json_parameter(known[parameter["value_hash"]]), value_hash="", redacted=False)
            elif parameter["value"] is None:
                parameter.update(value="***", redacted=True)
    return log


def _with_defaults(value: Any, schema: Dict[str, Any], records: Dict[str, Any]) -> Any:
    """Return a value of a JSON schema with what it leaves out; what the schema does not know stays as it is."""
    if "anyOf" in schema:
        fitting = [one for one in schema["anyOf"] if ("$ref" in one) == isinstance(value, dict)]
        return _with_defaults(value, fitting[0], records) if fitting else value
    if "$ref" in schema:
        schema = records[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_with_defaults(item, schema["items"], records) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    others = schema.get("additionalProperties")
    inner = others if isinstance(others, dict) else {}
    absent = {name: _default(one, records) for name, one in known.items() if name not in value}
    return {**{n: _with_defaults(v, known.get(n, inner), records) for n, v in value.items()}, **absent}


def _default(schema: Dict[str, Any], records: Dict[str, Any]) -> Any:
    if "default" in schema:
        return schema["default"]
    if "$ref" in schema:
        return _with_defaults({}, schema, records)
    return {"array": [], "object": {}, "string": "", "boolean": False, "integer": 0}.get(schema.get("type", ""))


def _last_write(folder: Path) -> str:
    """Return when a run was written to last, which is the best guess of when its process was killed."""
    signs = (folder / JOURNAL, folder / "logs", *folder.glob("logs/*"))
    written = [path.stat().st_mtime for path in signs if path.exists()]
    return time_of(max(written)) if written else ""


def _is_elsewhere(store: Store, run_id: str) -> bool:
    """Return whether another machine was at a run when it was pulled, and is to be believed to be at it still."""
    try:
        note = json.loads((store.run_folder(run_id) / "in-progress").read_bytes())
        return time.time() < float(note["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
