"""How each kind of step becomes a process, and what comes back from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import assert_never

from runnable_ci.pipeline.model import parameters_looked_up, parameters_required
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter
from runnable_ci.steps import python, shell
from runnable_ci.steps.base import ProcessSpec, StepContext, StepResult


def prepare(step: Step, context: StepContext) -> ProcessSpec:
    """Return the process that runs a step, in its container where it has one."""
    if step.container is not None:
        containers = context.containers
        assert containers is not None  # noqa: S101 - for the type checker
        inner = containers.context(step, context)
        return containers.wrap(step, _prepare(step, inner), inner)
    return _prepare(step, context)


def _prepare(step: Step, context: StepContext) -> ProcessSpec:
    match step.kind:
        case "run":
            return shell.prepare(step, context)
        case "python":
            return python.prepare(step, context)
        case "notebook":
            from runnable_ci.steps.notebook import notebook_step  # few pipelines have one

            return notebook_step.prepare(step, context)
        case "branches":
            raise AssertionError(step.name)  # its branches are processes, not itself
        case kind:
            assert_never(kind)


def missing_secret(step: Step, workspace: Path, parameters: Mapping[str, Parameter]) -> str:
    """Return a parameter that the step may take, and whose value was a secret that the run log does not have.

    Else empty.
    """
    lost = {name: parameter.value for name, parameter in parameters.items() if parameter.redacted}
    if not lost:
        return ""
    if step.kind == "branches":
        return ""
    taken = shell.takes(step, workspace, lost) if step.kind == "run" else takes(step, workspace)
    return next((name for name in lost if taken is None or name in taken), "")


def takes(step: Step, workspace: Path) -> Collection[str] | None:
    """Return the parameters that a function or a notebook takes; None where its text does not tell."""
    if step.kind == "notebook":
        from runnable_ci.steps.notebook import notebook_step  # few pipelines have one

        return notebook_step.takes(step, workspace)
    return python.takes(step, workspace)


def code_hash(step: Step, workspace: Path) -> str:
    """Return the digest of the function or notebook that a step names; empty where that is not known."""
    if step.kind == "notebook":
        from runnable_ci.steps.notebook import notebook_step  # few pipelines have one

        return notebook_step.digest_of(step, workspace)
    source = python.find_source(step, workspace) if step.kind == "python" else None
    return source.hash() if source else ""


def objects_taken(
    step: Step, workspace: Path, parameters: Mapping[str, Parameter], *, coming: Collection[str] = ()
) -> Collection[str]:
    """Return the object parameters that a step may take; `coming` are those that steps before it will give."""
    if step.kind == "python":
        return python.objects_taken(step, workspace, parameters, coming=coming)
    objects = [name for name, parameter in parameters.items() if parameter.kind == "object"]
    taken = takes(step, workspace) if step.kind == "notebook" else ()
    return [name for name in objects if taken is None or name in taken]


def required_parameters(step: Step, workspace: Path) -> Collection[str]:
    """Return the parameters without which a step cannot run, as far as is known."""
    own = _required_by_name(step, workspace)
    return [*(name for name in own if name not in step.arguments), *sorted(parameters_required(step))]


def _required_by_name(step: Step, workspace: Path) -> Collection[str]:
    if step.kind == "branches":
        return ()
    if step.kind == "run":
        return step.parameters or ()
    if step.kind == "notebook":  # without one it has its own value, or an error of its own
        return ()
    source = python.find_source(step, workspace)
    return () if source is None else source.required


def accepts(step: Step, workspace: Path, name: str) -> bool | None:
    """Return whether a step is known to take the parameter of that name; None where that is unknown."""
    if name in parameters_looked_up(step):
        return True
    if name in step.arguments:
        return False
    if step.kind == "branches":
        return False
    if step.kind == "run":
        return name in shell.takes(step, workspace, {name: ""})
    if step.kind == "notebook":
        taken = takes(step, workspace)
        return None if taken is None else name in taken
    source = python.find_source(step, workspace)
    if source is None or source.arguments is None:
        return None
    return name in source.arguments or (None if source.takes_more else False)


def files_named(step: Step, workspace: Path) -> Collection[str]:
    """Return the files that a step names, by their paths from the workspace: in its command, or its function's
    module.
    """
    if step.kind == "branches":
        return ()
    if step.kind == "run":
        return shell.files_named(step)
    if step.kind == "notebook":
        return (step.command,)
    source = python.find_source(step, workspace)
    return () if source is None else [source.file.relative_to(workspace).as_posix()]


def collect(step: Step, context: StepContext) -> StepResult:
    """Return what a step whose process has ended gave back."""
    match step.kind:
        case "run":
            return shell.collect(step, context)
        case "python" | "notebook":
            from runnable_ci.steps import python_result  # its models are needed by no other step

            result = python_result.collect(step, context)
            if step.container is not None and result.report is not None:  # the rest is the image's, which is recorded
                own = result.report._replace(libraries={}, outside={}, read_outside=())
                result = result._replace(report=own)
            return result
        case "branches":
            raise AssertionError(step.name)  # its branches are processes, not itself
        case kind:
            assert_never(kind)
