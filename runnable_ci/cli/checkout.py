"""`runnable-ci checkout`: the code of a run, exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runnable_ci.engine.code.recorded_tree import newest_with_code, rebuild_recorded
from runnable_ci.runs.branches.labels import labels_of, step_named
from runnable_ci.runs.code_states import CodeHolder, state_key
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console

_NAMED_MAX: Final = 5


def checkout(layout: Layout, run: str, folder: Path, *, step: str | None, environ: Mapping[str, str]) -> int:
    """Rebuild the tree that a run's newest attempt (or a step's) ran: the commit and what differed from it.

    The exit code is 1 where something of it could not be rebuilt.
    """
    log = load(layout, resolve_id(layout, run))
    attempt = newest_with_code(log, None if step is None else step_named(log, step))
    not_rebuilt = rebuild_recorded(layout, log, attempt, folder, environ=environ)
    console.err(*(f"note: not rebuilt: {name}" for name in not_rebuilt))
    if step is None and (others := _of_other_code(log, attempt)):
        shown = ", ".join(f"`{name}`" for name in others[:_NAMED_MAX]) + (" …" if others[_NAMED_MAX:] else "")
        console.err(f"note: {shown} ran other code than the newest attempt: `--step` rebuilds that")
    code = attempt.code_identities[0]
    differs = f", with {code.code_identifier_message}" if not code.code_identifier_dependable else ""
    console.out(f"{folder}: {code.code_identifier or 'no commit'}{differs}")
    return 1 if not_rebuilt else 0


def _of_other_code(log: RunLog, attempt: CodeHolder) -> list[str]:
    """Return the steps whose results are of another state of the code than that of an attempt."""
    labels, key = labels_of(log.steps), state_key(attempt)
    last = {name: step.attempts[-1] for name, step in log.steps.items() if step.attempts}
    return [labels[name] for name, one in last.items() if one.code_identities and state_key(one) != key]
