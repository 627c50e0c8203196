"""The index of results that other runs may take: entries of many runs in one document, read within bounds. Pure.

Several writers may change it at once, and the last one wins. So what is written is always a merge of what was read and
of what is new, in which neither order nor repetition counts: an entry that got lost is a hit that is missed, and comes
back with the next publish of its run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from runnable_ci.errors import RunLogError
from runnable_ci.runs.reuse.entries import HOLDERS_MAX, KEPT_BYTES, ResultHolder, ReuseEntry
from runnable_ci.util.bounded_json import Allowance, RecordError, first_problem, parse_json

INDEX_VERSION = 1
PACKED_MAX_BYTES = 8 * 1024 * 1024
INDEX_MAX_BYTES = 32 * 1024 * 1024
"""Of the JSON. What was written within `KEPT_BYTES` is far below."""
KEPT_OF_STEP = 5
"""Newest results of a step that were made from different things."""
_ELEMENTS_MAX = 4_000_000
_BYTES_PER_FIELD = 4
"""An entry is mostly its log, which is checked when it is used."""
_SHARED = ("environments", "code_states", "packs")
"""Parts of a log that many entries have in common: each is in the document once."""

Index = tuple[ReuseEntry, ...]


class OtherIndexVersionError(RunLogError):
    """A later version of the program wrote an index, so that it can neither be read nor replaced."""

    @classmethod
    def of(cls, where: str) -> OtherIndexVersionError:
        """Return the error for the index there."""
        return cls(
            f"{where} was written by a later version of runnable-ci, which this version neither reads nor replaces"
        )


def merge(*indexes: Iterable[ReuseEntry]) -> Index:
    """Return the newest results of all, as many as are kept, in their one order."""
    by_attempt: dict[tuple[str, ...], ReuseEntry] = {}
    for entry in (entry for index in indexes for entry in index):
        key = (entry.pipeline, entry.step, entry.inputs, entry.identity, entry.ended)
        by_attempt[key] = _joined(by_attempt[key], entry) if key in by_attempt else entry
    newest: dict[tuple[str, ...], ReuseEntry] = {}
    for entry in by_attempt.values():
        made_from = (entry.pipeline, entry.step, entry.inputs)
        if made_from not in newest or _age(entry) > _age(newest[made_from]):
            newest[made_from] = entry
    of_step: dict[tuple[str, str], list[ReuseEntry]] = {}
    for entry in sorted(newest.values(), key=_used, reverse=True):
        of_step.setdefault((entry.pipeline, entry.step), []).append(entry)
    kept = [entry for entries in of_step.values() for entry in entries[:KEPT_OF_STEP]]
    return tuple(_within(sorted(kept, key=_used, reverse=True), KEPT_BYTES))


def held_also(index: Iterable[ReuseEntry], pipeline: str, taken: Mapping[str, str], holder: ResultHolder) -> Index:
    """Return the index in which a run holds what it took: step → `RUN_ID/STEP.ATTEMPT`."""
    return tuple(
        entry.model_copy(update={"held_by": _holders([*entry.held_by, holder])})
        if entry.pipeline == pipeline and taken.get(entry.step) == entry.title
        else entry
        for entry in index
    )


def without(index: Iterable[ReuseEntry], manifests: Collection[str]) -> Index:
    """Return the index without these manifests, and without the results that no other one holds."""
    found = []
    for entry in index:
        left = [holder for holder in entry.held_by if holder.manifest not in manifests]
        if left:
            found.append(entry if len(left) == len(entry.held_by) else entry.model_copy(update={"held_by": left}))
    return tuple(found)


def of_pipeline(index: Iterable[ReuseEntry], pipeline: str) -> dict[str, list[ReuseEntry]]:
    """Return step → its results, the newest first."""
    found: dict[str, list[ReuseEntry]] = {}
    for entry in sorted((it for it in index if it.pipeline == pipeline), key=_age, reverse=True):
        found.setdefault(entry.step, []).append(entry)
    return found


def encode(index: Iterable[ReuseEntry]) -> bytes:
    """Return the document, packed; the same for the same entries."""
    shared: dict[str, dict[str, Any]] = {name: {} for name in _SHARED}
    known: dict[int, tuple[str, Any]] = {}
    entries = []
    for entry in index:
        raw = entry.model_dump(mode="json", exclude_defaults=True, exclude={"log"})
        raw["log"] = dict(entry.log)
        for name in _SHARED:
            if table := entry.log.get(name):
                raw["log"][name] = {key: _shared(value, shared[name], known) for key, value in table.items()}
        entries.append(raw)
    document = {"version": INDEX_VERSION, "entries": entries, **shared}
    return gzip.compress(_json(document), 6, mtime=0)


def within(index: Index, at_most: int) -> tuple[Index, bytes]:
    """Return as much of an index as its document has room for, packed, and that: what was not used for long goes."""
    packed = encode(index)
    while len(packed) > at_most and index:
        index = index[: len(index) * at_most * 19 // (len(packed) * 20)]
        packed = encode(index)
    return index, packed


def decode(packed: bytes, *, where: str) -> Index:
    """Read an index. Raises `OtherIndexVersionError`, and `RunLogError` for anything else that cannot be used."""
    raw = _unpacked(packed, where)
    try:
        document = parse_json(raw, elements_max=_ELEMENTS_MAX)
        _require_version(document["version"], where)
        allowance = Allowance()
        allowance.grow(len(raw), bytes_per_field=_BYTES_PER_FIELD)
        return tuple(_entries(document, allowance))
    except (RecordError, ValidationError, ValueError, KeyError, TypeError, AttributeError) as e:
        problem = first_problem(e) if isinstance(e, ValidationError) else str(e)
        raise RunLogError(f"{where} cannot be read: {problem[:200]}") from e


def _require_version(version: Any, where: str) -> None:
    if type(version) is not int or version < 0:
        raise ValueError("it has no version")
    if version < INDEX_VERSION:
        raise RunLogError(f"{where} was written by an earlier version of runnable-ci; the next publish replaces it")
    if version > INDEX_VERSION:
        raise OtherIndexVersionError.of(where)


def _entries(document: Mapping[str, Any], allowance: Allowance) -> Iterator[ReuseEntry]:
    for raw in document["entries"]:
        log = dict(raw["log"])
        for name in _SHARED:
            if name in log:
                log[name] = {key: document[name][digest] for key, digest in log[name].items()}
        entry = ReuseEntry.model_validate({**raw, "log": {}}, context=allowance)
        entry.log = log
        yield entry


def _unpacked(packed: bytes, where: str) -> bytes:
    """Return what was packed, never more than the limit of it."""
    if len(packed) > PACKED_MAX_BYTES:
        raise RunLogError(f"{where} is larger than {PACKED_MAX_BYTES >> 20} MiB; it was not used")
    unpacking = zlib.decompressobj(wbits=31)
    try:
        raw = unpacking.decompress(packed, INDEX_MAX_BYTES)
    except zlib.error as e:
        raise RunLogError(f"{where} cannot be read: {e}") from e
    if not unpacking.eof:
        raise RunLogError(f"{where} is cut short, or becomes larger than {INDEX_MAX_BYTES >> 20} MiB; it was not used")
    return raw


def _joined(one: ReuseEntry, other: ReuseEntry) -> ReuseEntry:
    """Return two entries of one attempt as one: held by all that hold either."""
    if one.held_by == other.held_by and one == other:
        return one
    first = max(one, other, key=_content)
    return first.model_copy(update={"held_by": _holders([*one.held_by, *other.held_by])})


def _content(entry: ReuseEntry) -> bytes:
    return _json(entry.model_dump(mode="json", exclude={"held_by"}))


def _holders(found: Iterable[ResultHolder]) -> list[ResultHolder]:
    """Return the newest holders, each once."""
    unique = {holder.manifest: holder for holder in sorted(found, key=lambda it: (it.ended, it.run_id))}
    return sorted(unique.values(), key=lambda it: (it.ended, it.manifest), reverse=True)[:HOLDERS_MAX]


def _age(entry: ReuseEntry) -> tuple[str, ...]:
    return (entry.ended, entry.pipeline, entry.step, entry.inputs, entry.identity, entry.run_id)


def _used(entry: ReuseEntry) -> tuple[str, ...]:
    """Return by when a run last made or took a result: what is taken again and again is kept, however old it is."""
    return (max([entry.ended, *(holder.ended for holder in entry.held_by)]), *_age(entry))


def _within(entries: Sequence[ReuseEntry], most_bytes: int) -> Iterator[ReuseEntry]:
    """Yield entries as long as they fit; what is shared counts once."""
    seen: set[str] = set()
    known: dict[int, tuple[str, Any]] = {}
    sizes: dict[str, Any] = {}
    left = most_bytes
    for entry in entries:
        parts = {
            _shared(value, sizes, known) for name in _SHARED for value in (entry.log.get(name) or {}).values()
        } - seen
        seen |= parts
        own = entry.model_copy(update={"log": {k: v for k, v in entry.log.items() if k not in _SHARED}})
        left -= len(own.model_dump_json(exclude_defaults=True)) + sum(len(_json(sizes[digest])) for digest in parts)
        if left < 0:
            return
        yield entry


def _shared(value: Any, table: dict[str, Any], known: dict[int, tuple[str, Any]]) -> str:
    """Return by which digest a value is in a table, which has it then; one that was seen is not hashed again."""
    if id(value) not in known:
        known[id(value)] = (hashlib.sha256(_json(value)).hexdigest()[:32], value)
    digest = known[id(value)][0]
    table[digest] = value
    return digest


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
