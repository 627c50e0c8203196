"""Whether a store that is found may be used: it may have come with a clone, or belong to another user."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from runnable_ci.config import SAFE_STORES, load
from runnable_ci.errors import StoreError
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console, is_actions
from runnable_ci.vcs.tracked import is_tracked

STORE_NAME = ".runnable"


def open_store(
    folder: Path, environ: Mapping[str, str], *, say: Callable[[str], None] = console.err, user: int | None = None
) -> Layout:
    """Return the store in a folder, which need not be there yet.

    Raises `StoreError` for one that git tracks (who made the clone's content made it too), one of another user that is
    not trusted, and one with links in it. `user` is who asks, by default the user of this process.
    """
    layout = Layout(folder / STORE_NAME)
    layout.inspect()
    if is_tracked(layout.folder, environ):
        raise StoreError(
            f"the store {layout.folder} is tracked by git: it came with the repository, from an unknown author",
            hint=f"git rm -r --cached {STORE_NAME} in {folder}, commit, and move the folder away if it is not yours",
        )
    if layout.folder.exists():
        _require_trusted(layout.folder, environ, os.geteuid() if user is None else user, say)
    return layout


def _require_trusted(store: Path, environ: Mapping[str, str], user: int, say: Callable[[str], None]) -> None:
    owner = store.lstat().st_uid
    if owner == user or _is_safe(store, load(environ).safe_stores):
        return
    if _is_of_the_job(store, owner, environ, user):
        say(
            f"note: the store {store} belongs to user {owner}, as the job's workspace does; root may use it in this job"
        )
        return
    raise StoreError(
        f"the store {store} belongs to another user, number {owner}: its content would be trusted like your own",
        hint=f"if you trust that user: {SAFE_STORES}={store.parent} in the environment",
    )


def _is_safe(store: Path, listed: str) -> bool:
    places = {os.path.realpath(place) for place in listed.split(os.pathsep) if place}
    return listed == "*" or not places.isdisjoint((os.path.realpath(store), os.path.realpath(store.parent)))


def _is_of_the_job(store: Path, owner: int, environ: Mapping[str, str], user: int) -> bool:
    """Return whether root, in a job's container, looks at a store of the runner, whose the workspace is."""
    workspace = environ.get("GITHUB_WORKSPACE", "")
    if user != 0 or not is_actions(environ) or not workspace:
        return False
    root = Path(os.path.realpath(workspace))
    return Path(os.path.realpath(store)).is_relative_to(root) and owner == root.lstat().st_uid
