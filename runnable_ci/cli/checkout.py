"""`runnable-ci checkout`: the code of a run, exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.errors import CodeIdentityError
from runnable_ci.runs.branches.labels import step_named
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.reader import load, resolve_id, suggest_pull
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.console import console
from runnable_ci.vcs.checkout.rebuild import Bundles, rebuild
from runnable_ci.vcs.clone import Clone


def checkout(layout: Layout, run: str, folder: Path, *, step: str | None, environ: Mapping[str, str]) -> int:
    """Rebuild the tree that a run's newest attempt (or a step's) ran: the commit and what differed from it.

    The exit code is 1 where something of it could not be rebuilt.
    """
    log = load(layout, resolve_id(layout, run))
    attempt = _attempt(log, step)
    code, state = attempt.code_identities[0], code_state_of(log, attempt) or CodeState()
    with suggest_pull(layout, log.run_id):
        snapshot = _snapshot(layout, state)
    clone = layout.folder.parent
    # A path of this machine is a source where a remote has it, not where a run from elsewhere says so.
    urls = [url for url in [code.code_identifier_url] if url and not url.startswith("file:")]
    sources: list[Path | str] = [clone, *dict.fromkeys([*urls, *_remotes(clone, environ)])]
    missing = rebuild(snapshot, commit=code.code_identifier, sources=sources, destination=folder, environ=environ)
    not_rebuilt = dict.fromkeys([*(f"{name}: {reason}" for name, reason in state.omitted.items()), *missing])
    console.err(*(f"note: not rebuilt: {name}" for name in not_rebuilt))
    differs = f", with {code.code_identifier_message}" if not code.code_identifier_dependable else ""
    console.out(f"{folder}: {code.code_identifier or 'no commit'}{differs}")
    return 1 if not_rebuilt else 0


def _remotes(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the remotes of the clone that the store is in: the run's own may have moved, or a fork has the commit."""
    try:
        return [url for url in Clone.around(folder, environ).remote_urls() if "://" in url or "@" in url]
    except CodeIdentityError:  # it is no clone
        return []


def _snapshot(layout: Layout, state: CodeState) -> Path | Bundles | None:
    """Return what differed from the commit; None where nothing did, or where nothing was kept."""
    if state.snapshot:
        return layout.path(Descriptor.of_hash(state.snapshot, state.snapshot_size))
    if not state.kept:
        return None
    files = {commit: layout.path(Descriptor.of_hash(*bundle)) for commit, bundle in state.bundles.items()}
    return Bundles(state.kept, files)


def _attempt(log: RunLog, step: str | None) -> StepAttempt:
    step = None if step is None else step_named(log, step)
    attempts = [attempt for attempt in log.steps[step].attempts if attempt.code_identities] if step else []
    found = attempts[-1] if attempts else log.newest_attempt()
    if found is None:
        raise CodeIdentityError(f"run {log.run_id} has no commit: no step ran")
    state = code_state_of(log, found)
    if not found.code_identities[0].code_identifier and not (state and state.kept):
        raise CodeIdentityError(f"run {log.run_id} has no commit: {found.code_identities[0].code_identifier_message}")
    return found
