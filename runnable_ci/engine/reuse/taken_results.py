"""Results of other runs in this one: they are recorded when they are found, and fetched when a step may read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.changes import FoundResult
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.reuse.earlier_result import EarlierResult
from runnable_ci.errors import BlobMissingError, StepError, StoreError
from runnable_ci.pipeline.patterns import as_glob
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.artifact import contents
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.links import selected
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import CatalogEntry, Parameter
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps import objects_taken
from runnable_ci.store.target import Descriptor

if TYPE_CHECKING:
    from runnable_ci.runs.reuse.candidates import Candidate


@dataclass(slots=True, eq=False, repr=False)
class TakenResults:
    """What an invocation takes from other runs."""

    recorder: Recorder
    catalog: Catalog
    products: RunProducts
    say: Callable[..., None]
    _away: dict[str, Candidate] = field(default_factory=dict)
    """Step → where its contents are, which are not here."""
    _packs: PackIndex = field(default_factory=lambda: PackIndex({}))

    def take(self, result: FoundResult) -> bool:
        """Record a result; whether its contents are here, and need not be fetched before a step may read them."""
        found = cast("EarlierResult", result)
        layout, log = self.recorder.layout, self.recorder.log
        results = found.results()
        for digest, pack in results.packs.items():
            self._packs.add(digest, pack)
        if found.indexed is not None and not all(layout.exists(blob) for _, blob in contents(results)):
            from runnable_ci.runs.reuse.held_contents import note_held

            note_held(layout, log.run_id, [found.indexed])
            self._away[found.name] = found.indexed
        self.recorder.record(*found.events(log), synced=False)  # the decision follows, and is
        self.catalog.know(results.packs)
        self.products.note(self.recorder.log.steps[found.name])
        return found.name not in self._away

    def bring(self, step: Step, scope: Scope) -> None:
        """Have what a step that is about to run may read of results that are elsewhere. Raises `StepError`."""
        if not self._away:
            return
        visible = {name: entry for name, entry in scope.entries().items() if self._giver(entry.source) in self._away}
        wanted = visible if step.get is None else selected(tuple(map(as_glob, step.get)), visible)
        files = [entry for entry in wanted.values() if not self.catalog.is_there(entry)]
        self._fetch(files, self._objects(step, scope))
        for name in self.catalog.get(files)[1]:
            self.say(self.catalog.describe_replaced(name))

    def _giver(self, source: str) -> str:
        return next((name for name in (source, *groups_of(source)) if name in self._away), source)

    def _objects(self, step: Step, scope: Scope) -> list[tuple[str, Parameter]]:
        if not step.is_interpreted:
            return []
        taken = objects_taken(step, self.catalog.workspace, scope.values(), coming=())
        return [(scope.parameters[name].giver, scope.parameters[name].item) for name in taken]

    def _fetch(self, files: list[CatalogEntry], objects: list[tuple[str, Parameter]]) -> None:
        needed: dict[str, list[Descriptor]] = {}
        for entry in files:
            if entry.has_content:
                blob = self._packs.blob_of(entry.data_hash, entry.size)
                needed.setdefault(self._giver(entry.source), []).append(blob)
        for giver, value in objects:
            several = [(it.data_hash, it.size) for it in value.items if it.data_hash]
            pickles = several or [(value.data_hash, value.size or 0)]
            blobs = [Descriptor.of_hash(digest, size) for digest, size in pickles]
            for name in self._away if value.items else [giver]:
                needed.setdefault(name, []).extend(blobs)
        for giver, blobs in needed.items():
            if (candidate := self._away.get(giver)) is not None:
                self._fetch_from(candidate, giver, blobs)

    def _fetch_from(self, candidate: Candidate, giver: str, blobs: list[Descriptor]) -> None:
        from runnable_ci.runs.reuse.held_contents import fetch_contents

        try:
            fetch_contents(self.recorder.layout, candidate, blobs)
        except StoreError as e:
            hint = "a retry runs that step again" if isinstance(e, BlobMissingError) else e.hint
            raise StepError(f"what `{giver}` made in run {candidate.entry.run_id}: {e.message}", hint=hint) from e
