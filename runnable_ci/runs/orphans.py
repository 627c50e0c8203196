"""Processes that a killed run left running: noted while they run, ended when the run is resumed."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.util.process import end_outliving, start_time

_MARK: Final = re.compile(r"mark ([0-9a-f]{32})")


def new_mark(processes: Path) -> str:
    """Return a mark for a step's process and all that it starts, after it was recorded."""
    mark = secrets.token_hex(16)
    _note(processes, f"mark {mark}\n")
    return mark


def record_pid(processes: Path, pid: int) -> None:
    """Record a step's process, so that a later invocation can end it if this one is killed."""
    _note(processes, f"{pid} {start_time(pid)}\n")


def end_orphans(processes: Path) -> None:
    """End what the steps of a killed run left running: it would write into the workspace while the retry runs.

    A number may be another program's by now: only a process that started at the noted time is ended, with its session
    and what descends from it. What has left those has the step's mark.
    """
    started: dict[int, str] = {}
    marks: set[str] = set()
    for note in processes.read_text("utf-8", errors="replace").splitlines() if processes.exists() else []:
        pid, _, time_text = note.partition(" ")
        if mark := _MARK.fullmatch(note):
            marks.add(mark[1])
        elif pid.isdigit():
            started[int(pid)] = time_text
    end_outliving(started, marks)


def _note(processes: Path, line: str) -> None:
    # One file for all: a file a step would cost more than the line in it.
    with suppress(OSError):  # only a kill needs it
        notes = os.open(processes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(notes, line.encode())
        finally:
            os.close(notes)
