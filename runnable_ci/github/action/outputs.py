"""The action's outputs that may be of any size, made to fit. Pure.

The runner ends a job in which the outputs of an action are together larger than about a megabyte, in UTF-16, and Linux
starts no step with a variable of 128 KiB, by which an output reaches a script. Source: actions/runner#1733; execve(2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MOST_CHARACTERS = 100_000


class Fitted(NamedTuple):
    """An output, and what is not in it."""

    text: str
    left_out: Sequence[str]


def metrics_output(metrics: Mapping[str, Any]) -> Fitted:
    """Return a JSON object of the metrics that fit, each whole: one that is too large keeps no other one out.

    Those that a table of a step brought, such as `matrix.a`, come after those that have a name of their own.
    """
    pairs = {name: f"{json.dumps(name)}: {json.dumps(value)}" for name, value in metrics.items()}
    kept, size = set[str](), 0
    for name in sorted(metrics, key=lambda name: name.count(".")):
        if size + len(pairs[name]) + 2 <= MOST_CHARACTERS:
            kept.add(name)
            size += len(pairs[name]) + 2
    text = ", ".join(pair for name, pair in pairs.items() if name in kept)
    return Fitted(f"{{{text}}}", [name for name in metrics if name not in kept])


def names_output(names: Iterable[str]) -> Fitted:
    """Return as many names as fit, separated by commas."""
    kept, left_out, size = list[str](), list[str](), 0
    for name in names:
        size += len(name) + 1
        (kept if size <= MOST_CHARACTERS else left_out).append(name)
    return Fitted(",".join(kept), left_out)
