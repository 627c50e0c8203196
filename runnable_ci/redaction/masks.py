"""Values that a step asks to be masked: by commands in its output, as GitHub's runner reads them, and by a file.

Pure: bytes in, values and the other bytes out.
Source: actions/runner, src/Runner.Common/ActionCommand.cs (`TryParseV2`, `TryParse`, the escapes).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from runnable_ci.errors import StepError
from runnable_ci.redaction.redactor import PEM_BOUNDARY

VALUE_MAX_BYTES: Final = 1024 * 1024
_NAME: Final = b"add-mask"
_NEW: Final = b"::add-mask"
_OLD: Final = b"##[add-mask"
_HEAD_MAX_BYTES: Final = 4096
"""How much is held back of a line that may still become a command."""
# What follows the name: properties, which nobody reads, up to where the value begins.
_REST_OF_NEW: Final = re.compile(rb"(?: [^\r\n]*?)?::")
_REST_OF_OLD: Final = re.compile(rb"(?: [^]\r\n]*)?\]")
_NEW_BEGUN: Final = re.compile(rb"(?::| [^\r\n]*)?\Z")
_OLD_BEGUN: Final = re.compile(rb"(?: [^]\r\n]*)?\Z")
_LINE_END: Final = re.compile(rb"\r\n?|\n")
# .NET trims white space, and passes over characters without a width where it compares texts.
_BLANK: Final = re.compile("\\A[\\s\0\u00ad\u200b-\u200f\u2060\ufeff]*")
_ESCAPE_OF_NEW: Final = re.compile("%(0D|0A|25)")
_ESCAPE_OF_OLD: Final = re.compile("%(3B|0D|0A|5D|25)")
_NO_ESCAPE: Final = re.compile("(?!)")
_TORN: Final = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
"""A character of UTF-8 whose other bytes are still to come."""
_BLOCK: Final = re.compile(r"<<\s*(\S.*?)\s*")
_LINE_OF_FILE: Final = re.compile(r"\s*::add-mask(?: .*?)?::(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(slots=True, eq=False, repr=False)
class _Command:
    """A mask command whose line has not ended."""

    is_old: bool
    is_whole_line: bool
    """Whether the line is gone with it, its end included."""
    value: bytearray = field(default_factory=bytearray)

    def take(self, more: bytes) -> None:
        """Append to the value. Raises `StepError` where it is too long."""
        self.value += more
        if len(self.value) > VALUE_MAX_BYTES:
            self.value.clear()
            raise StepError("the value of a mask command has more than 1 MiB", hint="mask its lines one by one")

    def values(self) -> list[str]:
        """Return what is to be masked."""
        written = bytes(self.value).decode(errors="surrogateescape")
        return _unescaped(written, _ESCAPE_OF_OLD if self.is_old else _ESCAPE_OF_NEW)

    def key_begin(self) -> bytes:
        """Return the value, if it is the first line of a key: it tells that lines which follow it are a secret."""
        found = PEM_BOUNDARY.fullmatch(bytes(self.value).decode(errors="replace"))
        return bytes(self.value) if found and found[1] == "BEGIN" else b""


class MaskCommands:
    """Takes the mask commands out of what comes in pieces: the rest is the same, wherever the pieces end.

    `::add-mask::VALUE` is a command at the beginning of a line, `##[add-mask]VALUE` anywhere in it; what stands before
    the latter stays. `learn` gets the values before anything is given out that came together with them;
    `mentions_mask` tells quickly whether `-mask` is in some bytes, in capitals or not.
    """

    __slots__ = ("_blank", "_command", "_kept", "_key_begin", "_last", "_learn", "_mentions_mask", "_skips_line_feed")

    def __init__(self, learn: Callable[[Sequence[str]], None], *, mentions_mask: Callable[[bytes], bool]) -> None:
        self._learn = learn
        self._mentions_mask = mentions_mask
        self._kept = b""
        """What may become a command."""
        self._command: _Command | None = None
        self._key_begin = b""
        """A line that is shown without its command, unless another command follows: then each line has one."""
        self._skips_line_feed = False
        """Whether a line feed that comes next belongs to a carriage return that is gone."""
        self._blank = True
        """Whether nothing was given out of the line so far, but what the runner trims."""
        self._last = b""
        """The last byte that was given out."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out, now that this came. Raises `StepError` for a value that is too long."""
        if self._skips_line_feed and chunk:
            self._skips_line_feed = False
            chunk = chunk.removeprefix(b"\n")
        data = self._kept + chunk if self._kept else chunk
        if self._command is None and not self._mentions_mask(data):
            begun = self._begun_at(data, 0)
            self._kept = data[begun:]
            return self._given(data[:begun] if self._kept else data)  # a slice of all would be a copy
        return self._without_commands(data, last=False)

    def close(self) -> bytes:
        """Return the rest, as no more comes."""
        rest = self._without_commands(self._kept, last=True)
        self._skips_line_feed = False
        if command := self._command:
            self._command, self._key_begin = None, command.key_begin()
            self._learn(command.values())
        key_begin, self._key_begin = self._key_begin, b""
        return rest + self._given(key_begin)

    def _without_commands(self, data: bytes, *, last: bool) -> bytes:
        parts: list[bytes] = []
        values: list[str] = []
        lowered = data.lower()
        position, self._kept = 0, b""
        try:
            while True:
                if command := self._command:
                    end = _LINE_END.search(data, position)
                    command.take(data[position : end.start() if end else len(data)])
                    if end is None:
                        break
                    self._command = None
                    values += command.values()
                    position = end.end() if command.is_whole_line else end.start()
                    if key_begin := command.key_begin():
                        self._key_begin = key_begin + (b"\n" if command.is_whole_line else b"")
                    self._skips_line_feed = end[0] == b"\r" and position == len(data)
                begin, after, self._command = self._next(data, lowered, position, last=last)
                if self._command and begin == position:
                    self._key_begin = b""
                parts.append(self._given(data[position:begin]))
                if self._command is None:
                    self._kept = data[begin:]
                    break
                position = after
        finally:
            if values:
                self._learn(values)
        return b"".join(parts)

    def _next(self, data: bytes, lowered: bytes, position: int, *, last: bool) -> tuple[int, int, _Command | None]:
        """Return where the next command begins, where its value does, and the command.

        Without one, where one may begin.
        """
        place = lowered.find(_NAME, position)
        while place >= 0:
            after = place + len(_NAME)
            for prefix, rest, begun in ((b"::", _REST_OF_NEW, _NEW_BEGUN), (b"##[", _REST_OF_OLD, _OLD_BEGUN)):
                at = place - len(prefix)
                if at < position or not data.startswith(prefix, at):
                    continue
                line = self._line_begin(data, position, at)
                is_old = rest is _REST_OF_OLD
                if line is None and not is_old:
                    continue
                begin = at if line is None else line
                if found := rest.match(data, after):
                    # After a line that ended in a carriage return alone, the end of this line is left, else none.
                    before = data[begin - 1 : begin] if begin > position else self._last
                    return begin, found.end(), _Command(is_old, is_whole_line=line is not None and before != b"\r")
                if not last and len(data) - begin <= _HEAD_MAX_BYTES and begun.match(data, after):
                    return begin, begin, None
            place = lowered.find(_NAME, after)
        return len(data) if last else self._begun_at(data, position), 0, None

    def _begun_at(self, data: bytes, position: int) -> int:
        """Return from where on the end of the data may be the beginning of a command's name; its end if of none."""
        if data.endswith(b"\n"):
            return len(data)
        near = max(position, len(data) - _HEAD_MAX_BYTES)
        line = max(data.rfind(b"\n", near), data.rfind(b"\r", near)) + 1
        if line or (near == position and self._blank):
            name = _trimmed(_TORN.sub(b"", data[line or position :])).lower()
            if _NEW.startswith(name) or _OLD.startswith(name):
                return line or position
        tail = data[max(position, len(data) - len(_OLD) + 1) :].lower()
        return len(data) - next((size for size in range(len(tail), 0, -1) if _OLD.startswith(tail[-size:])), 0)

    def _line_begin(self, data: bytes, position: int, at: int) -> int | None:
        """Return where the line begins that has only what the runner trims before `at`; None where it has more."""
        cut = max(data.rfind(b"\n", position, at), data.rfind(b"\r", position, at)) + 1
        if not cut and not self._blank:
            return None
        begin = cut or position
        return None if _trimmed(data[begin:at]) else begin

    def _given(self, part: bytes) -> bytes:
        """Return what is given out where a part of the data is, and a note of it."""
        if not part:
            return part
        if self._key_begin:
            part, self._key_begin = self._key_begin + part, b""
        self._last = part[-1:]
        cut = 0 if part.endswith(b"\n") else max(part.rfind(b"\n"), part.rfind(b"\r")) + 1
        self._blank = self._last == b"\n" or ((cut > 0 or self._blank) and not _trimmed(part[cut:]))
        return part


def values_of_file(content: bytes, *, is_whole: bool) -> list[str]:
    """Return the values in a mask file: a line is one, and so is a block `<<EOF … EOF`, which has several lines.

    Of a block whose end is not there each line is one. `is_whole` says that nothing more comes.
    """
    lines = [line.removesuffix("\r") for line in content.decode(errors="surrogateescape").split("\n")]
    values: list[str] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if block := _BLOCK.fullmatch(line):
            end = next((at for at in range(position, len(lines)) if lines[at] == block[1]), -1)
            if end >= 0:
                values.append("\n".join(lines[position:end]))
                position = end + 1
            elif is_whole:
                values.append(line)
        else:
            command = _LINE_OF_FILE.fullmatch(line)
            values += _unescaped(command[1], _ESCAPE_OF_NEW) if command else _unescaped(line, _NO_ESCAPE)
    return values


def _unescaped(written: str, escape: re.Pattern[str]) -> list[str]:
    """Return a value as the runner decodes it, and as it was written: a step may print either.

    None for what is blank, and for the lines before and after a key, which all keys have.
    """
    value = escape.sub(lambda found: chr(int(found[1], 16)), written)
    return list(dict.fromkeys((value, written))) if value.strip() and not PEM_BOUNDARY.fullmatch(value) else []


def _trimmed(data: bytes) -> bytes:
    """Return the data without what the runner trims at a line's beginning."""
    data = data.lstrip()
    if not data or 0 < data[0] < 0x80:
        return data
    text = data.decode(errors="replace")
    return _BLANK.sub("", text, count=1).encode()
