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
from runnable_ci.runs.remote.writers import AcceptedWriters, Maker, Writer, makers_by_invocation
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
    results: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key of an attempt, or of an invocation → digests of the parts known to hold it, that which it came with first."""

    places: Mapping[str, str] = field(default_factory=dict)
    """Digest → the registry that a manifest of `published` was sent to last, as far as it is known."""

    def after_pull(self, before: RunLog | None, parts: Sequence[tuple[Writer, RunLog]], after: RunLog) -> Contributions:
        """Return what is known once these parts were merged into `before`, which made `after` of it.

        An attempt came with the smallest part that has it: a later writer's contains those of the earlier.
        """
        keys = [(writer, _keys(log)) for writer, log in parts]
        by_size = sorted(keys, key=lambda part: (len(part[1]), part[0].publisher.written, part[0].digest))
        foreign = [(writer, held) for writer, held in by_size if writer.digest not in self.published]
        if not foreign:
            return self
        known = _keys(before) if before else set[str]()
        own = known.union(*(held for writer, held in by_size if writer.digest in self.published)) - self.results.keys()
        results = dict(self.results)
        for key in sorted(_keys(after) - own):
            holders = [*results.get(key, ()), *(writer.digest for writer, held in foreign if key in held)]
            results[key] = tuple(dict.fromkeys(holders or [foreign[-1][0].digest]))
        return replace(
            self, writers={**self.writers, **{writer.digest: writer for writer, _ in foreign}}, results=results
        )

    def used(self, log: RunLog, reused: Collection[str]) -> dict[str, list[str]]:
        """Return others who made something of the run, with those of the reused steps whose result is theirs, and
        `the parameters`; who published it is named where that is not its maker.
        """
        makers, newest = makers_by_invocation(log), log.invocations[-1] if log.invocations else None
        made = [
            (key, makers[attempt.invocation], step.name if attempt is step.attempts[-1] and step.name in reused else "")
            for step in log.steps.values()
            for key, attempt in zip(_attempt_keys(step), step.attempts, strict=True)
        ]
        given = [
            (_invocation_key(it), makers[it.number], "the parameters" if it is newest and it.parameters else "")
            for it in log.invocations
        ]
        found: dict[tuple[Maker, str], tuple[Maker, list[str]]] = {}
        for key, maker, what in sorted([*made, *given], key=lambda it: it[1].written):
            if key in self.results:
                source = (maker.source, self.results[key][0])
                results = found[source][1] if source in found else []
                found[source] = (maker, [*results, *([what] if what else [])])
        return {self.writers[digest].with_results_of(maker): it for (_, digest), (maker, it) in found.items()}

    def refused(self, log: RunLog, accepted: AcceptedWriters) -> list[Writer]:
        """Return with which parts something of a run came that is in no accepted part."""
        holders = {self.results[key] for key in _keys(log) & self.results.keys()}
        accepts = {digest: accepted.accepts(writer) for digest, writer in self.writers.items()}
        firsts = {digests[0] for digests in holders if not any(accepts[digest] for digest in digests)}
        return [writer for digest, writer in self.writers.items() if digest in firsts]


def read_contributions(layout: Layout, run_id: str) -> Contributions:
    """Return what was noted of a run's writers. Raises `RunLogError` for a note that cannot be read."""
    path = run_folder(layout, run_id) / WRITERS
    try:
        raw = parse_own(path.read_bytes())
        writers = {it.digest: it for it in map(Writer.parse, raw["writers"])}
        results = {key: tuple(writers[digest].digest for digest in held) for key, held in raw["results"].items()}
        places = {str(digest): str(place) for digest, place in raw.get("places", {}).items()}
        noted = Contributions(tuple(raw["published"]), writers, results, places=places)
        for digest in (*noted.published, *noted.writers):
            Descriptor("", digest, 0)
    except FileNotFoundError:
        return Contributions()
    except (ValueError, KeyError, TypeError, AttributeError, BlobCorruptError) as e:
        hint = f"remove it, then: {of_store(layout, 'pull', run_id, '--from', 'REGISTRY')}"
        raise RunLogError(f"{path} is damaged", hint=hint) from e
    return noted


def write_contributions(layout: Layout, run_id: str, noted: Contributions) -> None:
    """Note it for the next pull, and for the next retry."""
    document = {
        "published": noted.published,
        "places": dict(noted.places),
        "writers": [asdict(writer) for writer in noted.writers.values()],
        "results": dict(noted.results),
    }
    path = run_folder(layout, run_id) / WRITERS
    write_whole(path, with_check(json.dumps(document).encode()), through=layout.temporaries)


def require_accepted(layout: Layout, log: RunLog, accepted: AcceptedWriters) -> None:
    """Raise `UsageError` where something of a run here is by a writer who is not accepted: it cannot be taken out."""
    if refused := read_contributions(layout, log.run_id).refused(log, accepted):
        writers = "; ".join(writer.with_makers() for writer in refused)
        raise UsageError(
            f"run `{log.run_id}` in {layout.label} has results of writers that are not accepted ({accepted}), "
            f"so nothing was used: {writers}",
            hint="what was merged into a store cannot be taken out: resume the run in another clone of the repository, "
            "or accept these writers too: --writers BRANCH,sha256:DIGEST",
        )


def note_published(layout: Layout, run_id: str, digest: str, registry: str) -> None:
    """Note that a manifest is this store's own, and where it is."""
    noted = read_contributions(layout, run_id)
    if noted.places.get(digest) != registry:
        published = (*(it for it in noted.published if it != digest), digest)[-_PUBLISHED_MAX:]
        places = {it: place for it, place in {**noted.places, digest: registry}.items() if it in published}
        write_contributions(layout, run_id, replace(noted, published=published, places=places))


def _keys(log: RunLog) -> set[str]:
    attempts = {key for step in log.steps.values() for key in _attempt_keys(step)}
    return attempts | {_invocation_key(invocation) for invocation in log.invocations}


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
