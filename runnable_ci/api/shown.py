"""How runs look in a notebook: short, and as tables of HTML in which nothing but text comes from a run. Pure."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Iterable, Mapping, Optional, Sequence

_SHOWN_MAX = 40
"""Characters of a value."""


def duration(seconds: Optional[float]) -> str:
    """Return seconds as `1.2 s`, `3 min 05 s` or `2 h 03 min`; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def status(word: str) -> str:
    """Return a status of the run log as people say it."""
    return "RUNNING" if word == "PROCESSING" else word


def code(row: Mapping[str, Any]) -> str:
    """Return branch and commit of a run, as `main 0f7dd28 dirty`."""
    return " ".join(filter(None, (row["ref"], row["commit"][:7], "dirty" if row["dirty"] else "")))


def pairs(values: Mapping[str, Any]) -> str:
    """Return each value as `name = value`; of many only the first."""
    shown = [f"{name} = {_value(value)}" for name, value in list(values.items())[:5]]
    return ", ".join(shown + ([f"and {len(values) - 5} more"] if len(values) > 5 else []))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """Return a table of texts."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


def _value(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
