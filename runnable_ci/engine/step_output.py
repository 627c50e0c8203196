"""What an attempt writes, on its way to the terminal and the store: without mask commands, and without secrets."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from runnable_ci.engine.code.code_recorder import CodeRecorder
from runnable_ci.engine.reporter import Reporter
from runnable_ci.errors import TOO_LITTLE, RunnableError, StepError, system_errors
from runnable_ci.redaction.masks import MaskCommands, values_of_file
from runnable_ci.redaction.redactor import Redaction, Redactor, secret_lines
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.model import StepAttempt
from runnable_ci.runs.output import AttemptOutput, redact_kept
from runnable_ci.runs.recorder import Recorder
from runnable_ci.util.files import open_nofollow
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import printable

VARIABLE: Final = "RUNNABLE_MASK"
FILE: Final = "mask"
FILE_MAX_BYTES: Final = 1024 * 1024
VALUES_MAX: Final = 10_000
"""So many values are looked for in the output of an invocation; each makes that a little slower."""

_SIGN_OF_LIFE_S: Final = 1.0

_Seen = tuple[int, int, int]


@contextmanager
def failing(attempt: StepAttempt, redactor: Redactor, show: Callable[[Stream, bytes], None]) -> Iterator[None]:
    """Let an attempt fail by what goes wrong in the block, which is shown."""
    try:
        with system_errors():
            yield
    except (RunnableError, MemoryError) as e:
        problem = e if isinstance(e, RunnableError) else StepError("not enough memory", hint=TOO_LITTLE)
        attempt.end("failed", redactor.text(problem.message))
        show("e", redactor.text("".join(f"{printable(line)}\n" for line in problem.lines())).encode())


class Masks:
    """The values that steps ask to be masked: known at once to what redacts for all steps, and to GitHub's runner.

    A step writes them into its output as mask commands, or into a file of its own. All files are read again as soon as
    any step has written something, so that no output can be ahead of a value.
    """

    def __init__(self, redactor: Redactor, printer: Reporter) -> None:
        self.redactor = redactor
        self.printer = printer
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._noted: set[str] = set()
        self._files: dict[Path, tuple[str, _Seen]] = {}
        """The file of each attempt in flight → its step, and by what a change of it is seen."""

    def learn(self, values: Iterable[str]) -> list[str]:
        """Mask these values from now on; those that cannot be, as they are too short.

        Raises `StepError` where they are too many.
        """
        with self._lock:
            # One that is masked already, as `***`, is no value.
            given = [value for value in dict.fromkeys(values) if value.strip("* \r\n") and value not in self._values]
            self._values.update(given)
            if given and len(self._values) > VALUES_MAX:
                raise StepError(f"more than {VALUES_MAX:,} values are to be masked in this run")
        masked = [value for value in given if secret_lines(value)]
        if masked:
            self.redactor.learn(masked)
            self.printer.mask(masked)
        return [value for value in given if value not in masked]

    def add(self, values: Iterable[str], step: str) -> None:
        """Learn what a step masks; values that are too short are reported, once for each step."""
        if self.learn(values) and step not in self._noted:
            self._noted.add(step)
            self.printer.say(
                "note: a mask is ignored: it is too short to be distinguished from other text. "
                f"Separate the lines of a multi-line value by %0A, or write it as a block into ${VARIABLE}",
                step=step,
            )

    def open_file(self, folder: Path, step: str) -> Path:
        """Return the file of an attempt, in its own folder."""
        file = folder / FILE
        file.touch(exist_ok=False)
        self._files[file] = (step, (0, 0, 0))
        return file

    def read_files(self, own: Path) -> None:
        """Learn what was written into the files. Raises `StepError` where the file `own` cannot be used."""
        for file, (step, seen) in tuple(self._files.items()):
            try:
                now = _seen(file)
                if now != seen:
                    self.add(values_of_file(_content(file), is_whole=False), step)
                    if file in self._files:
                        self._files[file] = (step, now)
            except StepError:
                if file == own:  # else its own step will tell
                    self._files.pop(file, None)
                    raise

    def close_file(self, file: Path) -> None:
        """Learn what is in the file of an attempt whose process has ended. Raises `StepError` as `read_files` does."""
        if found := self._files.pop(file, None):
            self.add(values_of_file(_content(file), is_whole=True), found[0])


class StepOutput:
    """Takes what an attempt writes, shows it and keeps it."""

    def __init__(self, step: str, title: str, *, folder: Path, scratch: Path, masks: Masks, printer: Reporter) -> None:
        self.mask_file = masks.open_file(scratch, step)
        self._step, self._title = step, title
        self._folder, self._scratch = folder, scratch
        self._masks, self._printer = masks, printer
        self._commands: dict[Stream, MaskCommands] = {}
        self._redactions: dict[Stream, Redaction] = {}
        streams: tuple[Stream, ...] = ("o", "e")
        for stream in streams:
            redaction = self._redactions[stream] = Redaction(masks.redactor)
            learn = partial(masks.add, step=step)
            self._commands[stream] = MaskCommands(learn, mentions_mask=redaction.mentions_mask)
        self._next_sign_s = 0.0
        self._taken: list[tuple[Stream, bytes]] = []
        self._settled: list[tuple[Stream, bytes]] = []
        self._output = AttemptOutput(folder, title)
        self.learned = masks.redactor.learned
        self._is_suspect = False
        """Whether something was kept before all secrets were known."""

    def write(self, stream: Stream, chunk: bytes) -> None:
        """Accept a chunk, to be shown by the second `settle` from now. Raises `StepError` for masks that cannot be."""
        self._masks.read_files(self.mask_file)
        self._taken.append((stream, self._commands[stream].feed(chunk)))

    def settle(self) -> None:
        """Show and keep what was taken before the last `settle`: the masks that the other stream had by then are known.

        It also leaves a sign of life: of a run that is killed, nothing else tells how long a silent step ran. Raises
        `StoreError` where the disk is full.
        """
        if time.monotonic() >= self._next_sign_s:
            self._next_sign_s = time.monotonic() + _SIGN_OF_LIFE_S
            with suppress(OSError):
                os.utime(self._folder)
        settled, self._settled, self._taken = self._settled, self._taken, []
        for stream, rest in settled:
            self._show(stream, self._redactions[stream].feed(rest))

    def flush(self) -> None:
        """Write what was held back, as the process has ended. Raises as `write` and `settle` do."""
        self._masks.close_file(self.mask_file)
        self._taken += [(stream, commands.close()) for stream, commands in self._commands.items()]
        self.settle()
        self.settle()
        for stream, redaction in self._redactions.items():
            self._show(stream, redaction.close())

    def close(self) -> LogFile | None:
        """Return what was kept, whole, without secrets that were known only later; None where that is nothing."""
        with suppress(RunnableError):  # the attempt has failed by one before
            self.flush()
        self._look_back()
        kept = self._output.close()
        if not kept.size:
            return None
        if not self._is_suspect:
            return kept
        clean = redact_kept(self._folder, self._title, kept, self._masks.redactor, through=self._scratch)
        if clean is None:
            self._printer.say(
                "note: its output is lost: no space left on the disk to remove a secret from it", step=self._step
            )
        return clean

    def _show(self, stream: Stream, clean: bytes) -> None:
        self._look_back()
        if clean:
            self._output.write(stream, clean)
            self._printer.output(self._step, stream, clean)

    def _look_back(self) -> None:
        learned = self._masks.redactor.learned
        if learned != self.learned:
            self.learned = learned
            self._is_suspect = self._is_suspect or self._output.size > 0


@dataclass(slots=True, eq=False, repr=False)
class LateMasks:
    """Redacts what is recorded, once more is known."""

    recorder: Recorder
    code: CodeRecorder
    _learned: int = 0
    _learned_at: dict[str, int] = field(default_factory=dict)
    """An attempt's output → how much had been learned when it was redacted last."""

    def note(self, title: str, learned: int) -> None:
        """Know how much had been learned when the output of an attempt was kept."""
        self._learned_at[title] = learned

    def redact_past(self) -> None:
        """Remove values that steps have masked since from what this invocation has recorded."""
        learned = self.recorder.redactor.learned
        if learned == self._learned:
            return
        self._learned = learned
        self.recorder.redact_past(outputs=(), replaced=self.code.redact())

    def redact_outputs(self) -> None:
        """Remove from the attempts' output what became a secret after they had ended; once, since it may be large."""
        suspect = [title for title, learned in self._learned_at.items() if learned < self._learned]
        if suspect:
            self.recorder.redact_past(outputs=suspect, replaced={})


def _seen(file: Path) -> _Seen:
    try:
        found = file.lstat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _content(file: Path) -> bytes:
    """Return what is in the file of masks; nothing where it is gone."""
    try:
        # A step may have put anything in its place: a link elsewhere, a pipe that nobody writes to.
        descriptor = open_nofollow(str(file), os.O_RDONLY)
    except FileNotFoundError:
        return b""
    except OSError as e:
        raise StepError(f"${VARIABLE} cannot be read ({e.strerror})") from e
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StepError(f"${VARIABLE} is no longer a file")
        content = opened.read(FILE_MAX_BYTES + 1)
    if len(content) > FILE_MAX_BYTES:
        raise StepError(f"${VARIABLE} holds more than 1 MiB")
    return content
