"""Bring back what reused steps made: which content the steps that will run may read, and where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.patterns import as_glob
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.step import groups_of
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.links import selected
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog
from runnable_ci.runs.paths import is_pulled
from runnable_ci.runs.products.history import files_found_again, products_of
from runnable_ci.steps import objects_taken
from runnable_ci.store.target import Descriptor
from runnable_ci.util.text import format_size, listed


class Required(NamedTuple):
    """A content of the run that the steps which will run may read."""

    step: str
    """The step that gave it; empty where none did."""
    what: str
    """As a reason names it."""
    blob: Descriptor | None
    """What holds it: itself, or a pack; None where nothing does, as only its hash was recorded."""


def required_contents(
    plan: Plan, project: Project, log: RunLog, catalog: Catalog, *, everything: bool
) -> Iterator[Required]:
    """Yield what a plan takes from the store: files and objects that steps may read, and those of `everything`.

    A step that is reused if the ones before it change nothing gives what it gave. A file that is in the workspace as it
    was stored is not taken from anywhere.
    """
    packs = PackIndex(log.packs)
    for entry in _required_files(plan, log, everything=everything):
        if not entry.kind and not catalog.is_there(entry):
            blob = packs.blob_of(entry.data_hash, entry.size) if entry.stored else None
            yield Required(entry.source, f"{entry.name}, which it made,", blob)
    steps = plan.pipeline.steps
    for name, scope in plan.scopes.items():
        step = steps[name]
        if step.is_interpreted:
            above = plan.pipeline.ancestors(name).intersection(plan.running)
            coming = [returned for other in above for returned in steps[other].returns]
            for taken in objects_taken(step, project.workspace, scope.values(), coming=coming):
                _, parameter, giver = scope.parameters[taken]
                yield from (
                    _of_branches(giver, parameter, log) if parameter.items else [_object(giver, taken, parameter)]
                )
    for name in plan.running:
        if steps[name].checkpoint and name in log.steps:
            yield from _checkpoint_of(name, log, catalog)
    for name in (*_tentative(plan), *_of_lists_to_come(plan)):
        yield from _objects_of(name, log)


def _checkpoint_of(step: str, log: RunLog, catalog: Catalog) -> Iterator[Required]:
    """Yield what a step resumes from, where it is not here: without it the step starts over, so nothing is lost."""
    from runnable_ci.runs.checkpoints.contents import KeptFiles  # few steps keep any
    from runnable_ci.runs.checkpoints.newest import newest_checkpoint

    kept, packs = newest_checkpoint(log.steps[step]), PackIndex(log.packs)
    files = kept.checkpoint.files if kept else {}
    for name in KeptFiles(catalog, step).missing(files):
        yield Required("", "its checkpoint", packs.blob_of(files[name].data_hash, files[name].size))


def _of_lists_to_come(plan: Plan) -> list[str]:
    """Return the reused branches of steps of which others run: what they gave is in a list that is not known yet."""
    open_ended = {group for name in plan.running for group in groups_of(name)}
    return [name for name in plan.reused if open_ended.intersection(groups_of(name))]


def results(plan: Plan, log: RunLog, catalog: Catalog) -> Iterator[Required]:
    """Yield what reused steps gave: what the run is good for, once none of its steps is left to run."""
    packs = PackIndex(log.packs)
    for entry in (entry for entry in plan.put.values() if not entry.kind):
        blob = packs.blob_of(entry.data_hash, entry.size) if entry.stored else None
        if not catalog.is_there(entry) or (blob and blob.hex != entry.data_hash):
            yield Required(entry.source, f"{entry.name}, which it made,", blob)
    for name in plan.reused:
        yield from _objects_of(name, log)


def store_again(plan: Plan, log: RunLog, catalog: Catalog) -> list[str]:
    """Store the files of reused steps that the store has lost and the workspace still has; their names."""
    packs, layout = PackIndex(log.packs), catalog.layout
    lost = [
        name
        for name, entry in plan.put.items()
        if entry.has_content
        and not layout.exists(packs.blob_of(entry.data_hash, entry.size))
        and catalog.hash_of(name) == entry.data_hash
    ]
    for name in lost:
        layout.put_file(catalog.workspace / name)
    return lost


def _of_branches(step: str, parameter: Parameter, log: RunLog) -> Iterator[Required]:
    """Yield the objects of a list that the branches of a step returned, whatever it is called now."""
    listed = {item.data_hash for item in parameter.items}
    for branch, found in log.steps.items():
        if step in groups_of(branch) and found.attempts:
            for name, returned in found.attempts[-1].output_parameters.items():
                if returned.kind == "object" and returned.data_hash in listed:
                    yield _object(branch, name, returned)


def _objects_of(step: str, log: RunLog) -> Iterator[Required]:
    for returned, parameter in log.steps[step].attempts[-1].output_parameters.items():
        if parameter.kind == "object":
            yield _object(step, returned, parameter)


def _tentative(plan: Plan) -> list[str]:
    return [name for name, decision in plan.decisions.items() if decision.is_tentative]


def _object(step: str, name: str, parameter: Parameter) -> Required:
    return Required(step, f"`{name}`, which it returned,", Descriptor.of_hash(parameter.data_hash, parameter.size or 0))


def _required_files(plan: Plan, log: RunLog, *, everything: bool) -> Iterator[CatalogEntry]:
    yield from ({**plan.put, **plan.wanted} if everything else plan.wanted).values()
    for name, scope in plan.scopes.items():
        step = plan.pipeline.steps[name]
        if name in log.steps:
            yield from files_found_again(log.steps[name], persist=step.persist)
        visible = scope.entries()
        yield from (visible if step.get is None else selected(tuple(map(as_glob, step.get)), visible)).values()
    for name in _tentative(plan):
        yield from products_of(log.steps[name])


def find_lost(
    session: RunSession, plan: Plan, log: RunLog, catalog: Catalog, *, everything: bool, registry: str | None
) -> dict[str, str]:
    """Return the reused steps of which something required is lost → why they must run again.

    What a pulled run left in its registry is fetched first: from `registry`, which a person named, else from where the
    run came. Raises `StoreError` where that cannot be reached: what is there is not lost.
    """
    required = list(required_contents(plan, session.project, log, catalog, everything=everything))
    # Of one that was pulled all may be where it came from.
    if not plan.running and not is_pulled(session.project.layout, log.run_id):
        required += results(plan, log, catalog)
    where = fetch_required(session, {it.blob.digest: it.blob for it in required if it.blob}.values(), log, registry)
    place = f"neither in the store nor in {where}" if where else "not in the store"
    exists = session.project.layout.exists
    gone = [it for it in reversed(required) if it.step and it.blob and not exists(it.blob)]
    return {it.step: f"{it.what} is {place}" for it in gone} | _never_stored(required)


def _never_stored(required: Iterable[Required]) -> dict[str, str]:
    """Return the steps of which a file is required that is not in the workspace any more, and in no store."""
    reason = "is not here as it was, and was not stored (store = false)"
    return {it.step: f"{it.what} {reason}" for it in required if it.step and it.blob is None}


def lost_here(session: RunSession, plan: Plan, log: RunLog, catalog: Catalog, *, everything: bool) -> dict[str, str]:
    """Return the same without fetching anything: of a pulled run all may be where it came from."""
    if is_pulled(session.project.layout, log.run_id):
        return _never_stored(required_contents(plan, session.project, log, catalog, everything=everything))
    return find_lost(session, plan, log, catalog, everything=everything, registry=None)


def restore(session: RunSession, plan: Plan, catalog: Catalog, *, everything: bool) -> None:
    """Restore the files of reused steps into the workspace: those that the steps which run may read, or everything."""
    files = {**plan.put, **plan.wanted} if everything else plan.wanted
    for name in catalog.get(files.values())[1]:
        session.options.printer.say(catalog.describe_replaced(name))


def fetch_required(session: RunSession, required: Collection[Descriptor], log: RunLog, registry: str | None) -> str:
    """Have what is required of a run whose contents are in part elsewhere; return where that was looked for.

    That is where it was pulled from, and where the runs are from which it took results.
    """
    layout, options = session.project.layout, session.options
    if not is_pulled(session.project.layout, log.run_id):
        return ""
    from runnable_ci.runs.remote.pull import missing_blobs
    from runnable_ci.runs.remote.registry_config import Registries
    from runnable_ci.runs.reuse.held_contents import fetch_held, origins_of

    origins = origins_of(layout, log.run_id)
    if not origins or not missing_blobs(layout, required):
        return ""
    registries = Registries(options.settings, options.environ)
    with options.transfer_progress("fetched") as progress:
        fetched = fetch_held(
            layout, origins, required, lambda where: registries.recorded(where, named=registry), progress
        )
    where = listed(dict.fromkeys(origin.registry for origin in origins))
    if fetched.blobs or not missing_blobs(layout, required):
        left = missing_blobs(layout, layers(log).values())
        options.printer.say(
            f"fetched {format_size(fetched.size_bytes)} from {where}, "
            f"{format_size(sum(descriptor.size for descriptor in left))} not downloaded"
        )
    return where
