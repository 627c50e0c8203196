"""`runnable-ci check`: is the pipeline file right?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.engine.preflight import load_project, missing_parameters, needs
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.util.console import console
from runnable_ci.util.text import pluralize


def check(file: Path | None, environ: Mapping[str, str]) -> None:
    """Find every mistake that can be found without running a step; print what the pipeline is otherwise."""
    project = load_project(file)
    interpreter = check_interpreter(project.pipeline, project.workspace, environ)
    steps = project.pipeline.steps.values()
    console.out(f"{project.pipeline.file}: {project.pipeline.name}, {pluralize(len(steps), 'step')}")
    for step in steps:
        after = f" after {', '.join(step.needs)}" if step.needs else ""
        console.out(f"  {step.name}: {step.kind}{after}")
    if any(step.kind == "python" for step in steps):
        console.out(f"python steps run in {interpreter}")
    for name, absent in missing_parameters(project.pipeline, project.workspace, project.pipeline.parameters).items():
        console.err(f"note: step {name}: {needs(project.pipeline, name, absent)}: specify it when you start a run")
