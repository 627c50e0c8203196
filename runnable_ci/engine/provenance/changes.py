"""What speaks against reusing a finished step, one by one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["code", "data"]


class Change(NamedTuple):
    """One thing that speaks against reusing a finished step."""

    reason: str
    """What differs, in one line."""
    kind: Kind
    state: Any = None
    """What is there now, as JSON: another change of the same thing is another change."""
    is_tentative: bool = False
    is_requested: bool = False

    def digest(self) -> str:
        """Return what tells the change from others."""
        return hashlib.sha256(json.dumps([self.kind, self.state], sort_keys=True).encode()).hexdigest()


class Acceptance(NamedTuple):
    """A person's consent that a finished step may be reused though something differs."""

    by: str
    reason: str


def changed_definition(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which keys of a definition changed, empty if none did.

    The order of `returns` is that of a function's tuple.

    A mock's is no definition of the step. What a step needs is no part of it: earlier versions recorded it there for
    the order alone.
    """
    if then.get("mock") != now.get("mock"):
        return "it was mocked" if then.get("mock") else "it is mocked now"
    keys = [
        f"`{key}`"
        for key in {**then, **now}
        if key != "needs" and json.dumps(then.get(key)) != json.dumps(now.get(key))
    ]
    return f"its {', '.join(keys)} changed" if keys else ""


def same_json(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: unlike in Python, 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def short_value(value: Any) -> str:
    """Return a value in a few words."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def one_line(reason: str) -> str:
    """Return a text without line breaks."""
    return " ".join(reason.split())
