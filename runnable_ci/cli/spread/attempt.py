"""The worker of a run that another machine controls."""

from __future__ import annotations

import os
from pathlib import Path


def work(queue: str, worker: str, *, stays: bool, project: str | None) -> int:
    """Run what waits in a queue, or the one attempt at an address for which a clone of the project is named."""
    if project is None:
        from runnable_ci.engine.elsewhere.far_side import open_worker

        return open_worker(Path(queue), worker, stays=stays).work(os.environ)
    from runnable_ci.cli.context import make_options
    from runnable_ci.engine.elsewhere.apart.far_clone import Address, run_apart

    options = make_options(None, quiet=True, plain_http=False)
    return run_apart(Address.parse(queue), Path(project).expanduser(), options)
