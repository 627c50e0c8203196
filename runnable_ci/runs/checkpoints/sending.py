"""Checkpoints that are published while the run continues: held until a later look, though a newer one is there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runnable_ci.runs.checkpoints.newest import newest_checkpoints
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import SENDING


def hold(folder: Path, log: RunLog) -> None:
    """Hold the contents of the checkpoints that count in a log, and no others: a second name takes no room."""
    held = folder / SENDING
    held.mkdir(exist_ok=True)
    needed = {
        file.data_hash: folder / step / file.data_hash
        for step, (_, kept) in newest_checkpoints(log).items()
        for file in kept.files.values()
        if not file.kind
    }
    for digest, place in needed.items():
        with suppress(FileExistsError, FileNotFoundError):  # what is gone is in the store, or a newer one is recorded
            os.link(place, held / digest)
    for path in held.iterdir():
        if path.name not in needed:
            path.unlink()
