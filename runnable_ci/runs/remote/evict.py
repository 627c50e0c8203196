"""Content of published runs that may leave a store, as the registry has just said that it holds it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from runnable_ci.runs.artifact import layers, reads_blobs
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import MADE_HERE, ORIGIN, run_folder
from runnable_ci.runs.remote.contributions import read_contributions
from runnable_ci.runs.remote.manifest_forms import wholes
from runnable_ci.runs.remote.pull import Origin, read_origin, write_origin
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import Descriptor, manifest_parts
from runnable_ci.util.files import write_whole
from runnable_ci.util.threads import map_all


@dataclass(frozen=True, slots=True)
class Evictable:
    """What of a run need not be here."""

    origin: Origin
    """Where it is."""
    digests: frozenset[str]
    """Content that is there for sure, and here."""


def find_evictable(layout: Layout, log: RunLog, open_registry: Callable[[str], Registry]) -> Evictable | None:
    """Return what of a run its registry holds; None where the run was not published, or where nothing of it is here.

    The run stays as `pull --only log` brings it: its log, and what a retry compares. Each content is asked for, as a
    manifest proves only what the registry had when it took it in. Raises `StoreError`.
    """
    origin = _published_at(layout, log.run_id) or read_origin(layout, log.run_id)
    kept = {blob.digest for blob in reads_blobs(log)}
    here = [blob for blob in layers(log).values() if blob.digest not in kept and layout.exists(blob)]
    if origin is None or not here:
        return None
    registry = open_registry(origin.registry)
    there: dict[str, list[Descriptor]] = {}
    for digest in origin.manifests:
        manifest, raw = registry.manifest(digest)
        parts = manifest_parts(raw, manifest, label=registry.label)
        there |= {part.digest: [part] for part in parts}
        there |= {whole.blob.digest: list(whole.pieces) for whole in wholes(parts).values()}
    wanted = [blob for blob in here if _size(there.get(blob.digest, ())) == blob.size]
    found = map_all(lambda blob: all(map(registry.exists, there[blob.digest])), wanted, jobs=16, name="registry")
    proven = [blob.digest for blob, is_there in zip(wanted, found, strict=True) if is_there]
    return Evictable(origin, frozenset(proven)) if proven else None


def note_evicted(layout: Layout, run_id: str, evictable: Evictable) -> None:
    """Note where the content of a run is, before any of it is removed here."""
    folder = run_folder(layout, run_id)
    if not (folder / ORIGIN).exists():
        write_whole(folder / MADE_HERE, b"", through=layout.temporaries)
    write_origin(layout, run_id, evictable.origin)


def _published_at(layout: Layout, run_id: str) -> Origin | None:
    noted = read_contributions(layout, run_id)
    for digest in reversed(noted.published):
        if registry := noted.places.get(digest):
            return Origin(registry, (digest,))
    return None


def _size(parts: Collection[Descriptor]) -> int:
    return sum(part.size for part in parts) if parts else -1
