"""Which content of reused steps the steps that will run may read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runnable_ci.engine.planner import Plan
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import matches
from runnable_ci.runs.model import CatalogEntry, RunLog
from runnable_ci.runs.packs import PackIndex
from runnable_ci.steps.python import objects_taken
from runnable_ci.store.target import Descriptor


def required_blobs(
    plan: Plan, pipeline: Pipeline, log: RunLog, workspace: Path, files: Iterable[CatalogEntry]
) -> dict[str, Descriptor]:
    """sha256 → content that the steps which will run may read of reused steps: files, objects, or their packs.

    That of `files` is among them, whoever reads it.
    """
    packs = PackIndex(log.packs)
    found: dict[str, Descriptor] = {}

    def need(data_hash: str, size: int) -> None:
        blob = packs.blob_of(data_hash, size)
        found[blob.hex] = blob

    for entry in files:
        need(entry.data_hash, entry.size)
    for name, scope in plan.scopes.items():
        step = pipeline.steps[name]
        for file, entry in scope.entries().items():
            if step.get is None or any(matches(pattern, file) for pattern in step.get):
                need(entry.data_hash, entry.size)
        if step.kind == "python":
            parameters = scope.values()
            above = pipeline.ancestors(step.name).intersection(plan.running)
            coming = [returned for other in above for returned in pipeline.steps[other].returns]
            for taken in objects_taken(step, workspace, parameters, coming=coming):
                need(parameters[taken].data_hash, parameters[taken].size or 0)
    return found
