"""How values are shown to people: plain aligned text that reads the same on a terminal, in a CI log and in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from runnable_ci.github.workflow import harmless, is_actions
from runnable_ci.printer import printable
from runnable_ci.runlog import seconds_between


def tell(text: str) -> None:
    """Print a text for people; in the log of a GitHub job nothing that it quotes is taken for a command."""
    sys.stdout.write(harmless(text) if is_actions(os.environ) else text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; control characters of hostile cells are shown as `?`."""
    clean = [[printable(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in clean) for i in range(len(head))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]
    return "\n".join(lines) + "\n"


def duration(start: str, end: str) -> str:
    """From one time of the run log to another, as `lasting` has it; empty where one is missing."""
    return lasting(seconds_between(start, end))


def lasting(seconds: float | None) -> str:
    """Seconds as `1.2 s`, `3 min 05 s` or `2 h 03 min`; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def moment(time: str) -> str:
    """A time of the run log to the minute, as `2026-11-24 03:00`."""
    return time[:16].replace("T", " ")


def amount(number: int, noun: str) -> str:
    """How many there are of something, as `1 run` or `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(size_bytes: int) -> str:
    """A size as `312 B`, `4.0 KiB`, `1.2 GiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def short(value: Any, width: int = 40) -> str:
    """A value in at most `width` characters."""
    text = printable(f"{value:.6g}" if isinstance(value, float) else str(value))
    return text if len(text) <= width else text[: width - 1] + "…"


def pairs(values: dict[str, Any]) -> str:
    """`name = value` of each, separated by commas."""
    return ", ".join(f"{name} = {short(value)}" for name, value in values.items())
