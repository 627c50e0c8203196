"""In which packages the runs are made: those that are here, or those that a run recorded, where these are available."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.analysis.reproduction.again import PreparedTree
from runnable_ci.analysis.reproduction.environments import activated, has_own_package, make_environment
from runnable_ci.engine.provenance.environment_changes import normalized
from runnable_ci.engine.provenance.environment_proof import first_environment_difference
from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.errors import RunnableError, StepError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.steps.interpreter import PROJECT_INTERPRETER, find_interpreter

HERE: Final = ""
"""The packages that are here, in place of a run's."""


@dataclass(slots=True)
class Packages:
    """Gives trees the packages of a run. Those of each run are made once, where the code is no part of them."""

    folder: Path
    """Where they are made."""
    environ: Mapping[str, str]
    lacking: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Run → those of its packages that are not available, with why."""
    _made: dict[str, Path] = field(default_factory=dict)

    def given(self, tree: PreparedTree, run_id: str, recorded: Environment) -> PreparedTree:
        """Return a tree whose steps run in the packages of a run. Raises `StepError` where these cannot be made."""
        pipeline, workspace = tree.project.pipeline, tree.project.workspace
        place = environment_folder(pipeline)
        link = workspace / place
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise StepError(f"{place} is in the recorded code, and would be in the way of other packages")
        if has_own_package(workspace):  # it is installed from the tree
            self.lacking[run_id] = make_environment(recorded, pipeline, workspace, self.environ)
        else:
            if run_id not in self._made:
                folder = self.folder / f"packages-{len(self._made)}"
                folder.mkdir()
                self.lacking[run_id] = make_environment(recorded, pipeline, folder, self.environ)
                self._made[run_id] = folder / place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self._made[run_id], target_is_directory=True)
        return replace(tree, options=replace(tree.options, environ=activated(pipeline, workspace, self.environ)))


def environment_folder(pipeline: Pipeline) -> Path:
    """Return the folder of the virtual environment in which the pipeline's steps run, in its workspace.

    Raises `StepError` where the pipeline names a place outside.
    """
    named = Path(pipeline.python if pipeline.python and "/" in pipeline.python else PROJECT_INTERPRETER)
    if named.is_absolute() or ".." in named.parts or len(named.parts) < 3:
        raise StepError(f"the pipeline names its own python, {named}: no other can be put in its place")
    return named.parent.parent


def difference_here(read: RunRead, tree: PreparedTree, steps: Collection[str]) -> str:
    """Return in what the packages here, in a run's tree, differ from those of its steps; empty for nothing."""
    project, environ = tree.project, tree.options.environ
    known = project.pipeline.outlined().steps
    try:
        interpreter = find_interpreter(project.pipeline, project.workspace, environ)
        environments = StepEnvironments(interpreter, project.workspace, environ)
        for name in steps:
            attempts = read.log.steps[name].attempts if name in read.log.steps else []
            if not attempts or name not in known or known[name].container is not None:
                continue
            then = read.log.environments.get(attempts[-1].environment)
            if then is None:
                return f"what `{name}` ran in was not recorded"
            reads = read.reads.get(name)
            imported = reads.distributions if reads is not None and reads.imports_seen else None
            now, is_command = environments.of(known[name]), known[name].kind == "run"
            if difference := first_environment_difference(then, now, imported=imported, is_command=is_command):
                return difference
    except (RunnableError, OSError) as e:
        return str(e)
    return ""


def may_use(read: RunRead, package: str) -> bool:
    """Return whether a step of a run may have used a package, by its normalized name: imports that were not seen may
    be of any.
    """
    for name, step in read.log.steps.items():
        reads = read.reads.get(name)
        if step.attempts and "container" not in step.attempts[-1].definition:
            imported = map(normalized, reads.distributions) if reads is not None and reads.imports_seen else None
            if imported is None or package in imported:
                return True
    return False


def packages_digest(tree: PreparedTree) -> str:
    """Return what tells the packages here, in which a tree's steps run, from others; empty where they are not seen."""
    project, environ = tree.project, tree.options.environ
    try:
        interpreter = find_interpreter(project.pipeline, project.workspace, environ)
        environments = StepEnvironments(interpreter, project.workspace, environ)
        steps = [step for step in project.pipeline.outlined().steps.values() if step.container is None]
        found = [environments.of(step) for step in steps]
    except (RunnableError, OSError):
        return ""
    packages = sorted({(one.interpreter_version, *sorted(one.packages.items())) for one in found}, key=str)
    return hashlib.sha256(json.dumps(packages).encode()).hexdigest()[:32]
