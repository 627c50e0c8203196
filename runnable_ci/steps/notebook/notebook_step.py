"""A notebook step as a process: which parameters it takes, and the program that executes it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from runnable_ci.errors import StepError
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter
from runnable_ci.steps.base import ProcessSpec, StepContext
from runnable_ci.steps.notebook.cells import Notebook, read_notebook
from runnable_ci.steps.reach import reach_digest

EXECUTE: Final = Path(__file__).parent / "execute.py"
WORKER: Final = Path(__file__).parents[1] / "worker"
EXECUTED_FILE: Final = "executed.ipynb"


def notebook_of(step: Step, workspace: Path) -> Notebook:
    """Return a step's notebook. Raises `StepError` where it is not there, or is none that can be executed."""
    notebook = read_notebook(workspace / step.command)
    if not step.kernel and not notebook.is_python:
        raise StepError(
            f"{PurePosixPath(step.command).name} is written in {notebook.language}, not in Python",
            hint='name the kernel that executes it, such as kernel = "ir"',
        )
    return notebook


def prepare(step: Step, context: StepContext) -> ProcessSpec:
    """Return the process that executes a notebook, with its request written to the scratch folder."""
    if step.container is None and not os.access(context.interpreter, os.X_OK):
        hint = "if a step that was reused makes it: `retry --from` that step makes it again"
        raise StepError(f"the interpreter {context.interpreter} is not there, or not executable", hint=hint)
    notebook = notebook_of(step, context.workspace)
    taken = [name for name in notebook.names() if name in context.parameters]
    # The kernel sets it: while it starts, and what executes it, nothing is looked for in the user's folders.
    env = {name: value for name, value in step.env.items() if name != "PYTHONPATH" or step.kernel}
    folder = (context.workspace / step.command).parent
    request = {
        "notebook": notebook.text,
        "name": step.command,
        "kernel": step.kernel,
        "worker": str(WORKER),
        "scratch": str(context.scratch),
        "executed": str(context.scratch / EXECUTED_FILE),
        "response": str(context.scratch / "response.json"),
        "workspace": str(context.workspace),
        "path": [str(it) for it in dict.fromkeys([context.workspace, folder])],
        "pythonpath": "" if step.kernel else step.env.get("PYTHONPATH", ""),
        "parameters": {name: context.source(context.parameters[name]) for name in taken},
        "defaulted": [name for name in notebook.parameters or () if name not in context.parameters],
        "returns": [[name, "json" if kind == "auto" else kind] for name, kind in step.returns.items()],
    }
    file = context.scratch / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    return ProcessSpec(
        argv=(context.interpreter, str(EXECUTE), str(file)),
        cwd=context.workspace / step.working_directory,
        env={**context.environ, **env, "RUNNABLE_STEP": step.name},
        given=tuple(context.parameters),
        notes=_not_passed(step, notebook, context.parameters),
    )


def _not_passed(step: Step, notebook: Notebook, parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    """Say which parameters a notebook sets itself, without a cell tagged `parameters` in which they are replaced."""
    if notebook.parameters is not None or not notebook.is_python:
        return ()
    settings = notebook.settings.difference(notebook.free, step.returns)
    own = [f"`{name}`" for name in parameters if name in settings]
    text = f"{step.command} sets {', '.join(own)} itself: tag that cell `parameters`, and the parameter replaces it"
    return (text,) if own else ()


def digest_of(step: Step, workspace: Path) -> str:
    """Return the digest of a notebook's code: other outputs, texts, metadata or comments change nothing.

    Raises `StepError` as `notebook_of` does.
    """
    notebook = notebook_of(step, workspace)
    return reach_digest("", {step.command: notebook.code().encode(errors="surrogatepass")})


def is_there(step: Step, workspace: Path) -> bool:
    """Return whether a step's notebook is in the workspace: an earlier step may make it."""
    return (workspace / step.command).exists()


def takes(step: Step, workspace: Path) -> Collection[str] | None:
    """Return the names of the parameters that a notebook takes; None where it is not there yet.

    Raises `StepError` for one that cannot be executed.
    """
    return notebook_of(step, workspace).names() if is_there(step, workspace) else None
