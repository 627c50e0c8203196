"""A difference in words. Pure."""

from __future__ import annotations

from typing import Any

from runnable_ci.analysis.comparison.model import A_AND_B, NOT_READ, RunDifference
from runnable_ci.util.text import as_pair, printable, truncate

_SHOWN_MAX = 60
_NOUNS = {
    "needs": "the needs of `{}`",
    "definition": "its `{}`",
    "value": "`{}`",
    "variable": "the variable {}",
    "result": "the value `{}`",
    "metric": "the metric `{}`",
    "image": "the image of {}",
    "package": "the package {}",
}
_BY_CONTENT = frozenset({"code", "read", "file", "output", "variable"})
"""Of these a sha256 is all that is known."""


def noun_of(one: RunDifference) -> str:
    """Return what a difference is of."""
    return printable(_NOUNS.get(one.kind, "{}").format(one.name))


def in_words(one: RunDifference, names: tuple[str, str] = A_AND_B) -> str:
    """Return a difference in a few words, such as "`lr` 0.1 → 0.01"."""
    note = f" ({one.note})" if one.note and one.note != NOT_READ else ""
    return f"{noun_of(one)} {how(one, names)}{note}"


def how(one: RunDifference, names: tuple[str, str] = A_AND_B) -> str:
    """Return in which way something differs."""
    if one.kind == "output":
        return "is another text"
    if one.note == NOT_READ:
        return f"was read in {names[one.change == 'added']} only"
    if one.kind in _BY_CONTENT:
        return {"changed": "changed", "added": f"only in {names[1]}", "removed": f"only in {names[0]}"}[one.change]
    match one.change:
        case "added":
            return f"only in {names[1]}{_valued(one.after)}"
        case "removed":
            return f"only in {names[0]}{_valued(one.before)}"
        case _:
            return " → ".join(as_pair(one.before, one.after, shown=shown))


def _valued(value: Any) -> str:
    return "" if value is None else f": {shown(value)}"


def shown(value: Any) -> str:
    """Return a value for a line of text."""
    return truncate(value, _SHOWN_MAX)
