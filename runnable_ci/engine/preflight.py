"""What steps need and what they are given, compared before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from runnable_ci.errors import PipelineError, StepError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.project import Project, load
from runnable_ci.steps import accepts, required_parameters
from runnable_ci.steps.python import find_source


def load_project(path: Path | None) -> Project:
    """Return the project of a pipeline file, with the functions that its steps name, as `pipeline.project.load` does.

    Raises `PipelineError` too where a module is there and can have no such function.
    """
    project = load(path)
    for step in project.pipeline.steps.values():
        if step.kind == "python":
            try:
                find_source(step, project.workspace)
            except StepError as e:
                where = f"{project.pipeline.file}: [steps.{step.name}] python"
                raise PipelineError(f"{where}: {e.message}", hint=e.hint) from e
    return project


def missing_parameters(pipeline: Pipeline, workspace: Path, given: Collection[str]) -> Mapping[str, list[str]]:
    """Return step → the parameters that it needs and that neither an earlier step nor `given` provides."""
    found: dict[str, list[str]] = {}
    for step in pipeline.steps.values():
        absent = [name for name in required_parameters(step, workspace) if name not in given]
        if absent:  # looked for only then: the steps above each step of a long chain add up
            returned = {name for above in pipeline.ancestors(step.name) for name in pipeline.steps[above].returns}
            absent = [name for name in absent if name not in returned]
        if absent:
            found[step.name] = absent
    return found


def require(pipeline: Pipeline, workspace: Path, given: Collection[str], running: Collection[str]) -> None:
    """Raise `PipelineError` for the first of the `running` steps that lacks a parameter."""
    for name, absent in missing_parameters(pipeline, workspace, given).items():
        if name in running:
            raise PipelineError(
                f"{pipeline.file}: [steps.{name}] {needs(pipeline, name, absent)}",
                hint=_how_to_give(pipeline, absent[0], given),
            )


def needs(pipeline: Pipeline, step: str, absent: Collection[str]) -> str:
    """Describe parameters that a step needs and nothing provides."""
    chosen = pipeline.steps[step]
    what = f"`{chosen.command}`" if chosen.kind == "python" else "`parameters`: it"
    return f"{what} needs {', '.join(f'`{name}`' for name in absent)}, which no parameter or earlier step provides"


def parameter_warnings(
    pipeline: Pipeline, workspace: Path, given: Collection[str], *, known: Collection[str]
) -> Mapping[str, str]:
    """Return warnings about parameters that were set, by name: unknown ones, and those that are overwritten.

    A shell step may read any of them, so none of this is an error. Where it is unknown what a step takes, a name
    that nothing resembles is let pass.
    """
    found: dict[str, str] = {}
    for name in given:
        answers = {accepts(step, workspace, name) for step in pipeline.steps.values()}
        suggestion = did_you_mean(name, known)
        if giver := next((step.name for step in pipeline.steps.values() if name in step.returns), None):
            found[name] = f"parameter {name} is overwritten by the return value of step `{giver}`"
        elif name not in known and True not in answers and (suggestion or None not in answers):
            found[name] = f"unknown parameter {name}: no step takes it{suggestion and f'; {suggestion}'}"
    return found


def _how_to_give(pipeline: Pipeline, name: str, given: Collection[str]) -> str:
    for step in pipeline.steps.values():
        if name in step.returns:
            return f"`{step.name}` returns it: a step that needs it lists `{step.name}` in `needs`"
    return did_you_mean(name, given, f"set it under [parameters], or with --param {name}=…")
