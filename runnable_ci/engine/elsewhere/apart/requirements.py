"""What steps need that run on machines which share no folder with this one; looked at before anything runs."""

from __future__ import annotations

from collections.abc import Collection

from runnable_ci.engine.elsewhere.apart.carrier import run_registry
from runnable_ci.engine.preflight import outlined_names
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.keys.executors import Executor
from runnable_ci.pipeline.model import Pipeline


def apart_executor(pipeline: Pipeline, running: Collection[str]) -> Executor | None:
    """Return an executor of steps that run, whose machines share no folder with this one; None where none has any."""
    outlined = pipeline.outlined().steps
    for step in (outlined[name] for name in outlined_names(pipeline, running)):
        found = pipeline.executors.get(step.executor)
        if found and found.project and step.runs_elsewhere:
            return found
    return None


def require_apart(session: RunSession, running: Collection[str]) -> None:
    """Raise `UsageError` where steps are to run on such a machine, and it would find no run or no code."""
    project = session.project
    found = apart_executor(project.pipeline, running)
    if found is None:
        return
    try:
        run_registry(project, session.options)
    except UsageError as e:
        e.message = f"executor `{found.name}` has `project`, so its steps go by a registry: {e.message}"
        raise
    if project.identity().base != "repository" or not session.code.state().commit:
        raise UsageError(
            f"executor `{found.name}` has `project`, and this one is in no git repository with a commit",
            hint=f"its code goes to {found.project} by git: commit it",
        )
