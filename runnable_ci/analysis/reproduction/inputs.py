"""The files that a run's steps read and no step made, brought into a tree that was made again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.left_out import is_left_out
from runnable_ci.runs.model import CatalogEntry, RunLog
from runnable_ci.runs.products.index import StoredContent
from runnable_ci.store.opening import STORE_NAME

_SKIPPED: Final = ("__pycache__", STORE_NAME, ".git")


@dataclass(slots=True)
class ProvidedInputs:
    """What was done about the inputs of each step."""

    copied: dict[str, str] = field(default_factory=dict)
    """From the workspace here, where a file has the hash that it had: path → that sha256."""
    restored: dict[str, str] = field(default_factory=dict)
    """From the run's catalog."""
    missing: dict[str, str] = field(default_factory=dict)
    """Step → which of its inputs is not available."""


def provide_inputs(
    run: ComparedRun, workspace: Path, tree: Path, root: Path, left_out: Container[str] = ()
) -> ProvidedInputs:
    """Bring what steps read into the `tree`, from the run's catalog or the `workspace` here, each with its hash.

    Both are the pipeline's folder; nothing is written outside of `root`, that of the repository in the tree. What lies
    in the tree already is as it was recorded, and is not replaced. What steps made that are `left_out`, and did not
    put, is an input too.
    """
    found = ProvidedInputs()
    made = {entry.name for step in run.log.steps.values() for entry in step.put_entries()}
    running = (step for key, step in run.log.steps.items() if not is_left_out(key, left_out))
    made |= {path for step in running for attempt in step.attempts for path in attempt.made}
    kept = _kept(run.log)
    _make_links(run, tree, root)
    for step, path, digest in _needed(run):
        if path in made or _is_own_file(path):
            continue
        place = tree / path
        if not place.resolve().is_relative_to(root.resolve()):
            found.missing.setdefault(step, f"{path} leads out of the tree")
        elif not digest:
            found.missing.setdefault(step, f"{path} changed while the step ran: what it read is not known")
        elif place.is_file():
            if _sha256(place) != digest:
                found.missing.setdefault(step, f"{path} is another file in the recorded code than the step read")
        elif path in kept and kept[path].data_hash == digest and _restore(run, kept[path], place):
            found.restored[path] = digest
        elif (here := workspace / path).is_file() and _sha256(here) == digest:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here, place)
            found.copied[path] = digest
        else:
            what = "is another file now" if here.exists() else "is not here"
            found.missing.setdefault(step, f"{path}, which it read, {what}")
    return found


def _make_links(run: ComparedRun, tree: Path, root: Path) -> None:
    """Make the symbolic links through which steps read, where they lead to something in the repository."""
    whole = root.resolve()
    for reads in run.read().reads.values():
        for path, target in reads.links.items():
            place = tree / path
            folder = place.parent.resolve()
            is_inside = all(it.is_relative_to(whole) for it in (folder, (folder / target).resolve()))
            if is_inside and not target.startswith("/") and not os.path.lexists(place):
                folder.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)


def _needed(run: ComparedRun) -> Iterator[tuple[str, str, str]]:
    """Yield each file that a step read, with its sha256."""
    for name, reads in run.read().reads.items():
        for path, read in reads.files.items():
            yield name, path, "" if read.changed_while_running else read.digest
    for name, step in run.log.steps.items():
        for entry in step.data_catalog:
            if entry.is_input and not entry.kind:
                yield name, entry.name, entry.data_hash


def _is_own_file(path: str) -> bool:
    return any(part in _SKIPPED for part in Path(path).parts)


def _kept(log: RunLog) -> Mapping[str, CatalogEntry]:
    """Return the inputs of which the run has the content, as an attempt found them."""
    return {
        entry.name: entry
        for step in log.steps.values()
        for attempt_files in (step.data_catalog, *(attempt.data_catalog for attempt in step.attempts))
        for entry in attempt_files
        if entry.stage == "get" and entry.kept and entry.has_content
    }


def _restore(run: ComparedRun, entry: CatalogEntry, place: Path) -> bool:
    if not run.catalog.holds(StoredContent(entry.data_hash, entry.size)):
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    run.catalog.extract(entry, place)
    return True


def read_here(again: ComparedRun, workspace: Path, tree: Path) -> dict[str, str]:
    """Return the steps of a run in a `tree` that read other files in the `workspace` here instead, with which.

    An installation of the project in place leads there.
    """
    found: dict[str, str] = {}
    for step, reads in again.read().reads.items():
        for path, digest in reads.outside.items():
            if Path(path).is_relative_to(workspace):
                recorded = tree / Path(path).relative_to(workspace)
                if not recorded.is_file() or _sha256(recorded) != digest:
                    found.setdefault(step, f"it read {path} of the workspace here, not of the recorded code")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
