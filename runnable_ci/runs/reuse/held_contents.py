"""Contents of results that were taken from other runs: they stay in the registry of those until something reads them.

A note beside the journal says which manifests hold them, so that a run whose contents are elsewhere can be resumed,
fetched as a whole, and published: what the same registry holds need not be sent there again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RunLogError,
    UsageError,
)
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.paths import HELD, run_folder
from runnable_ci.runs.remote.pull import OnProgress, Origin, fetch, missing_blobs, read_origin
from runnable_ci.runs.reuse.candidates import Candidate
from runnable_ci.store.copy import TransferSize
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import TAG, Descriptor
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import write_whole


def fetch_contents(
    layout: Layout, candidate: Candidate, wanted: Collection[Descriptor], watch: OnProgress | None = None
) -> TransferSize:
    """Have contents of a result in the store, verified, from whichever published run has them; return what came.

    Raises `BlobMissingError` where none has them any more, `StoreError`.
    """
    origin = Origin(candidate.registry.label, tuple(it.manifest for it in candidate.entry.held_by))
    fetched = fetch_from(layout, candidate.registry, origin, wanted, watch)
    if missing := missing_blobs(layout, wanted):
        raise BlobMissingError(f"{candidate.registry.label} does not hold {missing[0].digest} any more")
    return fetched


def fetch_from(
    layout: Layout, registry: Registry, origin: Origin, wanted: Collection[Descriptor], watch: OnProgress | None = None
) -> TransferSize:
    """Download as much of some contents as manifests hold that are still there; return how much.

    Raises `StoreError`.
    """
    fetched = TransferSize()
    for manifest in origin.manifests:
        if not missing_blobs(layout, wanted):
            break
        try:
            came = fetch(layout, registry, Origin(origin.registry, (manifest,)), wanted, watch)
        except (BlobMissingError, ManifestNotFoundError):  # that run was removed
            continue
        fetched = TransferSize(fetched.blobs + came.blobs, fetched.size_bytes + came.size_bytes)
    return fetched


def note_held(layout: Layout, run_id: str, candidates: Iterable[Candidate]) -> None:
    """Note where contents are that a run is about to take: before its log names them, as they need not be here."""
    found = [Origin(it.registry.label, tuple(held.manifest for held in it.entry.held_by)) for it in candidates]
    if found:
        _write(layout, run_id, [*read_held(layout, run_id), *found])


def note_own(layout: Layout, run_id: str, registry: str, manifest: str) -> None:
    """Note that a run which took results has been published itself: its own manifest holds all of them."""
    if held := read_held(layout, run_id):
        _write(layout, run_id, [Origin(registry, (manifest,)), *held])


def read_held(layout: Layout, run_id: str) -> list[Origin]:
    """Return where contents are that a run took from others; one for each registry.

    Raises `RunLogError` for a note that cannot be read.
    """
    if not TAG.fullmatch(run_id) or not (path := run_folder(layout, run_id) / HELD).exists():
        return []
    try:
        places = [Origin(str(it["registry"]), tuple(it["manifests"])) for it in parse_own(path.read_bytes())["places"]]
        for place in places:
            for manifest in place.manifests:
                Descriptor("", manifest, 0)
        return [Origin(parse_reference(place.registry).repository, place.manifests) for place in places]
    except (ValueError, KeyError, TypeError, UsageError, BlobCorruptError) as e:
        hint = f"remove it, then: {of_store(layout, 'retry', run_id)}"
        raise RunLogError(f"{path} is damaged", hint=hint) from e


def origins_of(layout: Layout, run_id: str) -> list[Origin]:
    """Return where contents of a run are that need not be here: where it was pulled from, and where it took results.

    Raises `RunLogError` for a note that cannot be read.
    """
    return [*filter(None, [read_origin(layout, run_id)]), *read_held(layout, run_id)]


def fetch_held(
    layout: Layout,
    origins: Sequence[Origin],
    wanted: Collection[Descriptor],
    open_registry: Callable[[str], Registry],
    watch: OnProgress | None = None,
) -> TransferSize:
    """Download what is not here of some contents from where they may be; return how much. Raises `StoreError`."""
    fetched = TransferSize()
    for origin in origins:
        if missing_blobs(layout, wanted):
            came = fetch_from(layout, open_registry(origin.registry), origin, wanted, watch)
            fetched = TransferSize(fetched.blobs + came.blobs, fetched.size_bytes + came.size_bytes)
    return fetched


def _write(layout: Layout, run_id: str, origins: Iterable[Origin]) -> None:
    manifests: dict[str, dict[str, None]] = {}
    for origin in origins:
        manifests.setdefault(origin.registry, {}).update(dict.fromkeys(origin.manifests))
    places = [{"registry": registry, "manifests": list(found)} for registry, found in manifests.items()]
    path = run_folder(layout, run_id) / HELD
    write_whole(path, with_check(json.dumps({"places": places}).encode()), through=layout.temporaries)
