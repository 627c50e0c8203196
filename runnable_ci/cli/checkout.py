"""`runnable-ci checkout`: the code of a run, exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.engine.code.recorded_tree import newest_with_code, rebuild_recorded
from runnable_ci.runs.branches.labels import step_named
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console


def checkout(layout: Layout, run: str, folder: Path, *, step: str | None, environ: Mapping[str, str]) -> int:
    """Rebuild the tree that a run's newest attempt (or a step's) ran: the commit and what differed from it.

    The exit code is 1 where something of it could not be rebuilt.
    """
    log = load(layout, resolve_id(layout, run))
    attempt = newest_with_code(log, None if step is None else step_named(log, step))
    not_rebuilt = rebuild_recorded(layout, log, attempt, folder, environ=environ)
    console.err(*(f"note: not rebuilt: {name}" for name in not_rebuilt))
    code = attempt.code_identities[0]
    differs = f", with {code.code_identifier_message}" if not code.code_identifier_dependable else ""
    console.out(f"{folder}: {code.code_identifier or 'no commit'}{differs}")
    return 1 if not_rebuilt else 0
