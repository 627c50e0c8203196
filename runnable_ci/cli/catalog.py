"""`runnable-ci catalog`: the files of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.branches.labels import labels_of, step_named
from runnable_ci.runs.files.links import followed
from runnable_ci.runs.model import FOLDER, LINK, CatalogEntry, RunLog
from runnable_ci.runs.reader import catalog_of, load, resolve_id, suggest_pull
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import format_size, table


def catalog(layout: Layout, run: str, *, as_json: bool) -> None:
    """List the files and objects that a run holds, each version of them."""
    log = load(layout, resolve_id(layout, run))
    found = list(versions(log))
    if as_json:
        listed = [{"step": step, "attempt": number, **entry.model_dump()} for step, number, entry in found]
        console.json(json.dumps(listed, indent=1))
    elif found:
        labels = labels_of(log.steps)
        rows = [
            (_shown_name(entry), entry.stage, labels[step], str(number), format_size(entry.size), entry.data_hash[:12])
            for step, number, entry in found
        ]
        console.out(*table(("FILE", "STAGE", "STEP", "ATTEMPT", "SIZE", "SHA256"), rows))
    else:
        console.err(f"run {log.run_id} has no files")


def get_file(
    layout: Layout, run: str, name: str, *, to: Path | None, step: str | None, attempt: int | None, force: bool
) -> None:
    """Write a file of a run to a path; by default its last version, under its base name in the current folder."""
    log = load(layout, resolve_id(layout, run))
    step = None if step is None else step_named(log, step)
    found = [
        (number, entry)
        for of_step, number, entry in versions(log)
        if entry.name == name and entry.stage != "get" and step in (None, of_step) and attempt in (None, number)
    ]
    if not found:
        names = {entry.name for _, _, entry in versions(log) if entry.stage != "get"}
        hint = did_you_mean(name, names, f"`{of_store(layout, 'catalog', log.run_id)}` lists what it holds")
        raise UsageError(f"run {log.run_id} has no file `{name}`", hint=hint)
    destination = to or Path(PurePosixPath(name).name)
    if destination.is_dir():
        destination = destination / PurePosixPath(name).name
    if destination.exists() and not force:
        raise UsageError(f"{destination} exists", hint="--force overwrites it, --to writes to another path")
    number, entry = found[-1]
    if entry.kind == LINK:
        entry = _behind_link(log, entry, number)
    with suggest_pull(layout, log.run_id):
        catalog_of(layout, log).extract(entry, destination)
    console.out(str(destination))


def _shown_name(entry: CatalogEntry) -> str:
    if entry.kind == LINK:
        return f"{entry.name} -> {entry.target}"
    if entry.kind == FOLDER:
        return f"{entry.name}/"
    return entry.name if entry.stored else f"{entry.name} (hash only)"


def _behind_link(log: RunLog, link: CatalogEntry, attempt: int) -> CatalogEntry:
    """Return the file to which a link of an attempt leads."""
    of_attempts = (
        {
            entry.name: entry
            for _, number, entry in versions(log, step)
            if number == attempt and entry.stage == link.stage
        }
        for step in log.steps
    )
    of_attempt = next(entries for entries in of_attempts if entries.get(link.name) is link)
    file = followed(link.name, of_attempt)
    if file is None or file.kind:
        raise UsageError(
            f"`{link.name}` is a link to {link.target}, which is no file of that attempt", hint="name a file"
        )
    return file


def versions(log: RunLog, of_step: str = "") -> Iterator[tuple[str, int, CatalogEntry]]:
    """Return (step, attempt, entry) of all files, older attempts first; an object stands as the file `NAME.pickle`."""
    for step in (step for name, step in log.steps.items() if of_step in ("", name)):
        for attempt in step.attempts:
            is_last = attempt is step.attempts[-1]
            for entry in step.data_catalog if is_last else attempt.data_catalog:
                yield step.name, attempt.attempt_number, entry
            for name, parameter in attempt.output_parameters.items():
                if parameter.kind == "object":
                    yield (
                        step.name,
                        attempt.attempt_number,
                        CatalogEntry(
                            name=f"{name}.pickle",
                            data_hash=parameter.data_hash,
                            size=parameter.size or 0,
                            stage="object",
                        ),
                    )
