"""Processes that a killed run left running: noted while they run, ended when the run is resumed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from runnable_ci.util.process import Exit, check_output, end_outliving, start_time

_MARK: Final = re.compile(r"mark ([0-9a-f]{32})")
_CONTAINER: Final = re.compile(r"container (docker|podman) (runnable-[0-9a-f]{16})")
_ENDED_S: Final = 30


def new_mark(processes: Path) -> str:
    """Return a mark for a step's process and all that it starts, after it was recorded."""
    mark = secrets.token_hex(16)
    _note(processes, f"mark {mark}\n")
    return mark


def record_pid(processes: Path, pid: int) -> None:
    """Record a step's process, so that a later invocation can end it if this one is killed."""
    _note(processes, f"{pid} {start_time(pid)}\n")


def record_container(processes: Path, container: tuple[str, str] | None) -> None:
    """Record the container in which a step runs, if it is in one: an engine and a name."""
    if container:
        _note(processes, "container {} {}\n".format(*container))


def end_container(container: tuple[str, str] | None, client: Exit | None, *, environ: Mapping[str, str]) -> None:
    """End and remove a container whose client did not come to its own end: what that was sent need not have arrived."""
    is_over = client is not None and client.code >= 0 and not client.cancelled and not client.timed_out
    if container is None or is_over:
        return
    engine, name = container
    program = shutil.which(engine, path=environ.get("PATH"))
    for words in (["kill", name], ["rm", "--force", name]) if program else ():
        check_output([str(program), *words], cwd=Path("/"), env=environ, timeout_s=_ENDED_S)


def end_orphans(processes: Path, environ: Mapping[str, str] = os.environ) -> None:
    """End what the steps of a killed run left running: it would write into the workspace while the retry runs.

    A number may be another program's by now: only a process that started at the noted time is ended, with its session
    and what descends from it. What has left those has the step's mark.
    """
    started: dict[int, str] = {}
    marks: set[str] = set()
    containers: list[tuple[str, str]] = []
    for note in processes.read_text("utf-8", errors="replace").splitlines() if processes.exists() else []:
        pid, _, time_text = note.partition(" ")
        if mark := _MARK.fullmatch(note):
            marks.add(mark[1])
        elif container := _CONTAINER.fullmatch(note):
            containers.append((container[1], container[2]))
        elif pid.isdigit():
            started[int(pid)] = time_text
    end_outliving(started, marks)
    for engine, name in containers:
        if name in _containers_of(engine, environ):
            end_container((engine, name), None, environ=environ)


def _containers_of(engine: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of the containers that an engine has, as far as they may be steps'."""
    argv = [engine, "ps", "--all", "--filter", "name=runnable-", "--format", "{{.Names}}"]
    return (check_output(argv, cwd=Path("/"), env=environ, timeout_s=_ENDED_S) or b"").decode(errors="replace").split()


def _note(processes: Path, line: str) -> None:
    # One file for all: a file a step would cost more than the line in it.
    with suppress(OSError):  # only a kill needs it
        notes = os.open(processes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(notes, line.encode())
        finally:
            os.close(notes)
