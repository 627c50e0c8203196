"""Commands of this program as messages print them: whole, so that they can be typed where they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.project import find_file, store_folder
from runnable_ci.store.local import Layout
from runnable_ci.util.shell_command import command, path

if TYPE_CHECKING:
    from runnable_ci.store.registry import Registry


def retry(run_id: str, file: Path, layout: Layout, *more: str) -> str:
    """Return the command that resumes a run with its pipeline file, typed in the current folder."""
    is_beside = layout.folder.parent.resolve() == file.parent
    return command("retry", run_id, *(file_option(file) if is_beside else ()), *more)


def with_options(typed: Sequence[str], *options: str) -> str:
    """Return a command as it was typed, with more options."""
    end = typed.index("--") if "--" in typed else len(typed)
    return command(*typed[:end], *options, *typed[end:])


def of_store(layout: Layout, *words: str) -> str:
    """Return a command on a store, typed in the current folder."""
    is_default = store_folder() == layout.folder.parent.resolve()
    return command(*words, *([] if is_default else ["--store", path(layout.folder.parent)]))


def file_option(file: Path, folder: Path | None = None) -> list[str]:
    """Return `-f FILE` for a folder (the current one), if the pipeline file is not the default one there."""
    return [] if is_default(file, folder) else ["-f", path(file, folder)]


def is_default(file: Path, folder: Path | None = None) -> bool:
    """Return whether a pipeline file is the one that commands take in a folder, by default the current one."""
    try:
        return find_file(folder) == file
    except PipelineError:
        return False


def of_registry(registry: Registry, *words: str) -> str:
    """Return a command that names a registry, or what is in it, and connects to it as it is now."""
    return command(*words, *http_option(registry.plain_http))


def env_file_options(files: Sequence[Path]) -> list[str]:
    """Return the options that give a command the same files of secrets: no run has these."""
    return [word for file in files for word in ("--env-file", path(file.absolute()))]


def http_option(plain_http: bool) -> list[str]:
    """Return the option that allows plain HTTP for a registry on another machine."""
    return ["--plain-http"] if plain_http else []
