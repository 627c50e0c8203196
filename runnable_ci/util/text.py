"""How values are shown to people: plain aligned text that reads the same on a terminal, in a CI log and in a pipe.

Pure: what this makes is printed by `console.py`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

_NARROWEST = 12
"""Characters of a column that is still worth its place."""

_UNITS_S: Final = (604800.0, 86400.0, 3600.0, 60.0, 1.0)
_DURATION: Final = re.compile("".join(f"(?:([0-9]{{1,6}}){unit})?" for unit in "wdhms"))
_LARGE_MAX = 1000
_MOST_PAIRS = 50
"""Characters of JSON up to which a value is shown whole."""


def printable(text: str) -> str:
    """Return text of one line without anything that could move a terminal's cursor, or turn the direction of what
    follows.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text)


def encoding_of(begin: bytes) -> str:
    """Return in what a text is written, by its first bytes."""
    return "utf-16" if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def decode_text(content: bytes) -> str:
    """Return the text of a file that people or their programs wrote: UTF-8, or UTF-16 that begins with its mark.

    Raises `ValueError` with the line for anything else.
    """
    encoding = encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as e:
        line = e.object[: e.start].decode(encoding, errors="replace").count("\n") + 1
        raise ValueError(f"line {line} is not {encoding.upper().removesuffix('-SIG')} text") from e


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns as wide as their widest cell, two spaces apart."""
    return ["  ".join(cells).rstrip() for cells in padded([head, *rows])]


def padded(rows: Sequence[Sequence[str]], width: int | None = None) -> list[list[str]]:
    """Return the rows with all cells of a column as wide as its widest, two spaces to stand between them.

    Where that is more than `width`, the widest columns but the first are cut, and at `_NARROWEST` the last ones go.
    """
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    while width is not None and len(widths) > 1 and sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(1, len(widths)), key=widths.__getitem__)
        if widths[widest] > _NARROWEST:
            widths[widest] -= 1
        else:
            widths.pop()
    return [[f"{truncate(cell, size):{size}}" for cell, size in zip(row, widths, strict=False)] for row in clean]


def seconds_between(start: str, end: str, waited_s: float = 0.0) -> float | None:
    """Return the seconds from one time of a run log to another, without those in which it waited.

    None where one is missing or none.
    """
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds - waited_s) if waited_s else seconds


def duration(start: str, end: str) -> str:
    """Return the duration that `seconds_between` gives, as `format_duration` has it; empty where there is none."""
    return format_duration(seconds_between(start, end))


def format_duration(seconds: float | None) -> str:
    """Format seconds as `1.2 s`, `3 min 05 s` or `2 h 03 min`; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def duration_s(text: str) -> float | None:
    """Return in seconds a length of time as people write it, such as `90s`, `5h30m` or `7d`; None for what is none."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        return None
    return sum(int(number or 0) * unit_s for number, unit_s in zip(found.groups(), _UNITS_S, strict=True))


def format_elapsed(seconds: float) -> str:
    """Format how long something has run by now, as `7 s`, `3 min 05 s`, `12 min` or `2 h 03 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return format_duration(whole) if whole < 600 or whole >= 3600 else f"{whole // 60} min"


def width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width  # few texts need it

    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def fitted(text: str, columns: int) -> str:
    """Return as much of a printable text as fits into so many columns; that it was cut is seen."""
    if width(text) <= columns:
        return text
    while text and width(text) >= columns:
        text = text[: max(0, columns - 1)] if text.isascii() else text[:-1]
    return f"{text}…" if columns > 0 else ""


def format_age(seconds: float | None) -> str:
    """Format how long ago something was, as `12 s`, `3 min`, `5 h` or `34 days`; empty where it is not known."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            number = int(seconds // size)
            return pluralize(number, unit) if unit == "day" else f"{number} {unit}"
    return f"{max(seconds, 0):.0f} s"


def format_time(time: str) -> str:
    """Return a time of the run log to the minute, as `2026-11-24 03:00`."""
    return time[:16].replace("T", " ")


def pluralize(number: int, noun: str) -> str:
    """Return how many there are of something, as `1 run` or `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[str], *, at_most: int = 3) -> str:
    """Return names in a line, as `a, b, c and 7 more`."""
    found = list(names)
    more = f" and {len(found) - at_most} more" if len(found) > at_most else ""
    return f"{', '.join(found[:at_most])}{more}"


def format_size(size_bytes: int) -> str:
    """Return a size as `312 B`, `4.0 KiB`, `1.2 GiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def truncate(value: Any, width: int = 40) -> str:
    """Return a value in at most `width` characters: a text as it is, a number shortened, all else as JSON.

    An integer of up to 100 digits is not cut, as its first digits are another number.
    """
    if isinstance(value, str):
        text = printable(value)
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        width = max(width, 100) if isinstance(value, int) else width
        text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= width else text[: width - 1] + "…"


def as_pair(before: Any, after: Any, *, shown: Callable[[Any], str] = truncate) -> tuple[str, str]:
    """Return two values, each as `shown` has it; numbers that differ never as the same text."""
    one, other = distinct([before, after], shown=shown)
    return one, other


def distinct(values: Sequence[Any], *, shown: Callable[[Any], str] = truncate) -> list[str]:
    """Return values, each as `shown` has it; numbers with as many digits as make those differ that differ."""
    texts = [shown(value) for value in values]
    numbers = {value for value in values if type(value) in (int, float) and value == value}  # NaN is not itself
    if len(numbers) < 2 or len({shown(value) for value in numbers}) == len(numbers):
        return texts
    written: dict[Any, str] = {}
    for digits in range(7, 17):
        written = {value: f"{value:.{digits}g}" if isinstance(value, float) else str(value) for value in numbers}
        if len(set(written.values())) == len(numbers):
            break
    else:
        written = {value: repr(value) for value in numbers}
    return [
        written.get(value, texts[place]) if type(value) in (int, float) else texts[place]
        for place, value in enumerate(values)
    ]


def shortened(value: Any) -> Any:
    """Return a value of JSON, of a long text and a large list or table only how it begins."""
    text = value if isinstance(value, str) else ""
    if isinstance(value, (list, dict)) and len(written := json.dumps(value)) > _LARGE_MAX:
        text = written
    return f"{text[:10]}..." if len(text) > 10 else value


def format_pairs(values: Mapping[str, Any], *, shown: Callable[[Any], str] = truncate) -> str:
    """Format each as `name = value`, separated by commas; of a great many only the first."""
    some = dict(islice(values.items(), _MOST_PAIRS))
    texts = iter(distinct([*some.values()], shown=shown))
    pairs = [f"{name} = {next(texts)}" for name in some]
    more = len(values) - len(pairs)
    return ", ".join([*pairs, *([f"… and {more:,} more"] if more else [])])


def flattened(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return what stands in tables of tables by the way to it, such as `model.depth`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(flattened(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value})
    return found


def escape_commands(text: str) -> str:
    """Return text that is shown as it is, but for what would make a command of one of its lines.

    The runner takes `::name::` after any space at a line's beginning, and `##[name]` anywhere; a carriage return ends a
    line too.
    """
    if "::" not in text and "##[" not in text:
        return text
    lines = text.replace("##[", "##\\[").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.replace("::", ": :", 1) if line.lstrip().startswith("::") else line for line in lines)


def unicode_of(value: Any) -> Any:
    """Return the value with what is not Unicode in its texts, a byte of a path or a message, written as `\\udcff`."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return [unicode_of(item) for item in value]
    if isinstance(value, dict):
        return {unicode_of(key): unicode_of(item) for key, item in value.items()}
    return value
