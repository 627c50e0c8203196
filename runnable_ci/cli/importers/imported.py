"""A pipeline that is imported: its table, and what its comments will say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

from runnable_ci.pipeline.definition.toml_writer import toml_text

Values = Mapping[str, Any]
"""The axes of one instance of a step, by name."""
_MATRIX: Final = "matrix"


@dataclass
class ImportedPipeline:
    """A pipeline file in the making. `notes` are what has no counterpart, by the header that they stand above."""

    source: str
    """How messages name the file that it is made of."""
    folder: Path
    """Where its paths begin, and the pipeline file is written."""
    table: dict[str, Any] = field(default_factory=dict)
    notes: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def note(self, text: str, *, step: str = "") -> None:
        """Say something of the whole, or of a step, in a comment."""
        notes = self.notes.setdefault(("steps", step) if step else (), [])
        if text not in notes:
            notes.append(text)

    def text(self, command: str) -> str:
        """Return the pipeline file; `command` wrote it."""
        top = [f"Written by `{command}`.", *(["Not imported:"] if self.notes.get(()) else []), *self.notes.get((), [])]
        return toml_text(self.table, comments={**self.notes, (): top})


def strategy(instances: Sequence[Values]) -> dict[str, Any]:
    """Return a matrix with just these instances, in this order: its axes where it is all of their combinations."""
    names = list(instances[0])
    axes = {name: _unique(instance[name] for instance in instances) for name in names}
    combined = [dict(zip(names, values, strict=True)) for values in product(*axes.values())]
    is_all = combined == list(map(dict, instances))
    return {_MATRIX: axes if is_all else {"include": [dict(it) for it in instances]}}


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in found):
            found.append(value)
    return found


def overlaps(one: str, other: str) -> bool:
    """Return whether a path is the other, or is in it, or has it in itself."""
    return one == other or one.startswith(f"{other.rstrip('/')}/") or other.startswith(f"{one.rstrip('/')}/")


def needed(reads: Mapping[str, Iterable[str]], writes: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return, for each step, the steps that write a path that it reads."""
    made = {step: list(paths) for step, paths in writes.items()}
    return {
        step: [
            other
            for other, outs in made.items()
            if other != step and any(overlaps(path, out) for path in paths for out in outs)
        ]
        for step, paths in reads.items()
    }
