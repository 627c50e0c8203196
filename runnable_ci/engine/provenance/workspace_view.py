"""The workspace as one step would find it in a fresh run: without what later, parallel and unneeded steps made."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runnable_ci.observe.reads import MODULE_SUFFIXES, is_tool_file
from runnable_ci.pipeline.patterns import may_name, select
from runnable_ci.runs.files.workspace import Workspace
from runnable_ci.runs.model import RunLog, StepLog

_LOOKED_AT_MAX = 1000


@dataclass(slots=True)
class RunProducts:
    """What the steps of a run made, by their newest attempts: products, and files that no `put` names."""

    by_step: dict[str, dict[str, str]] = field(default_factory=dict)
    """Step → path → sha256."""
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    """Step → path that was there before it and that it changed → sha256 of what it was."""
    is_tracked: Callable[[str], bool | None] = lambda _path: False
    """Whether git tracks a path: it is there whatever step ran."""

    @classmethod
    def of(cls, log: RunLog, is_tracked: Callable[[str], bool | None] = lambda _path: False) -> RunProducts:
        """Return those of a run log."""
        found = cls(is_tracked=is_tracked)
        for step in log.steps.values():
            found.note(step)
        return found

    def note(self, step: StepLog) -> None:
        """Take what a step made from its log."""
        written = step.attempts[-1].made if step.attempts else {}
        made = {path: digest for path, digest in written.items() if not self.is_tracked(path)}
        _set(self.by_step, step.name, made | {entry.name: entry.data_hash for entry in step.put_entries()})
        _set(self.before, step.name, {entry.name: entry.data_hash for entry in step.data_catalog if entry.kept})

    def hidden_from(self, visible: Collection[str]) -> set[str]:
        """Return the paths of all of them but those that a step sees of the steps that it needs.

        A file that was there before a step changed it is there for all.
        """
        return set().union(*self.by_step.values()).difference(visible, *self.before.values())

    def unchanged(self, path: str, digest: str, visible: Collection[str]) -> str | None:
        """Return what a file was before a step changed it to this content, for one that does not see that step's."""
        if path in visible:
            return None
        changed = (step for step, made in self.by_step.items() if made.get(path) == digest)
        return next((self.before[step][path] for step in changed if path in self.before.get(step, ())), None)

    def digest_of(self, path: str) -> str | None:
        """Return the sha256 of what a step made at a path, None where none did."""
        return next((made[path] for made in self.by_step.values() if path in made), None)


def _set(table: dict[str, dict[str, str]], step: str, made: dict[str, str]) -> None:
    """Keep what a step made, if that is something: most of many make nothing, and each look goes through all."""
    if made:
        table[step] = made
    else:
        table.pop(step, None)


def names_in(root: str, folder: str, *, hidden: Collection[str], visible: Iterable[str]) -> set[str]:
    """Return the names in a folder of the workspace that count: its own, and those of `visible` products.

    A folder counts only if it holds more than `hidden` ones. Empty where there is no such folder.
    """
    prefix = f"{folder}/" if folder else ""
    try:
        names = set(os.listdir(f"{root}/{folder}"))  # noqa: PTH208 - names alone
    except OSError:
        names = set()
    folders = set()
    for path in hidden:
        if path.startswith(prefix):
            name, _, deeper = path[len(prefix) :].partition("/")
            folders.add(name) if deeper else names.discard(name)
    for name in folders & names:
        if not any(path not in hidden for path in _files_below(root, f"{prefix}{name}")):
            names.discard(name)
    names.update(path[len(prefix) :].partition("/")[0] for path in visible if path.startswith(prefix))
    return names


def files_matching(
    files: Workspace, patterns: Sequence[str], *, hidden: Collection[str], visible: Iterable[str]
) -> set[str]:
    """Return the names of the files that globs match, as a step finds them: its own, and `visible` products."""
    found = files.readable(patterns).difference(hidden)
    found.update(name for name in visible if any(may_name(pattern, name) for pattern in patterns))
    return {name for name in found if not any(is_tool_file(part) for part in name.split("/"))}


def may_hold_modules(path: Path) -> bool:
    """Return whether a name beside modules may be one: such a file, or a folder with a module somewhere below.

    In a folder of many files that is assumed; an environment is none, as it is known by its distributions.
    """
    if not path.is_dir():
        return path.name.endswith(MODULE_SUFFIXES) or not path.is_file()
    if (path / "pyvenv.cfg").exists():
        return False
    real = path.resolve()
    for count, file in enumerate(_files_below(str(real.parent), real.name)):
        if count >= _LOOKED_AT_MAX or file.endswith(MODULE_SUFFIXES):
            return True
    return False


def _files_below(root: str, folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        if os.path.islink(f"{root}/{folder}"):  # noqa: PTH114 - one of many; a link may lead back
            yield folder
            continue
        try:
            names = os.listdir(f"{root}/{folder}")  # noqa: PTH208 - names alone
        except NotADirectoryError:
            yield folder
            continue
        except OSError:
            continue
        waiting += [f"{folder}/{name}" for name in names if not is_tool_file(name)]


def files_found(workspace: Workspace, pattern: str, *, hidden: Collection[str], visible: Collection[str]) -> list[str]:
    """Return the files that a pattern matches for a step: of the workspace, and of those that it sees of others."""
    found = [name for name in workspace.expand([pattern])[pattern] if name not in hidden]
    return sorted(select(pattern, [*visible, *(name for name in found if name not in visible)]))
