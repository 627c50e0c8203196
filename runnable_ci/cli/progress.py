"""How far a transfer is, for a person at a terminal; nothing is shown anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runnable_ci.store.copy import Progress
from runnable_ci.util.console import console
from runnable_ci.util.text import size

_EVERY_S = 0.2


@contextmanager
def watching(verb: str) -> Iterator[Callable[[Progress], None] | None]:
    """What to call with the progress; its line is gone after the block. None where nobody would see it."""
    if not console.stderr.is_terminal():
        yield None
        return
    shown_s = 0.0

    def show(progress: Progress) -> None:
        nonlocal shown_s
        if (now_s := time.monotonic()) - shown_s >= _EVERY_S:
            shown_s = now_s
            done, total = size(progress.done.size_bytes), size(progress.total.size_bytes)
            console.status(f"{verb} {done} of {total}")

    try:
        yield show
    finally:
        console.status("")
