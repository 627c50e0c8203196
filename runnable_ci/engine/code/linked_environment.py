"""The project's environment in a tree that was made again: a link to that of a clone, which git there ignores."""

from __future__ import annotations

import re
from pathlib import Path

from runnable_ci.pipeline.model import Pipeline
from runnable_ci.steps.interpreter import PROJECT_INTERPRETER
from runnable_ci.vcs.git_files import repository_root


def link_environment(pipeline: Pipeline, workspace: Path, tree: Path) -> None:
    """Let the tree use the environment of the workspace here, where the pipeline finds it by a path in its folder."""
    first = Path(named_interpreter(pipeline)).parts[0]
    if first in ("/", "..") or (tree / first).exists() or not (workspace / first).is_dir():
        return
    (tree / first).symlink_to((workspace / first).resolve(), target_is_directory=True)
    keep_out_of_git(tree / first)


def keep_out_of_git(place: Path) -> None:
    """Let git in a tree that was made again ignore an environment, which is no code.

    What ignores that of the workspace may not match here: `.venv/` matches no link, and a file in it is not there.
    """
    root = repository_root(place.parent)
    if root is not None:
        name = re.sub(r"([*?\[\\ ])", r"\\\1", place.relative_to(root).as_posix())
        excluded = root / ".git" / "info" / "exclude"
        excluded.parent.mkdir(exist_ok=True)
        with excluded.open("a") as file:
            file.write(f"\n/{name}\n")


def named_interpreter(pipeline: Pipeline) -> str:
    """Return the path of the interpreter that a pipeline names, from its folder."""
    return pipeline.python if pipeline.python and "/" in pipeline.python else PROJECT_INTERPRETER
