"""The code of a run, made again in a folder from what its log and the store have of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.errors import CodeIdentityError
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.code_states import CodeHolder, code_state_of
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import suggest_pull
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.vcs.checkout.rebuild import Bundles, rebuild
from runnable_ci.vcs.checkout.sources import is_url
from runnable_ci.vcs.clone import Clone
from runnable_ci.vcs.git import Git

KEPT: str = "refs/runnable/code"
"""In a tree that was made again: a commit with all of what differed."""


def rebuild_recorded(
    layout: Layout,
    log: RunLog,
    attempt: CodeHolder,
    folder: Path,
    *,
    environ: Mapping[str, str],
    clone: Path | None = None,
) -> list[str]:
    """Rebuild the tree of an attempt or an invocation: the commit and what differed from it; return what could not be.

    The commit comes from the `clone`, by default the one around the store, else from the remotes. Raises
    `CodeIdentityError`, `UsageError`
    where the folder is not empty, `BlobMissingError`.
    """
    code, state = attempt.code_identities[0], code_state_of(log, attempt) or CodeState()
    with suggest_pull(layout, log.run_id):
        snapshot = _snapshot(layout, state)
    clone = clone or layout.folder.parent
    # A path of this machine is a source where a remote has it, not where a run from elsewhere says so.
    urls = [url for url in [code.code_identifier_url] if is_url(url) and not url.startswith("file:")]
    sources: list[Path | str] = [clone, *dict.fromkeys([*urls, *_remotes(clone, environ)])]
    missing = rebuild(snapshot, commit=code.code_identifier, sources=sources, destination=folder, environ=environ)
    return [*dict.fromkeys([*(f"{name}: {reason}" for name, reason in state.omitted.items()), *missing])]


def newest_with_code(log: RunLog, step: str | None = None) -> CodeHolder:
    """Return what has the code of a run, or the newest attempt at a step that has any. Raises `CodeIdentityError`."""
    attempts = [attempt for attempt in log.steps[step].attempts if attempt.code_identities] if step else []
    found = attempts[-1] if attempts else log.newest_with_code()
    if found is None:
        raise CodeIdentityError(f"run {log.run_id} has no commit: no step ran")
    state = code_state_of(log, found)
    if not found.code_identities[0].code_identifier and not (state and state.kept):
        raise CodeIdentityError(f"run {log.run_id} has no commit: {found.code_identities[0].code_identifier_message}")
    return found


def dirty_difference(layout: Layout, log: RunLog, folder: Path, *, environ: Mapping[str, str]) -> str:
    """Return what differed from the commit as a difference of text, made in an empty folder; empty for nothing.

    Raises `CodeIdentityError`, `BlobMissingError`.
    """
    attempt = newest_with_code(log)
    state = code_state_of(log, attempt)
    if state is None or not state.kept:
        return ""
    rebuild_recorded(layout, log, attempt, folder, environ=environ)
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
    return Git(str(folder), environ)("diff", *options, "HEAD", KEPT, "--").decode(errors="replace")


def _remotes(folder: Path, environ: Mapping[str, str]) -> list[Path | str]:
    """Return the remotes of the clone that the store is in: the run's own may have moved, or a fork has the commit.

    One that is a path of this machine is a clone here.
    """
    try:
        clone = Clone.around(folder, environ)
        return [url if is_url(url) else clone.root / url for url in clone.remote_urls()]
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
