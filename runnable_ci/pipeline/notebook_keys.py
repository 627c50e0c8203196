"""What is checked of a notebook step, and where its executed notebook is stored. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from runnable_ci.pipeline.schema import RELATIVE, Place, StepConfig
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import check_relative, is_excluded, shown

ENDING = ".ipynb"


def check_notebook(place: Place, table: str, step: StepConfig) -> None:
    """Raise `PipelineError` for what cannot be right in the table of a notebook step."""
    for key, path in (("notebook", step.notebook), ("executed", step.executed)):
        if path is None:
            continue
        check_relative(path, lambda m, key=key: place.error(table, f"{key}: {m}", RELATIVE, key=key))
        if (PurePosixPath(path).suffix != ENDING and "${{" not in path) or set("*?[") & set(path):
            hint = f'write the path of a notebook: {key} = "eval.ipynb"'
            raise place.error(table, f"{key}: {shown(path)} is not the path of a notebook", hint, key=key)
        if is_excluded(path):
            hint = "`.git` and `.runnable` are left out of the catalog: choose another folder"
            raise place.error(table, f"{key}: {shown(path)} is never stored", hint, key=key)
    if step.executed is not None and PurePosixPath(step.executed) == PurePosixPath(step.notebook or ""):
        hint = "the notebook itself is never written: choose another path for the executed one"
        raise place.error(table, f"executed: {shown(step.executed)} is the notebook itself", hint, key="executed")
    if step.kernel is not None and not step.kernel.strip():
        raise place.error(table, "`kernel` is empty", 'name an installed one, such as kernel = "ir"', key="kernel")


def executed_path(name: str) -> str:
    """Return where a step's executed notebook is stored, where the file does not say.

    It has the step's name, as several steps may run one notebook, and a folder that no glob of notebooks has in it.
    """
    return f"executed/{name}{ENDING}"


def executed_in_branch(step: Step, name: str) -> Step:
    """Return a step whose executed notebook has the name of its branch, where the file does not name one."""
    if not is_default(step):
        return step
    own = executed_path(name)
    return step._replace(executed=own, put=tuple(own if path == step.executed else path for path in step.put))


def is_default(step: Step) -> bool:
    """Return whether the pipeline file leaves open where the executed notebook of a step is stored."""
    return step.kind == "notebook" and step.executed == executed_path(step.name)
