"""Reproducible, resumable pipeline runs for teams that live in GitHub Actions.

In a notebook:

    import runnable_ci
    run = runnable_ci.open_run("latest")
    run.metrics, run.parameters, run.files
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runnable_ci.api import OpenRun

__all__ = ["open_run"]


def open_run(run_id: str = "latest", folder: str | Path | None = None) -> OpenRun:
    """Return a finished, failed or running run, for reading; `folder` is the one with the store, by default that of the
    pipeline file, as for all commands.

    Raises `RunNotFoundError`.
    """
    from runnable_ci.api import open_run as opened

    return opened(run_id, Path(folder) if folder is not None else None)
