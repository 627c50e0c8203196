"""What steps need that run on machines which share no folder with this one; looked at before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from runnable_ci.engine.elsewhere.apart.carrier import run_registry
from runnable_ci.engine.options import Options
from runnable_ci.engine.preflight import outlined_names
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import as_glob, may_name
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.files.workspace import Workspace
from runnable_ci.vcs.git import Git

_LOOKED_AT_MAX: Final = 1_000
"""Files of one pattern: a command line is not endless."""


def apart_executor(pipeline: Pipeline, running: Collection[str]) -> Executor | None:
    """Return an executor of steps that run, whose machines share no folder with this one; None where none has any."""
    outlined = pipeline.outlined().steps
    for step in (outlined[name] for name in outlined_names(pipeline, running)):
        found = pipeline.executors.get(step.executor)
        if found and found.project and step.runs_elsewhere:
            return found
    return None


def require_registry(project: Project, running: Collection[str], options: Options) -> Executor | None:
    """Return an executor as `apart_executor` does. Raises `UsageError` where no registry is set, by which it works."""
    found = apart_executor(project.pipeline, running)
    if found is not None:
        try:
            run_registry(project, options)
        except UsageError as e:
            e.message = f"executor `{found.name}` has `project`, so its steps go by a registry: {e.message}"
            raise
    return found


def require_apart(session: RunSession, running: Collection[str]) -> None:
    """Raise `UsageError` where steps are to run on such a machine, and it would find no run or no code."""
    project = session.project
    found = require_registry(project, running, session.options)
    if found is None:
        return
    if project.identity().base != "repository" or not session.code.state().commit:
        raise UsageError(
            f"executor `{found.name}` has `project`, and this one is in no git repository with a commit",
            hint=f"its code goes to {found.project} by git: commit it",
        )
    _require_files(session, running)


def _require_files(session: RunSession, running: Collection[str]) -> None:
    """Raise `UsageError` for a file here that a step gets there, and that neither git nor an earlier step brings."""
    workspace, pipeline = session.project.workspace, session.project.pipeline
    files, git, outlined = Workspace(workspace), Git(str(workspace), session.options.environ), pipeline.outlined()
    for step in (outlined.steps[name] for name in outlined_names(pipeline, running)):
        executor = pipeline.executors.get(step.executor)
        if executor is None or not executor.project or not step.runs_elsewhere:
            continue
        made = [*step.put, *(put for name in outlined.ancestors(step.name) for put in outlined.steps[name].put)]
        for pattern in (pattern for pattern in step.get or () if "${{" not in pattern):
            here: Collection[str] = ()
            with suppress(RunnableError):  # the step itself says what is wrong with it
                here = files.expand([pattern])[pattern]
            own = [name for name in here if not any(may_name(as_glob(put), name) for put in made)][:_LOOKED_AT_MAX]
            if own and (lost := git("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", *own)):
                name = os.fsdecode(lost).partition("\0")[0]
                raise UsageError(
                    f"step `{step.shown}` gets `{name}`, which git ignores: executor `{executor.name}` has it nowhere",
                    hint='let a step before it that runs here (executor = "local") `put` it, or commit it',
                )
