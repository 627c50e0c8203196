"""Where the attempts of a run that are elsewhere have their files: `elsewhere/RUN_ID` of the store.

Both sides write there, this program on this machine and a worker of it on another one, which sees the same folder:

    setting.N                 what all attempts of invocation N share
    queues/QUEUE/waiting/     a ticket for each attempt that no worker has yet
    queues/QUEUE/closed       no more will come
    workers/WORKER.json       how to ask whether a worker runs; WORKER.out: what it printed; WORKER.left: it had
                              nothing more to do
    attempts/STEP.ATTEMPT/    note, ticket, taken, life, messages, fragment, unsealed, ended, stop

An attempt's folder is there from before its ticket until its end is recorded.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from runnable_ci.errors import StoreError
from runnable_ci.runs.paths import ELSEWHERE
from runnable_ci.store.local import Layout
from runnable_ci.store.target import TAG
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import open_nofollow

_NOTE_MAX_BYTES: Final = 1 << 20


class AttemptFolder(NamedTuple):
    """The files of one attempt."""

    path: Path

    @property
    def title(self) -> str:
        """The attempt, as `STEP.ATTEMPT`."""
        return self.path.name

    @property
    def ticket(self) -> Path:
        """What a worker needs; there while one reads it."""
        return self.path / "ticket"

    @property
    def messages(self) -> Path:
        """What the far side says while the step runs, a line of JSON each."""
        return self.path / "messages"

    @property
    def fragment(self) -> Path:
        """The sealed result."""
        return self.path / "fragment"

    @property
    def unsealed(self) -> Path:
        """Is there where a worker leaves that could write no fragment; empty, which needs no space."""
        return self.path / "unsealed"

    @property
    def life(self) -> Path:
        """Changes about each second as long as a worker has the attempt."""
        return self.path / "life"

    @property
    def stop(self) -> Path:
        """Asks the far side to end the attempt."""
        return self.path / "stop"

    @property
    def processes(self) -> Path:
        """The step's processes on the far machine."""
        return self.path / "processes"

    @property
    def recorded(self) -> Path:
        """How many of the far side's checkpoints this side has recorded."""
        return self.path / "recorded"

    def note(self, name: str, **values: Any) -> None:
        """Write down some values, whole or not at all."""
        write_note(self.path / f"{name}.json", **values)

    def noted(self, name: str) -> dict[str, Any]:
        """Return values that were written down; none where nothing was."""
        return read_note(self.path / f"{name}.json")

    def end(self, by: str) -> bool:
        """Say that the attempt is over; False where the other side, or this one earlier, said it first.

        The far side does so before it seals a fragment, this side where it gives an attempt up: one of them counts.
        """
        try:
            file = os.open(self.path / "ended", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(file, by.encode())
        except OSError:
            if by == "near":  # a worker reads it; of one that has no room left the file alone tells enough
                raise
        finally:
            os.close(file)
        return True

    def ended_by(self) -> str:
        """Return which side said that the attempt is over; empty as long as none did."""
        with suppress(OSError):
            return (self.path / "ended").read_text("utf-8", errors="replace")
        return ""


class ElsewhereFolder(NamedTuple):
    """All files of a run's attempts elsewhere."""

    path: Path

    @classmethod
    def of(cls, layout: Layout, run_id: str) -> ElsewhereFolder:
        """Return that of a run; it need not be there. Raises `StoreError` where links are on the way to it."""
        if not TAG.fullmatch(run_id):
            raise StoreError(f"{run_id!r} in {layout.label} is not a run id")
        layout.own_folder(ELSEWHERE)
        return cls(layout.own_folder(ELSEWHERE, run_id))

    def create(self) -> None:
        """Make it, closed to other users: tickets have values and variables of the run."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        for folder in (self.path, self.path / "queues", self.path / "workers", self.path / "attempts"):
            folder.mkdir(mode=0o700, exist_ok=True)

    def attempt(self, title: str) -> AttemptFolder:
        """Return the folder of an attempt."""
        return AttemptFolder(self.path / "attempts" / title)

    def setting(self, invocation: int) -> Path:
        """Return the file with what all attempts of an invocation share."""
        return self.path / f"setting.{invocation}"

    def queue(self, name: str) -> QueueFolder:
        """Return the folder of a queue."""
        return QueueFolder(self.path / "queues" / name)

    def worker(self, name: str) -> Path:
        """Return the note of a worker."""
        return self.path / "workers" / f"{name}.json"

    def output(self, worker: str) -> Path:
        """Return what a worker's launcher printed."""
        return self.path / "workers" / f"{worker}.out"

    def left(self, worker: str) -> Path:
        """Return the file that says that a worker left since there was nothing to do."""
        return self.path / "workers" / f"{worker}.left"

    def has_left(self, worker: str) -> bool:
        """Return whether a worker left since there was nothing to do."""
        return self.left(worker).exists()


class QueueFolder(NamedTuple):
    """Attempts that wait for a worker: all take the same resources of one executor."""

    path: Path

    @property
    def waiting(self) -> Path:
        """The tickets that no worker has taken."""
        return self.path / "waiting"

    @property
    def closed(self) -> Path:
        """Is there once no further ticket comes."""
        return self.path / "closed"

    @property
    def whole(self) -> ElsewhereFolder:
        """The folder that it is in."""
        return ElsewhereFolder(self.path.parent.parent)


def require_own(path: Path) -> None:
    """Raise `StoreError` for a file that another user may have written."""
    found = path.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022:
        raise StoreError(f"{path} may have been written by another user", hint="remove it, and retry the run")


def write_note(path: Path, **values: Any) -> None:
    """Write values as JSON, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_bytes(with_check(json.dumps(values).encode()))
    new.replace(path)


def read_note(path: Path) -> dict[str, Any]:
    """Return the values of a note; none where there is none, or it is damaged."""
    try:
        with open(path, "rb", opener=open_nofollow) as file:
            found = parse_own(file.read(_NOTE_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
