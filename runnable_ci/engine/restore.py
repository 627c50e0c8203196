"""Bring back what reused steps made: which content the steps that will run may read, and where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from runnable_ci.engine.planner import Plan
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.patterns import matches
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import CatalogEntry, RunLog
from runnable_ci.runs.packs import PackIndex
from runnable_ci.runs.paths import ORIGIN, run_folder
from runnable_ci.runs.products.history import files_found_again
from runnable_ci.steps.python import objects_taken
from runnable_ci.store.target import Descriptor
from runnable_ci.util.text import format_size


def required_blobs(plan: Plan, project: Project, log: RunLog, files: Iterable[CatalogEntry]) -> dict[str, Descriptor]:
    """Return sha256 → content that the steps which will run may read of reused steps: files, objects, or their packs.

    That of `files` is among them, whichever step reads it.
    """
    packs = PackIndex(log.packs)
    blobs: dict[str, Descriptor] = {}

    def need(data_hash: str, size_bytes: int) -> None:
        blob = packs.blob_of(data_hash, size_bytes)
        blobs[blob.hex] = blob

    for entry in files:
        need(entry.data_hash, entry.size)
    for name, scope in plan.scopes.items():
        step = project.pipeline.steps[name]
        for entry in files_found_again(log.steps[name], persist=step.persist) if name in log.steps else ():
            need(entry.data_hash, entry.size)
        for file, entry in scope.entries().items():
            if step.get is None or any(matches(pattern, file) for pattern in step.get):
                need(entry.data_hash, entry.size)
        if step.kind == "python":
            parameters = scope.values()
            above = project.pipeline.ancestors(step.name).intersection(plan.running)
            coming = [returned for other in above for returned in project.pipeline.steps[other].returns]
            for taken in objects_taken(step, project.workspace, parameters, coming=coming):
                need(parameters[taken].data_hash, parameters[taken].size or 0)
    return blobs


def restore(
    session: RunSession, plan: Plan, log: RunLog, catalog: Catalog, *, everything: bool, registry: str | None
) -> None:
    """Restore the files of reused steps into the workspace: those that the steps which run may read, or everything.

    `registry` is the one that a person named; else it is the one that a pulled run came from.
    """
    files = {**plan.put, **plan.wanted} if everything else plan.wanted
    if (run_folder(session.project.layout, log.run_id) / ORIGIN).exists():
        _fetch(session, required_blobs(plan, session.project, log, files.values()).values(), log, registry)
    for name in catalog.get(files.values())[1]:
        session.options.printer.say(catalog.describe_replaced(name))


def _fetch(session: RunSession, required: Collection[Descriptor], log: RunLog, registry: str | None) -> None:
    """Have what is required of a run that was pulled in part; not the rest."""
    from runnable_ci.runs.remote.pull import fetch, missing_blobs, read_origin
    from runnable_ci.runs.remote.registry_config import Registries

    layout, options = session.project.layout, session.options
    origin = read_origin(layout, log.run_id)
    if origin is None or not missing_blobs(layout, required):
        return
    source = Registries(options.settings, options.environ).recorded(origin.registry, named=registry)
    with options.transfer_progress("fetched") as progress:
        fetched = fetch(layout, source, origin, required, progress)
    left = missing_blobs(layout, layers(log).values())
    options.printer.say(
        f"fetched {format_size(fetched.size_bytes)} from {source.label}, "
        f"{format_size(sum(descriptor.size for descriptor in left))} not downloaded"
    )
