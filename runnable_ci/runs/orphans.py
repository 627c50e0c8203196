"""Processes that a killed run left running: noted while they run, ended when the run is resumed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runnable_ci.util.process import end_group, start_time


def record_pid(processes: Path, pid: int) -> None:
    """Record a step's process, so that a later invocation can end it if this one is killed."""
    # One file for all: a file a step would cost more than the line in it.
    with suppress(OSError):  # only a kill needs it
        notes = os.open(processes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(notes, f"{pid} {start_time(pid)}\n".encode())
        finally:
            os.close(notes)


def end_orphans(processes: Path) -> None:
    """End what the steps of a killed run left running: it would write into the workspace while the retry runs.

    A number may be another program's by now: only a process that started at the noted time is ended.
    """
    for note in processes.read_text().splitlines() if processes.exists() else []:
        pid, _, started = note.partition(" ")
        if pid.isdigit():
            end_group(int(pid), started)
