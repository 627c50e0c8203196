"""Commands of this program as messages print them: whole, so that they can be typed where they are printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from runnable_ci.errors import PipelineError
from runnable_ci.project import Project, find_file, find_store
from runnable_ci.store.layout import Layout


def command(*words: str) -> str:
    """A command of this program, quoted for a shell."""
    return shlex.join(["runnable-ci", *words])


def retry(run_id: str, project: Project, *more: str) -> str:
    """The command that resumes a run of this project, typed in the current folder."""
    return command("retry", run_id, *_pipeline(project), *more)


def of_store(layout: Layout, *words: str) -> str:
    """A command on a store, typed in the current folder."""
    is_default = find_store().folder.resolve() == layout.folder.resolve()
    return command(*words, *([] if is_default else ["--store", path(layout.folder.parent)]))


def path(file: Path) -> str:
    """A path as it is typed in the current folder: the shorter of the relative and the absolute one."""
    relative = os.path.relpath(file)
    shown = min(relative, str(file), key=len)
    return f"./{shown}" if shown.startswith("-") else shown


def is_default(project: Project) -> bool:
    """Whether the project's pipeline file is the one that commands take in the current folder."""
    try:
        return find_file(None) == project.file
    except PipelineError:
        return False


def _pipeline(project: Project) -> list[str]:
    """The option that leads to the project's pipeline file and store, where nothing else does."""
    if is_default(project):
        return []
    is_beside = project.layout.folder.parent == project.workspace
    return ["-f", path(project.file)] if is_beside else []
