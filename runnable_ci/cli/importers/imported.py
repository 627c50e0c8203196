"""A pipeline that is imported: its table, and what its comments will say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from runnable_ci.pipeline.definition.toml_writer import toml_text

Values = Mapping[str, Any]
"""The axes of one instance of a step, by name."""
READS: Final = (
    "reads: of instances that run at the same time, only the declared inputs count, as there; without the key it is "
    "what they were seen to read, which may be each other's"
)
"""Why steps with a matrix have `reads`."""
_WIDTH: Final = 110
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
        notes = {path: [line for text in texts for line in _wrapped(text)] for path, texts in self.notes.items()}
        differs = ["What differs:", *notes[()]] if notes.get(()) else []
        return toml_text(self.table, comments={**notes, (): [f"Written by `{command}`.", *differs]})


def _wrapped(text: str) -> list[str]:
    """Return a note as lines of a readable width; code stays as it is."""
    if text.startswith(" "):
        return [text]
    lines = (wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False) for line in text.splitlines())
    return [line for wrapped in lines for line in wrapped]


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
    """Return, for each step, the steps that write a path that it reads, one in it, or a folder that has it.

    Paths are looked up by themselves and their folders: steps may have thousands of them.
    """
    whole: dict[str, set[str]] = {}
    within: dict[str, set[str]] = {}
    for step, paths in writes.items():
        for path in paths:
            itself, *folders = _with_folders(path)
            whole.setdefault(itself, set()).add(step)
            for folder in folders:
                within.setdefault(folder, set()).add(step)
    found: dict[str, list[str]] = {}
    for step, paths in reads.items():
        above = {folder for path in paths for folder in _with_folders(path)}
        makers = {maker for path in above for maker in whole.get(path, ())}
        makers.update(maker for path in paths for maker in within.get(path.rstrip("/"), ()))
        found[step] = [other for other in writes if other in makers and other != step]
    return found


def _with_folders(path: str) -> list[str]:
    """Return a path and the folders that it is in."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
