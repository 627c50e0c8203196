"""What the interpreter of notebook steps must have, asked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from runnable_ci.errors import StepError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.steps.earlier import chance_of, misspelt
from runnable_ci.steps.notebook.notebook_step import is_there, notebook_of
from runnable_ci.util.process import check_output

_ASK: Final = """
import sys, importlib.util, json
missing = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
kernels = {}
if "nbclient" not in missing and sys.argv[1:]:
    from jupyter_client.kernelspec import KernelSpecManager
    found = KernelSpecManager(ensure_native_kernel=False).get_all_specs()
    kernels = {name: it["spec"].get("language", "") for name, it in found.items()}
print(json.dumps([missing, kernels]))
"""


def check_notebooks(
    pipeline: Pipeline, workspace: Path, environ: Mapping[str, str], interpreter: str, say: Callable[[str], None]
) -> None:
    """Raise `PipelineError` for a notebook step whose interpreter lacks what executes it.

    What an earlier step may install is only warned of, by `say`.
    """
    for step in (step for step in pipeline.steps.values() if step.kind == "notebook"):
        if (problem := _absent(step, workspace)) and chance_of(pipeline, workspace, step, [step.command]) == "unknown":
            say(f"warning: {pipeline.file}: step {step.shown}: {problem}; no step is known to make it")
    groups: dict[tuple[tuple[str, str], ...], list[Step]] = {}
    for step in (step for step in pipeline.steps.values() if step.kind == "notebook" and not step.container):
        own = {name: value for name, value in step.env.items() if name != "PYTHONPATH"}  # the user's code alone has it
        groups.setdefault(tuple(sorted(own.items())), []).append(step)
    for env, steps in groups.items():
        kernels = [step.kernel for step in steps if step.kernel]
        answer = check_output(
            [interpreter, "-c", _ASK, *kernels], cwd=workspace, env={**environ, **dict(env)}, timeout_s=30
        )
        try:
            missing, languages = json.loads((answer or b"").splitlines()[-1])
        except (ValueError, IndexError, TypeError):
            continue  # it cannot be asked: the step itself tells why
        for step in steps:
            needed = [name for name in missing if name == "nbclient" or not step.kernel]
            if needed:
                _refuse_packages(pipeline, workspace, step, needed, interpreter, say)
            elif step.kernel:
                _check_kernel(pipeline, workspace, step, languages)


def require_notebook(pipeline: Pipeline, workspace: Path, step: Step) -> None:
    """Raise `PipelineError` for a notebook that is not there, and that no earlier step can make."""
    if not (problem := _absent(step, workspace)):
        return
    there = [PurePosixPath(step.command).with_name(it.name) for it in (workspace / step.command).parent.glob("*.ipynb")]
    known = list(map(str, there))
    if chance_of(pipeline, workspace, step, [step.command]) == "none" or misspelt(step.command, known):
        raise pipeline.error(step, f"notebook: {problem}", did_you_mean(step.command, known), key="notebook")


def _absent(step: Step, workspace: Path) -> str:
    is_known = "${{" not in step.command
    return f"there is no {step.command}" if is_known and not is_there(step, workspace) else ""


def _refuse_packages(
    pipeline: Pipeline,
    workspace: Path,
    step: Step,
    missing: list[str],
    interpreter: str,
    say: Callable[[str], None],
) -> None:
    problem = f"{interpreter} has no {' and no '.join(missing)}, by which notebooks are executed"
    install = f"{interpreter} -m pip install nbclient ipykernel"
    match chance_of(pipeline, workspace, step, [*missing, "requirements", "pip"]):
        case "declared" | "named":
            return
        case "unknown":
            say(f"warning: {pipeline.file}: step {step.shown}: {problem}; no step is known to install it: {install}")
        case _:
            raise pipeline.error(step, f"notebook: {problem}", install, key="notebook")


def _check_kernel(pipeline: Pipeline, workspace: Path, step: Step, languages: Mapping[str, str]) -> None:
    """Raise for a kernel that is not installed, or that can neither be given parameters nor return anything."""
    if step.kernel not in languages:
        hint = did_you_mean(step.kernel, languages, f"installed are: {', '.join(sorted(languages)) or 'none'}")
        raise pipeline.error(step, f"there is no kernel `{step.kernel}`", hint, key="kernel")
    language = languages[step.kernel]
    if language.lower() == "python":
        return
    if step.returns:
        hint = "let the notebook write a file, and put it with catalog.put"
        raise pipeline.error(step, f"a notebook of {language} cannot return variables", hint, key="returns")
    try:
        has_parameters = notebook_of(step, workspace).parameters is not None
    except StepError:  # one that an earlier step is to write
        return
    if has_parameters:
        problem = f"notebook: parameters cannot be set in a notebook of {language}"
        hint = "remove the tag `parameters`, and read a file or the variables of `env` there"
        raise pipeline.error(step, problem, hint, key="notebook")
