"""What the steps before a step may make, so that what is not there yet is refused only where nothing can make it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, Literal

from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import as_glob, can_overlap
from runnable_ci.pipeline.step import Step
from runnable_ci.steps import shell

Chance = Literal["declared", "named", "unknown", "none"]
"""`declared`: a `put` of an earlier step matches it. `named`: the script of one names it, or a file that it names does.
`unknown`: steps run before, and nothing tells what they make. `none`: no step runs before."""
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]+")
_LEAST_LETTERS: Final = 4


def chance_of(pipeline: Pipeline, workspace: Path, step: Step, paths: Iterable[str]) -> Chance:
    """Return whether a step that runs before `step` makes one of these files, which may be globs."""
    before = [pipeline.steps[name] for name in pipeline.ancestors(step.name)]
    paths = list(paths)
    if any(can_overlap(as_glob(put), path) for other in before for put in other.put for path in paths):
        return "declared"
    words = {word for path in paths for word in _words(path)}
    if any(other.kind == "run" and shell.mentions(other, workspace, words) for other in before):
        return "named"
    return "unknown" if before else "none"


def misspelt(word: str, known: Collection[str]) -> str:
    """Return the one of `known` that a slip of the finger makes `word` of: letters swapped, one too many or too few."""

    def without_one(text: str) -> set[str]:
        return {text[:at] + text[at + 1 :] for at, letter in enumerate(text) if letter.isalpha()}

    close = [
        name
        for name in known
        if name != word
        and len(word) >= _LEAST_LETTERS
        and (sorted(name) == sorted(word) or word in without_one(name) or name in without_one(word))
    ]
    return close[0] if close else ""


def _words(path: str) -> list[str]:
    """Return the words by which a script would name a file: its name without suffixes, else all of the path."""
    name = path.rpartition("/")[2].lstrip(".").partition(".")[0]
    return _WORD.findall(name) or _WORD.findall(path)
