"""Commands of this program as messages print them: whole, so that they can be typed where they are printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from runnable_ci.errors import PipelineError
from runnable_ci.project import Project, find_file, store_folder
from runnable_ci.store.layout import Layout


def command(*words: str) -> str:
    """A command of this program, quoted for a shell."""
    return shlex.join(["runnable-ci", *words])


def retry(run_id: str, project: Project, *more: str) -> str:
    """The command that resumes a run of this project, typed in the current folder."""
    is_beside = project.layout.folder.parent == project.workspace
    return command("retry", run_id, *(file_option(project.file) if is_beside else ()), *more)


def of_store(layout: Layout, *words: str) -> str:
    """A command on a store, typed in the current folder."""
    is_default = store_folder() == layout.folder.parent.resolve()
    return command(*words, *([] if is_default else ["--store", path(layout.folder.parent)]))


def file_option(file: Path, folder: Path | None = None) -> list[str]:
    """`-f FILE`, typed in a folder (the current one), where the pipeline file is not the one that is taken there."""
    return [] if is_default(file, folder) else ["-f", path(file, folder)]


def is_default(file: Path, folder: Path | None = None) -> bool:
    """Whether a pipeline file is the one that commands take in a folder, by default the current one."""
    try:
        return find_file(folder) == file
    except PipelineError:
        return False


def path(file: Path, folder: Path | None = None) -> str:
    """A path as it is typed in a folder, by default the current one: the shorter of the relative and the absolute."""
    relative = os.path.relpath(file, folder)
    shown = min(relative, str(file), key=len)
    return f"./{shown}" if shown.startswith("-") else shown
