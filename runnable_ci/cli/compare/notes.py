"""What people note of runs, and runs that they remove: `tag`, `describe`, `pin`, `rm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runnable_ci.cli.cleanup import gc
from runnable_ci.cli.context import make_redactor
from runnable_ci.config import Settings
from runnable_ci.errors import CodeIdentityError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.notes.noting import note
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import listed
from runnable_ci.vcs.actor import find_actor
from runnable_ci.vcs.git import Git

TAG_MAX = 200


def change(layout: Layout, run: str, *, settings: Settings, environ: Mapping[str, str], **changed: Any) -> None:
    """Change a note on a run: its `tag`, `description`, or whether it is `pinned`; its id is printed."""
    run_id = resolve_id(layout, run)
    if (tag := changed.get("tag")) and not (tag.isprintable() and len(tag) <= TAG_MAX):
        raise UsageError("a label is one line of text, of at most 200 characters", hint="`describe` takes longer texts")
    note(layout, run_id, by=_actor(layout, environ), redactor=make_redactor(settings, environ), **changed)
    console.out(run_id)


def remove(layout: Layout, runs: Sequence[str], *, force: bool, dry_run: bool) -> None:
    """Remove runs from the store, with what only they hold; a pinned one only by `force`."""
    run_ids = [resolve_id(layout, run) for run in dict.fromkeys(runs)]
    pinned = [run_id for run_id in run_ids if load(layout, run_id).notes.pinned]
    if pinned and not force:
        unpin = of_store(layout, "pin", pinned[0], "--off")
        raise UsageError(f"{listed(pinned)}: pinned", hint=f"`{unpin}` takes the pin away, --force removes it as it is")
    gc(layout, keep=None, older_than=None, dry_run=dry_run, unwanted=set(run_ids))


def _actor(layout: Layout, environ: Mapping[str, str]) -> str:
    git = Git(str(layout.folder.parent), environ)

    def user_name() -> str:
        return git("config", "user.name").decode(errors="replace").strip()

    try:
        return find_actor(environ, user_name)
    except CodeIdentityError:
        return ""
