"""Whether a worker lives: it changes a file of its attempt about each second, and leaves once that was given up.

A launcher is on this machine and can end before its worker does: `ssh` by a kill, its server by a restart.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final, Literal

from runnable_ci.observe.unwatchable import remote_kind
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.orphans import end_orphans
from runnable_ci.util.process import Supervisor, end_outliving, start_time

SIGN_LOOK_S: Final = 0.2
"""How often a worker looks whether its attempt was given up."""
_LOOKS_A_SIGN: Final = 5
_OVER: Final = b"over"
GRACE_S: Final = 10.0
"""How long a worker whose launcher is gone may show no sign of life, and its fragment take to be seen here."""
_REMOTE_GRACE_S: Final = 65.0
"""The same in a network file system, where a file may be up to a minute old. Source: nfs(5), `acregmax`."""
_UNSEALED_S: Final = 30.0
"""How long it may then have been about to seal a fragment."""


class Sign:
    """The sign of life of the worker that has an attempt. `look` is called by a thread of its own."""

    def __init__(self, folder: AttemptFolder, supervisor: Supervisor) -> None:
        self._folder, self._supervisor = folder, supervisor
        self._looks = 0
        self.is_ended = False
        """This side has said that the attempt is over, and was the first to."""
        self.look()

    def look(self) -> None:
        """Change the file, and leave where the attempt was given up: another one may run in the same place."""
        if self.is_ended:
            return
        if self._folder.ended_by() == "near" or not self._folder.path.is_dir():
            self._leave()
        if self._looks % _LOOKS_A_SIGN == 0:
            self._write(b"%d" % self._looks)
        self._looks += 1

    def end(self) -> bool:
        """Say that the attempt is over; False where it was given up. What its files tell is no matter from then on."""
        is_first = self._folder.end("far")
        self.is_ended = is_first
        return is_first

    def _leave(self) -> None:
        """End the step, and this process, before it undoes anything: what is there may be another attempt's."""
        self._supervisor.end_for_good()
        own = os.getpid()
        end_outliving({own: start_time(own)}, ())
        with suppress(OSError):
            end_orphans(self._folder.processes)
        self._write(_OVER)
        os.kill(own, signal.SIGKILL)

    def _write(self, text: bytes) -> None:
        with suppress(OSError), open(self._folder.life, "wb") as file:  # closed: so others see it on any file system
            file.write(text)


class LifeSeen:
    """The sign of life of an attempt's worker, as this side sees it once its launcher is gone."""

    def __init__(self, folder: AttemptFolder) -> None:
        self._folder = folder
        is_shared = folder.noted("taken").get("pid") != 0  # else nobody writes into it but this side
        grace_s = _REMOTE_GRACE_S if remote_kind(str(folder.path)) else GRACE_S
        self._grace_s = grace_s if is_shared else 0.0
        self._looked_s = self._changed_s = 0.0
        self._text: bytes | None = None
        self._has_changed = False

    def look(self) -> Literal["lost", "lives", ""]:
        """Return whether the attempt is given up by now and nobody runs it, and once that its worker lives."""
        if self._folder.unsealed.exists():
            return "lost"
        moment = time.monotonic()
        if moment - self._looked_s < SIGN_LOOK_S:
            return ""
        text, before = self._read(), self._text
        self._looked_s, self._text = moment, text
        if text != before:
            self._changed_s = moment
        silent_s = moment - self._changed_s
        if self._folder.ended_by() == "near":
            return "lost" if text == _OVER or silent_s >= self._grace_s else ""
        if silent_s >= self._grace_s:
            is_given_up = self._folder.end("near") or silent_s > self._grace_s + _UNSEALED_S
            return "lost" if is_given_up else ""
        if text != before and before is not None and not self._has_changed:
            self._has_changed = True
            return "lives"
        return ""

    def _read(self) -> bytes:
        with suppress(OSError), open(self._folder.life, "rb") as file:
            return file.read(64)
        return b""
