"""What of a run in the store came from which writer: noted at each pull, named before a retry uses it.

An attempt is known by what it gave, not by its number or time alone: those a forger copies, and a merge renumbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from runnable_ci.errors import BlobCorruptError, RunLogError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.model import Invocation, RunLog, StepLog
from runnable_ci.runs.paths import WRITERS, run_folder
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.writers import AcceptedWriters, Writer
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import write_whole

_PUBLISHED_MAX = 1000


@dataclass(frozen=True, slots=True)
class Contributions:
    """What a store knows of a run's writers."""

    published: tuple[str, ...] = ()
    """Digests of the manifests that this store published."""
    writers: Mapping[str, Writer] = field(default_factory=dict)
    """Digest → each other writer whose part was merged."""
    results: Mapping[str, str] = field(default_factory=dict)
    """Key of an attempt, or of an invocation → digest of the part that it came with."""

    def after_pull(self, before: RunLog | None, parts: Sequence[tuple[Writer, RunLog]], after: RunLog) -> Contributions:
        """Return what is known once these parts were merged into `before`, which made `after` of it.

        An attempt belongs to the smallest part that has it: a later writer's contains those of the earlier.
        """
        keys = [(writer, _keys(log)) for writer, log in parts]
        by_size = sorted(keys, key=lambda part: (len(part[1]), part[0].written, part[0].digest))
        foreign = [(writer, held) for writer, held in by_size if writer.digest not in self.published]
        if not foreign:
            return self
        known = _keys(before) if before else set[str]()
        own = known.union(*(held for writer, held in by_size if writer.digest in self.published))
        results = dict(self.results)
        for key in sorted(_keys(after) - own):
            holders = [writer for writer, held in foreign if key in held]
            results[key] = (holders or [foreign[-1][0]])[0].digest
        return replace(
            self, writers={**self.writers, **{writer.digest: writer for writer, _ in foreign}}, results=results
        )

    def used(self, log: RunLog, reused: Collection[str]) -> dict[Writer, list[str]]:
        """Return each other writer, with those of the reused steps whose result is theirs, and `the parameters`."""
        found: dict[Writer, list[str]] = {writer: [] for writer in self.writers.values()}
        keys = {name: key for name in reused if (key := _last_key(log.steps[name]))}
        if log.invocations and log.invocations[-1].parameters:
            keys["the parameters"] = _invocation_key(log.invocations[-1])
        for what, key in keys.items():
            if writer := self.writers.get(self.results.get(key, "")):
                found[writer].append(what)
        return found


def read_contributions(layout: Layout, run_id: str) -> Contributions:
    """Return what was noted of a run's writers. Raises `RunLogError` for a note that cannot be read."""
    path = run_folder(layout, run_id) / WRITERS
    try:
        raw = parse_own(path.read_bytes())
        writers = [Writer(**{**it, "names": tuple(it["names"]), "refs": tuple(it["refs"])}) for it in raw["writers"]]
        noted = Contributions(tuple(raw["published"]), {it.digest: it for it in writers}, dict(raw["results"]))
        for digest in (*noted.published, *noted.writers):
            Descriptor("", digest, 0)
    except FileNotFoundError:
        return Contributions()
    except (ValueError, KeyError, TypeError, BlobCorruptError) as e:
        hint = f"remove it, then: {of_store(layout, 'pull', run_id, '--from', 'REGISTRY')}"
        raise RunLogError(f"{path} is damaged", hint=hint) from e
    return noted


def write_contributions(layout: Layout, run_id: str, noted: Contributions) -> None:
    """Note it for the next pull, and for the next retry."""
    document = {
        "published": noted.published,
        "writers": [asdict(writer) for writer in noted.writers.values()],
        "results": dict(noted.results),
    }
    path = run_folder(layout, run_id) / WRITERS
    write_whole(path, with_check(json.dumps(document).encode()), through=layout.temporaries)


def require_accepted(layout: Layout, run_id: str, accepted: AcceptedWriters) -> None:
    """Raise `UsageError` where something of a run here is by a writer who is not accepted: it cannot be taken out."""
    noted = read_contributions(layout, run_id)
    held = {noted.results[key] for key in _keys(load(layout, run_id)) & noted.results.keys()}
    for digest in sorted(held):
        if (writer := noted.writers.get(digest)) and not accepted.accepts(writer):
            raise UsageError(
                f"run `{run_id}` in {layout.label} has results of a writer that is not accepted ({accepted}): {writer}",
                hint="pull it into another folder, with the same --writers and --store DIR",
            )


def note_published(layout: Layout, run_id: str, digest: str) -> None:
    """Note that a manifest is this store's own."""
    noted = read_contributions(layout, run_id)
    if digest not in noted.published:
        published = (*noted.published, digest)[-_PUBLISHED_MAX:]
        write_contributions(layout, run_id, replace(noted, published=published))


def _keys(log: RunLog) -> set[str]:
    attempts = {key for step in log.steps.values() for key in _attempt_keys(step)}
    return attempts | {_invocation_key(invocation) for invocation in log.invocations}


def _last_key(step: StepLog) -> str:
    return list(_attempt_keys(step))[-1] if step.attempts else ""


def _attempt_keys(step: StepLog) -> Iterator[str]:
    last = step.attempts[-1] if step.attempts else None
    for attempt in step.attempts:
        entries = step.data_catalog if attempt is last else attempt.data_catalog
        given = [attempt.output_parameters, attempt.user_defined_metrics]
        yield _digest(
            [
                step.name,
                attempt.start_time,
                attempt.status == "SUCCESS",
                [{name: [it.kind, it.value, it.data_hash] for name, it in one.items()} for one in given],
                sorted([it.name, it.data_hash, it.kind, it.target, it.mode] for it in entries if it.stage == "put"),
            ]
        )


def _invocation_key(invocation: Invocation) -> str:
    return _digest([invocation.start_time, invocation.command, invocation.parameters])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
