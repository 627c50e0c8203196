"""`runnable-ci check`: is the pipeline file right?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from runnable_ci.environment import check_interpreter
from runnable_ci.given import lacking, needs
from runnable_ci.project import load
from runnable_ci.text import amount


def check(given: Path | None, environ: Mapping[str, str]) -> None:
    """Find every mistake that can be found without running a step; print what the pipeline is otherwise."""
    project = load(given)
    interpreter = check_interpreter(project.pipeline, project.workspace, environ)
    steps = project.pipeline.steps.values()
    sys.stdout.write(f"{project.pipeline.file}: {project.pipeline.name}, {amount(len(steps), 'step')}\n")
    for step in steps:
        after = f" after {', '.join(step.needs)}" if step.needs else ""
        sys.stdout.write(f"  {step.name}: {step.kind}{after}\n")
    if any(step.kind == "python" for step in steps):
        sys.stdout.write(f"python steps run in {interpreter}\n")
    for name, absent in lacking(project.pipeline, project.workspace, project.pipeline.parameters).items():
        sys.stderr.write(f"note: step {name}: {needs(project.pipeline, name, absent)}: a run must be given it\n")
