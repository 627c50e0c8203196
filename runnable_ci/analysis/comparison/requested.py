"""What of two runs is compared line by line or cell by cell, on request: files by name, and what steps printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from runnable_ci.analysis.comparison.contents.compare import ContentComparison, Reader, Tolerance, compare_files
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.scratch import scratch_folder
from runnable_ci.errors import BlobMissingError, StoreError, UsageError, did_you_mean
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.runs.branches.labels import label_of, step_named
from runnable_ci.runs.files.links import put_files
from runnable_ci.runs.model import CatalogEntry
from runnable_ci.runs.reader import output_of, suggest_pull


class Requested(NamedTuple):
    """One file, or what one step printed, in two runs."""

    name: str
    content: ContentComparison | None
    """None where both are the same bytes, or only one run has it."""
    said: str = ""
    """Which of these it is."""


def compare_requested_files(
    a: ComparedRun, b: ComparedRun, patterns: Sequence[str], reader: Reader | None
) -> Iterator[Requested]:
    """Yield how files differ, by names or globs. Raises `UsageError` for a pattern that no file of either run fits."""
    tables = [put_files(run.log) for run in (a, b)]
    inputs = [_read_files(run) for run in (a, b)]
    names = sorted({*tables[0], *tables[1], *inputs[0], *inputs[1]})
    for pattern in patterns:
        if not any(_fits(pattern, name) for name in names):
            hint = did_you_mean(pattern, names, "`catalog RUN_ID` lists the files of a run")
            raise UsageError(f"neither run has a file `{pattern}`", hint=hint)
    for name in names:
        if any(_fits(pattern, name) for pattern in patterns):
            is_made = any(name in table for table in tables)
            yield _file(name, a, b, tables, reader) if is_made else _input(name, inputs)


def _read_files(run: ComparedRun) -> dict[str, str]:
    """Return the files that steps read or were given, with their sha256."""
    given = {one.name: one.data_hash for step in run.log.steps.values() for one in step.data_catalog}
    return given | {path: one.digest for reads in run.read().reads.values() for path, one in reads.files.items()}


def _input(name: str, inputs: Sequence[Mapping[str, str]]) -> Requested:
    then, now = (table.get(name) for table in inputs)
    if then is None or now is None:
        return Requested(name, None, "read in A only" if now is None else "read in B only")
    kept = "differs; no step made it, so the runs have only its hash"
    return Requested(name, None, "the same" if then == now else kept)


def _fits(pattern: str, name: str) -> bool:
    return pattern == name or may_name(pattern, name)


def _file(
    name: str, a: ComparedRun, b: ComparedRun, tables: Sequence[dict[str, CatalogEntry]], reader: Reader | None
) -> Requested:
    then, now = (table.get(name) for table in tables)
    if then is None or now is None:
        return Requested(name, None, "only in A" if now is None else "only in B")
    if then.data_hash == now.data_hash:
        return Requested(name, None, "the same")
    if not (then.stored and now.stored):
        return Requested(name, None, "differs; a run has only its hash (`store = false`)")
    with scratch_folder() as folder:
        paths = [folder / side for side in ("a", "b")]
        for run, entry, path in zip((a, b), (then, now), paths, strict=True):
            with suggest_pull(run.layout, run.log.run_id):
                run.catalog.extract(entry, path)
        return Requested(name, compare_files(name, paths[0], paths[1], reader=reader))


def compare_put_file(
    step: str, name: str, a: ComparedRun, b: ComparedRun, reader: Reader, tolerance: Tolerance
) -> ContentComparison | None:
    """Return how a file differs that a step put in both runs; None where its contents are not there."""
    entries = [
        next((one for one in run.log.steps[step].put_entries() if one.name == name and one.has_content), None)
        for run in (a, b)
    ]
    if entries[0] is None or entries[1] is None:
        return None
    with scratch_folder() as folder:
        paths = [folder / side for side in ("a", "b")]
        try:
            for run, entry, path in zip((a, b), (entries[0], entries[1]), paths, strict=True):
                run.catalog.extract(entry, path)
        except (BlobMissingError, StoreError):
            return None
        return compare_files(name, *paths, reader=reader, tolerance=tolerance)


def _with_branches(name: str, a: ComparedRun, b: ComparedRun) -> list[str]:
    """Return a step, in place of one whose branches alone print those steps that ran in them."""
    below = [
        one
        for one in {**a.log.steps, **b.log.steps}
        if one.startswith(f"{name}.") and any(one in run.log.steps and run.log.steps[one].attempts for run in (a, b))
    ]
    return below or [name]


def compare_requested_output(a: ComparedRun, b: ComparedRun, steps: Sequence[str]) -> Iterator[Requested]:
    """Yield how what steps printed differs; of all steps that both ran where none is named. Raises `UsageError`."""
    named = [name for step in steps for name in _with_branches(step_named(b.log, step), a, b)]
    for name in named or [name for name in b.log.steps if name in a.log.steps]:
        attempts = [run.log.steps[name].attempts[-1:] if name in run.log.steps else [] for run in (a, b)]
        label = label_of(next(run.log.steps for run in (b, a) if name in run.log.steps), name)
        if not all(attempts):
            if steps:
                yield Requested(label, None, "did not run in A" if not attempts[0] else "did not run in B")
            continue
        with scratch_folder() as folder:
            paths = [folder / side for side in ("a", "b")]
            for run, (attempt,), path in zip((a, b), attempts, paths, strict=True):
                title = f"{name}.{attempt.attempt_number}"
                path.write_bytes(b"".join(part for _, part in output_of(run.layout, run.log, title, attempt)))
            if paths[0].read_bytes() != paths[1].read_bytes():
                yield Requested(label, compare_files("output.txt", paths[0], paths[1]))
            elif steps:
                yield Requested(label, None, "the same")
