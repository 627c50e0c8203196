"""What a worker says while a step runs: lines of JSON in a file that the other side reads as it grows."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from runnable_ci.runs.files.checkpoint_model import Checkpoint
from runnable_ci.runs.model import RunLog
from runnable_ci.util.files import open_nofollow
from runnable_ci.util.process_output import Stream

_READ_BYTES: Final = 4 << 20
_LINE_MAX_BYTES: Final = 64 << 20


class MessageReporter:
    """Shows what a step does to those who follow it from another machine."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        self._lock = threading.Lock()

    def send(self, kind: str, **values: Any) -> None:
        """Write a message."""
        line = f"{json.dumps({'kind': kind, **values})}\n".encode(errors="surrogatepass")
        with self._lock:
            while line:
                line = line[os.write(self._file, line) :]

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)

    def begin(self, steps: list[str], total: int) -> None:
        """Show nothing: the other side does."""

    def say(self, *lines: str, step: str = "") -> None:
        """Send lines of the program's own."""
        self.send("say", lines=lines, step=step)

    def started(self, step: str) -> None:
        """Show nothing: the other side does."""

    def finished(self, step: str, text: str, *, failed: bool) -> None:
        """Show nothing: the other side does."""

    def output(self, step: str, stream: Stream, chunk: bytes) -> None:
        """Send what a step wrote, redacted."""
        self.send("output", step=step, stream=stream, chunk=base64.b64encode(chunk).decode())

    def mask(self, secrets: Iterable[str]) -> None:
        """Send values that the other side hides too."""
        self.send("mask", secrets=list(secrets))

    def annotate(self, log: RunLog, workspace: Path, file: Path) -> None:
        """Show nothing: the other side does."""

    def end(self) -> None:
        """Show nothing: the other side does."""


class MessageReader:
    """Reads the messages of one attempt as they come, and hands each over once."""

    def __init__(
        self,
        file: Path,
        *,
        say: Callable[..., None],
        output: Callable[[str, Stream, bytes], None],
        mask: Callable[[list[str]], object],
        checkpoint: Callable[[Checkpoint, int], None],
    ) -> None:
        self._file = file
        self._say, self._output, self._mask, self._checkpoint = say, output, mask, checkpoint
        self._position = 0
        self._rest = b""

    def read(self) -> None:
        """Hand over what came since the last time. What is no message is passed over."""
        for line in self._new_lines():
            try:
                self._hand_over(json.loads(line))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def _new_lines(self) -> Iterator[bytes]:
        try:
            if self._file.stat().st_size == self._position:
                return
            with open(self._file, "rb", opener=open_nofollow) as file:
                file.seek(self._position)
                while chunk := file.read(_READ_BYTES):
                    self._position += len(chunk)
                    *lines, self._rest = (self._rest + chunk).split(b"\n")
                    if len(self._rest) > _LINE_MAX_BYTES:
                        self._rest = b""
                    yield from lines
        except FileNotFoundError:
            return

    def _hand_over(self, said: dict[str, Any]) -> None:
        match said["kind"]:
            case "say":
                self._say(*map(str, said["lines"]), step=str(said["step"]))
            case "output":
                stream: Stream = "e" if said["stream"] == "e" else "o"
                self._output(str(said["step"]), stream, base64.b64decode(said["chunk"]))
            case "mask":
                self._mask(list(map(str, said["secrets"])))
            case "checkpoint":
                self._checkpoint(Checkpoint.model_validate(said["checkpoint"]), int(said["number"]))
