"""`runnable-ci gc`: remove old runs from the local store, and content that no run holds any more."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from runnable_ci.artifact import held
from runnable_ci.console import console
from runnable_ci.errors import RunInUseError, UsageError
from runnable_ci.files import locked_alone
from runnable_ci.recorder import STORE_LOCK, run_folder
from runnable_ci.retention import outdated
from runnable_ci.runs import load, run_ids, summaries
from runnable_ci.store.layout import Layout
from runnable_ci.text import amount, size


def gc(layout: Layout, *, keep: int | None, older_than: str | None, dry_run: bool) -> None:
    """Remove runs that are neither among the `keep` newest nor younger than `older_than` (`12h`, `30d`, `8w`).

    Without either no run is removed. Content is removed once no run that stays holds it. Raises `RunInUseError` while
    a run is being written.
    """
    if not (layout.folder / "index.json").exists():
        raise UsageError(f"there is no store in {layout.folder}")
    with locked_alone(layout.folder / STORE_LOCK) as alone:
        if not alone:
            raise RunInUseError(f"a run is being written in {layout.label}", hint="wait for it, then try again")
        going = _going(layout, keep, older_than)
        staying = [run_id for run_id in run_ids(layout) if run_id not in going]
        referenced: set[str] = set()
        for run_id in staying:
            referenced |= _referenced(layout, run_id)
        loose = [(digest, length) for digest, length in layout.blobs() if digest not in referenced]
        if not dry_run:
            for run_id in going:
                layout.untag(run_id)
                shutil.rmtree(run_folder(layout, run_id), ignore_errors=True)
            for digest, _ in loose:
                layout.remove(digest)
        console.out(*going)
        verb = "would free" if dry_run else "freed"
        freed = size(sum(length for _, length in loose))
        what = f"{amount(len(going), 'run')}, {amount(len(loose), 'blob')}"
        console.err(f"{verb} {freed}: {what}; {amount(len(staying), 'run')} left")


def _going(layout: Layout, keep: int | None, older_than: str | None) -> list[str]:
    runs = [(run.run_id, run.end_time or run.start_time) for run in summaries(layout)]
    return outdated(runs, keep=keep, older_than=older_than, moment=datetime.now(UTC))


def _referenced(layout: Layout, run_id: str) -> set[str]:
    """All blobs that a run needs: what its log names, and its manifest."""
    referenced = {f"sha256:{digest}" for digest in held(load(layout, run_id))}
    sealed = layout.manifests().get(run_id)
    if sealed is not None:
        manifest = layout.manifest(sealed)
        layers = [manifest.get("config", {}), *manifest.get("layers", [])]
        referenced |= {sealed.digest, *(str(layer.get("digest")) for layer in layers)}
    return referenced
