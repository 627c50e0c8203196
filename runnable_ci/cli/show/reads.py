"""What steps read, for people: in short for a run, attempt by attempt for a step, and as the whole record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from runnable_ci.analysis.history.query import shown_status
from runnable_ci.cli.show.machine import libraries_line, machine_line
from runnable_ci.engine.provenance.stored_reads import reads_document, reads_of
from runnable_ci.errors import BlobMissingError, UsageError
from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.branches.labels import label_of, shortened
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog
from runnable_ci.runs.reader import catalog_of
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import format_duration, listed, pluralize, printable, table


def reads_of_steps(layout: Layout, log: RunLog) -> list[str]:
    """Return a table of what the last attempts read, in short; empty for a log of a version that did not look."""
    catalog = catalog_of(layout, log)
    rows = [
        (label_of(log.steps, step.name), _short(catalog, f"{step.name}.{last.attempt_number}", last))
        for step in (log.steps[name] for name, _ in shortened([*log.steps], log.steps))
        for last in step.attempts[-1:]
        if last.was_observed
    ]
    return table(("STEP", "READ"), rows) if rows else []


def show_step(layout: Layout, log: RunLog, step: StepLog, *, whole: bool, as_json: bool) -> None:
    """Print the attempts at a step and what each read; the `whole` record of the last one's reads, or JSON.

    Raises `UsageError` where there is no record, `BlobMissingError` where it is not in this store.
    """
    catalog = catalog_of(layout, log)
    if whole:
        console.json(_record(layout, catalog, log, step))
    elif as_json:
        console.json(json.dumps(step.model_dump(), indent=1))
    else:
        console.out(*_lines(catalog, log, step))


def _record(layout: Layout, catalog: Catalog, log: RunLog, step: StepLog) -> str:
    last = step.attempts[-1] if step.attempts else StepAttempt()
    title = f"{step.name}.{last.attempt_number}"
    if not last.reads:
        why = last.not_seen or "its version did not look, or it has not ended"
        raise UsageError(f"what {title} of run {log.run_id} read was not seen: {why}")
    document = reads_document(catalog, title, last)
    if document is None:
        raise BlobMissingError(
            f"what {title} of run {log.run_id} read is not in {layout.label}",
            hint=f"`{of_store(layout, 'pull', log.run_id, '--only', 'log')}` downloads it",
        )
    return json.dumps(json.loads(document), indent=1)


def _lines(catalog: Catalog, log: RunLog, step: StepLog) -> Iterator[str]:
    for attempt in step.attempts:
        title = f"{step.name}.{attempt.attempt_number}"
        took = format_duration(attempt.seconds)
        shown = f"{label_of(log.steps, step.name)}.{attempt.attempt_number}"
        yield printable(
            ", ".join(filter(None, (f"{shown}  {shown_status(attempt.status)}", took, attempt.reason, attempt.message)))
        )
        for kind, line in _where(log, attempt).items():
            yield f"  {kind:9} {line}"
        if not attempt.reads:
            yield f"  not seen: {printable(attempt.not_seen or 'a version that did not look')}"
            continue
        reads = reads_of(catalog, title, attempt)
        yield f"  reads     sha256:{attempt.reads}"
        if reads is None:
            yield "  not in this store"
            continue
        for kind, names in _kinds(reads):
            yield f"  {kind:9} {len(names)}: {listed(map(printable, names))}"
        if attempt.made:
            yield f"  {'made':9} {len(attempt.made) + attempt.made_more}: {listed(map(printable, attempt.made))}"


def _where(log: RunLog, attempt: StepAttempt) -> dict[str, str]:
    """Return where an attempt ran, with what, and which libraries for numbers it had loaded, as far as is known."""
    environment = log.environments.get(attempt.environment)
    lines = {
        "executor": attempt.executor + (f", waited {format_duration(attempt.waited_s)}" if attempt.waited_s else ""),
        "resources": str(attempt.resources or ""),
        "machine": machine_line(environment.machine) if environment else "",
        "numeric": libraries_line(attempt.numeric_libraries),
    }
    return {kind: line for kind, line in lines.items() if line}


def _short(catalog: Catalog, title: str, attempt: StepAttempt) -> str:
    if attempt.not_seen:
        return f"not seen: {attempt.not_seen}"
    reads = reads_of(catalog, title, attempt)
    if reads is None:
        return "not in this store"
    files = [f"{pluralize(len(reads.files), 'file')}: {listed(map(printable, reads.files))}"] if reads.files else []
    others = [f"{kind}: {len(names)}" for kind, names in _kinds(reads) if kind != "files"]
    return "; ".join((*files, *others)) or "nothing"


def _kinds(reads: ReadSet) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each kind of what was read that there is, and the names."""
    packages = [f"{name} {version}".rstrip() for name, version in reads.distributions.items()]
    kinds: dict[str, Sequence[str]] = {
        "files": list(reads.files),
        "listed": [folder or "." for folder in reads.listings],
        "absent": list(reads.absent),
        "links": list(reads.links),
        "outside": list(reads.outside),
        "packages": packages,
        "network": reads.connected,
        "git": [reads.asked_git] if reads.asked_git else [],
    }
    yield from ((kind, names) for kind, names in kinds.items() if names)
