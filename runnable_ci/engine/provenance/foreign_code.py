"""Code that ran from elsewhere though the tree has it too: an installed copy, or another clone.

The identity of the tree then tells nothing of what ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from runnable_ci.observe.assemble import WorkerReport
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import StepAttempt

_SOURCES = (".", "src", "lib")
"""Where a tree has its modules, by custom."""


@dataclass(frozen=True, slots=True)
class ForeignModule:
    """A top-level module that was loaded from elsewhere."""

    name: str
    loaded_from: str
    """The folder that has it."""
    own: str
    """What the tree has of that name, relative to the workspace."""

    def __str__(self) -> str:
        return f"`{self.name}` was loaded from {self.loaded_from}, not from {self.own} of this repository"


def foreign_modules(
    step: Step, workspace: Path, worker: WorkerReport, environ: Mapping[str, str]
) -> list[ForeignModule]:
    """Return the modules that a python step loaded from elsewhere, and that the workspace has too."""
    root = Path(os.path.realpath(workspace))
    folders = [folder for folder in dict.fromkeys(_folders(step, root, environ)) if folder.is_relative_to(root)]
    found: dict[str, ForeignModule] = {}
    for module, file in {**worker.outside, **worker.libraries}.items():
        name = module.partition(".")[0]
        own = next(_own(name, file, folders), None)
        if own is not None and name not in found:
            found[name] = ForeignModule(name, _place(name, file, root), own.relative_to(root).as_posix())
    return list(found.values())


def doubt_identity(attempt: StepAttempt, foreign: Iterable[ForeignModule]) -> None:
    """Note in the identities of an attempt's code that other code ran."""
    message = "; ".join(map(str, foreign))
    attempt.code_identities = [
        code.model_copy(
            update={
                "code_identifier_dependable": False,
                "code_identifier_message": "; ".join(filter(None, (code.code_identifier_message, message))),
            }
        )
        if code.code_identifier_type == "git"
        else code
        for code in attempt.code_identities
    ]


def note_foreign_code(
    attempt: StepAttempt,
    step: Step,
    report: WorkerReport,
    catalog: Catalog,
    environ: Mapping[str, str],
    known: set[ForeignModule],
    redactor: Redactor,
) -> str:
    """Note in an attempt what ran from elsewhere though the tree has it too; return a note, once in a run."""
    foreign = foreign_modules(step, catalog.workspace, report, environ)
    if not foreign:
        return ""
    doubt_identity(attempt, foreign)
    for code in attempt.code_identities:
        code.code_identifier_message = redactor.text(code.code_identifier_message)
    new = [module for module in foreign if module not in known]
    known.update(new)
    return f"note: {redactor.text('; '.join(map(str, new)))}" if new else ""


def _folders(step: Step, root: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders in which an import looks, or would after an installation."""
    working = root / step.working_directory
    named = {**environ, **step.env}.get("PYTHONPATH", "").split(os.pathsep)
    for folder in (*(root / name for name in _SOURCES), working, *(working / name for name in named if name)):
        yield Path(os.path.realpath(folder))


def _own(name: str, file: str, folders: Iterable[Path]) -> Iterator[Path]:
    tail = _tail(name, file)
    for folder in folders:
        for path in (folder / tail, folder / name / "__init__.py", folder / f"{name}.py"):
            if path.is_file() and str(path) != os.path.realpath(file):
                yield folder / name if (folder / name).is_dir() else path


def _tail(name: str, file: str) -> PurePath:
    """Return a module's file from its top-level package on."""
    parts = PurePath(file).parts
    start = max((place for place, part in enumerate(parts[:-1]) if part == name), default=len(parts) - 1)
    return PurePath(*parts[start:])


def _place(name: str, file: str, root: Path) -> str:
    tail = _tail(name, file)
    folder = PurePath(*PurePath(file).parts[: -len(tail.parts)])
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
