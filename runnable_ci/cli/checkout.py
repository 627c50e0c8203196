"""`runnable-ci checkout`: the code of a run, exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.errors import CodeIdentityError, UsageError, did_you_mean
from runnable_ci.runs.model import CodeIdentity, RunLog
from runnable_ci.runs.reader import load, resolve_id, suggest_pull
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.console import console
from runnable_ci.vcs.restore import rebuild


def checkout(layout: Layout, run: str, folder: Path, *, step: str | None, environ: Mapping[str, str]) -> int:
    """Rebuild the tree that a run's newest attempt (or a step's) ran: the commit and what differed from it.

    The exit code is 1 where something of it could not be rebuilt.
    """
    log = load(layout, resolve_id(layout, run))
    code = _identity(log, step)
    snapshot = None
    if code.snapshot:
        with suggest_pull(layout, log.run_id):
            snapshot = layout.path(Descriptor.of_hash(code.snapshot, code.snapshot_size))
    sources: list[Path | str] = [layout.folder.parent]
    if code.code_identifier_url:
        sources.append(code.code_identifier_url)
    missing = rebuild(snapshot, commit=code.code_identifier, sources=sources, destination=folder, environ=environ)
    not_rebuilt = dict.fromkeys([*code.snapshot_omitted, *missing])
    console.err(*(f"note: not rebuilt: {name}" for name in not_rebuilt))
    differs = f", with {code.code_identifier_message}" if not code.code_identifier_dependable else ""
    console.out(f"{folder}: {code.code_identifier}{differs}")
    return 1 if not_rebuilt else 0


def _identity(log: RunLog, step: str | None) -> CodeIdentity:
    if step is not None and step not in log.steps:
        raise UsageError(f"run {log.run_id} has no step `{step}`", hint=did_you_mean(step, log.steps))
    attempts = log.steps[step].attempts if step else []
    found = attempts[-1].code_identities[0] if attempts and attempts[-1].code_identities else log.code()
    if found is None or not found.code_identifier:
        why = found.code_identifier_message if found else "no step ran"
        raise CodeIdentityError(f"run {log.run_id} has no commit: {why}")
    return found
