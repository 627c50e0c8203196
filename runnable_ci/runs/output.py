"""What a step writes: kept as bytes in the order they came, with an index of which stream wrote which of them."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from runnable_ci.errors import RunnableError, system_errors
from runnable_ci.redaction.redactor import Redaction, Redactor
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.files.packs import PACKED_FILE_MAX_BYTES
from runnable_ci.runs.model import RunLog
from runnable_ci.util.files import needing_space, write_whole
from runnable_ci.util.process_output import Stream

_CHUNK_BYTES = 1 << 20


class AttemptOutput:
    """Takes an attempt's output as it comes; memory does not grow with it.

    The index, `TITLE.idx`, has a line a run of bytes, `o 120` or `e 14`. The stream is written when the run begins and
    the count when it ends, so that a kill leaves the last line open; there is none as long as all came from stdout.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self._path = folder / f"{title}.log"
        self._index_path = folder / f"{title}.idx"
        self._file: BinaryIO | None = None
        self._index: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._index_digest = hashlib.sha256()
        self._bytes: dict[Stream, int] = {"o": 0, "e": 0}
        self._last: Stream | None = None
        self._last_bytes = 0
        self._full = False

    def write(self, stream: Stream, chunk: bytes) -> None:
        """Store a chunk. Raises once where the disk takes no more: what comes after that is not kept."""
        if self._full:
            return
        try:
            with system_errors(str(self._path)), needing_space(self._path.parent):
                file = self._file = self._file or self._open(self._path)
                if stream != self._last:
                    self._begin_run(stream)
                left = memoryview(chunk)
                while left:
                    left = left[self._take(file, stream, left) :]
        except RunnableError:
            self._full = True
            raise

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return self._bytes["o"] + self._bytes["e"]

    def close(self) -> LogFile:
        """Return what was written, whole."""
        index_size = 0
        if self._index is not None:
            if not self._full:
                with suppress(OSError):
                    self._note(f"{self._last_bytes}\n")
            index_size = self._index.tell()
            _close(self._index, self._index_path)
            if not index_size or not self._bytes["o"]:
                self._index_path.unlink()
                index_size = 0
        if self._file is not None:
            _close(self._file, self._path)
            if not self.size:
                self._path.unlink()
        return LogFile(
            data_hash=self._digest.hexdigest(),
            size=self.size,
            stdout_bytes=self._bytes["o"],
            stderr_bytes=self._bytes["e"],
            index_hash=self._index_digest.hexdigest() if index_size else "",
            index_size=index_size,
        )

    def _take(self, file: BinaryIO, stream: Stream, chunk: memoryview) -> int:
        """Store as much of a chunk as the disk accepts."""
        written = file.write(chunk)
        self._digest.update(chunk[:written])
        self._bytes[stream] += written
        self._last_bytes += written
        return written

    def _open(self, path: Path) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)  # the step may have removed it
        return path.open("w+b", buffering=0)

    def _begin_run(self, stream: Stream) -> None:
        line = f"{stream} "
        if self._index is not None:
            line = f"{self._last_bytes}\n{line}"
        elif self._last is not None:
            line = f"{self._last} {self._last_bytes}\n{line}"
        if self._last is not None or stream == "e":
            self._note(line)
        self._last, self._last_bytes = stream, 0

    def _note(self, text: str) -> None:
        if self._index is None:
            self._index = self._open(self._index_path)
        written = self._index.write(text.encode())
        self._index_digest.update(text[:written].encode())
        if written < len(text):  # as after a kill: the last line is open
            raise OSError(errno.ENOSPC, "no space left for the index")


def _close(file: BinaryIO, path: Path) -> None:
    """Close a file; one that was removed while it was open is written again."""
    with file:
        if not path.exists():
            file.seek(0)
            with path.open("wb") as again:
                shutil.copyfileobj(file, again)


def redact_kept(folder: Path, title: str, log: LogFile, redactor: Redactor, *, through: Path) -> LogFile | None:
    """Return the output of an attempt once its files have no secret any more.

    New ones are written in the folder `through`.

    None where there is no space for that: the files are gone then.
    """
    names = (f"{title}.log", f"{title}.idx")
    # A mask is shorter than any secret.
    if sum(len(part) for _, part in _redacted(folder, names, log, redactor)) == log.size:
        return log
    try:
        clean = AttemptOutput(through, title)
        try:
            for stream, part in _redacted(folder, names, log, redactor):
                clean.write(stream, part)
        finally:
            redacted = clean.close()
    except (RunnableError, OSError):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        return None
    for name in names:
        if (through / name).exists():
            (through / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return redacted


def _redacted(folder: Path, names: tuple[str, str], log: LogFile, redactor: Redactor) -> Iterator[tuple[Stream, bytes]]:
    """Yield what is kept of an attempt, each stream without secrets."""
    path, index_path = (folder / name for name in names)
    redactions: dict[Stream, Redaction] = {"o": Redaction(redactor), "e": Redaction(redactor)}
    with path.open("rb") as file:
        chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        index = index_path.read_bytes() if index_path.exists() else b""
        for stream, part in split(chunks, index, only_stream="o" if log.stdout_bytes else "e"):
            if clean := redactions[stream].feed(part):
                yield stream, clean
    for stream, redaction in redactions.items():
        if clean := redaction.close():
            yield stream, clean


def recover(folder: Path, title: str, *, through: Path) -> LogFile | None:
    """Return the output of an attempt whose run was killed, as far as it was written; None where there is none.

    The index is put in order, by a temporary file in `through`.
    """
    path, index_path = folder / f"{title}.log", folder / f"{title}.idx"
    if not path.exists():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = left = path.stat().st_size
    found = index_path.read_bytes() if index_path.exists() else b""
    counts: dict[Stream, int] = {"o": 0, "e": 0}
    index = b""
    for stream, count in [*parse_index(found), (_open_run(found) or "o", left)]:
        if taken := min(count, left):  # less than the index has, should the machine have crashed
            counts[stream] += taken
            left -= taken
            index += f"{stream} {taken}\n".encode()
    if not counts["e"]:
        index = b""
    if index:
        write_whole(index_path, index, through=through)
    else:
        index_path.unlink(missing_ok=True)
    return LogFile(
        data_hash=digest,
        size=size,
        stdout_bytes=counts["o"],
        stderr_bytes=counts["e"],
        index_hash=hashlib.sha256(index).hexdigest() if index else "",
        index_size=len(index),
    )


def parse_index(index: bytes) -> Iterator[tuple[Stream, int]]:
    """Yield the (stream, byte count) runs of an index, in order; lines that are not of the form are passed over."""
    for line in index[: index.rfind(b"\n") + 1].splitlines():
        stream, _, count = line.decode(errors="replace").partition(" ")
        if count.isdigit():
            if stream == "o":
                yield "o", int(count)
            elif stream == "e":
                yield "e", int(count)


def _open_run(index: bytes) -> Stream | None:
    """Return the stream whose run had not ended when the index was written last."""
    match index[index.rfind(b"\n") + 1 :][:1]:
        case b"o":
            return "o"
        case b"e":
            return "e"
        case _:
            return None


def split(content: Iterator[bytes], index: bytes, *, only_stream: Stream) -> Iterator[tuple[Stream, bytes]]:
    """Yield output in its order, as (stream, bytes); what the index does not cover is `only_stream`'s."""
    runs, only_stream = parse_index(index), _open_run(index) or only_stream
    stream, left = next(runs, (only_stream, -1))
    for chunk in content:
        rest = chunk
        while rest:
            if left == 0:
                stream, left = next(runs, (only_stream, -1))
                continue
            part = rest if left < 0 else rest[:left]
            yield stream, part
            rest = rest[len(part) :]
            left -= len(part) if left > 0 else 0


def large_outputs(folder: Path, log: RunLog) -> dict[str, str]:
    """Return files of output that are moved into the store, since they are too large for a pack → their sha256.

    It is known since they were written: neither is read again.
    """
    logs = {
        f"{step.name}.{attempt.attempt_number}.log": attempt.log
        for step in log.steps.values()
        for attempt in step.attempts
        if attempt.log and attempt.log.size > PACKED_FILE_MAX_BYTES
    }
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return {name: log.data_hash for name, log in logs.items() if sizes.get(name) == log.size}
