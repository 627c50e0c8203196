"""The environment of each step: that of the interpreter which it finds, asked again where its packages have changed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.observe.outside import expanded
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.steps.interpreter import describe_system
from runnable_ci.steps.probe import Answer, LastAnswers
from runnable_ci.version import VERSION

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


_INTERPRETER: Final = re.compile(
    r"(?<![^\s'\"();|&<>=`])([^\s'\"();|&<>=`]*/(?:python[0-9.]*|activate)|python3\.[0-9]+)(?![^\s'\"();|&<>`])"
)
_OWN_FOLDER: Final = Path(__file__).parents[3]
"""This program's, which may be where it is developed."""


class StepEnvironments:
    """Describes in what steps run. Interpreters are asked when they are needed, each once while nothing changes."""

    def __init__(
        self, interpreter: str, workspace: Path, environ: Mapping[str, str], *, with_machine: bool = False
    ) -> None:
        self._interpreter, self._workspace, self._environ = interpreter, workspace, environ
        self._answers = LastAnswers(workspace)
        self._with_machine = with_machine
        self._joined: dict[tuple[int, ...], tuple[Sequence[Answer], Answer]] = {}
        self._system: Environment | None = None
        self._described: dict[tuple[int, bool], tuple[Answer, Environment]] = {}
        """By what an interpreter answered, and whether in a container."""

    def of(self, step: Step, containers: StepContainers | None = None) -> Environment:
        """Return the environment in which a step runs now, the same object while nothing changes."""
        if step.container is not None:
            answer = containers.environment(step.container) if containers is not None else Answer()
            return self._with(answer, in_container=True)
        if step.kind != "run":
            return self._with(self._answers.of(self._interpreter, self._environ))
        environ = {**self._environ, **step.env} if step.env else self._environ
        found = pythons_of(step.command, environ, self._workspace / step.working_directory)
        return self._with(self._together([self._answers.of(python, environ) for python in found]))

    def imported_from(self, step: Step, around: str) -> str:
        """Return a folder that a command's python imports from beside what is installed; empty where there is none.

        Not one in the folder `around`, where changes are seen, nor that of this program.
        """
        if step.kind != "run" or step.container is not None:
            return ""
        environ = {**self._environ, **step.env} if step.env else self._environ
        folder = self._workspace / step.working_directory
        answers = (self._answers.of(python, environ) for python in pythons_of(step.command, environ, folder))
        linked = (os.path.realpath(folder / place) for answer in answers for place in answer.linked())
        inside = tuple(f"{os.path.realpath(place)}/" for place in (around, _OWN_FOLDER))
        return next((it for it in linked if not f"{it}/".startswith(inside) and os.path.isdir(it)), "")  # noqa: PTH112

    def _together(self, answers: Sequence[Answer]) -> Answer:
        """Return what several interpreters say as one answer, the same object while each says the same."""
        if len(answers) == 1:
            return answers[0]
        key = tuple(map(id, answers))
        if key not in self._joined:
            packages: dict[str, str] = {}
            for name, version in (item for answer in answers for item in answer.packages.items()):
                known = packages.get(name, version)
                packages[name] = version if known == version else f"{known}, {version}"
            versions, programs = ([getattr(it, key) for it in answers] for key in ("version", "executable"))
            origins = {name: origin for answer in reversed(answers) for name, origin in answer.origins.items()}
            joined = Answer(
                version=", ".join(versions), executable=", ".join(programs), packages=packages, origins=origins
            )
            self._joined[key] = answers, joined
        return self._joined[key][1]

    def to_compare(self, step: Step, then: Environment) -> Environment:
        """Return the environment in which a step runs now, for a comparison with one that was recorded.

        Earlier versions recorded the pipeline's interpreter also for commands.
        """
        pipelines = self._with(self._answers.of(self._interpreter, self._environ))
        is_pipelines = step.kind != "run" or pipelines.interpreter == then.interpreter
        return pipelines if is_pipelines else self.of(step)

    def _with(self, answer: Answer, *, in_container: bool = False) -> Environment:
        known = self._described.get((id(answer), in_container))
        if known is not None:
            return known[1]
        if self._system is None:
            self._system = describe_system(self._workspace, self._environ, tool_version=VERSION)
            if self._with_machine:
                from runnable_ci.steps.machine import describe_machine  # to compare environments nobody needs it

                self._system.machine = describe_machine(self._workspace, self._environ)
        update = {
            "interpreter": answer.executable,
            "interpreter_version": answer.version,
            "packages": dict(sorted(answer.packages.items())),
            "origins": dict(sorted(answer.origins.items())),
        }
        # A container has those of its image, which is recorded beside.
        update |= {"libc": "", "distribution": ""} if in_container else {}
        environment = self._system.model_copy(update=update)
        self._described[id(answer), in_container] = answer, environment
        return environment


def step_named(name: str, steps: Mapping[str, Step]) -> Step:
    """Return the step of a name in the run log, of a branch as the file defines it: `STEP.BRANCH.STEP`."""
    top, *rest = name.split(".")
    step = steps[top]
    for own in rest[1::2]:
        step = step.branching.body.get(own, step) if step.branching else step
    return step


def pythons_of(command: str, environ: Mapping[str, str], folder: Path) -> list[str]:
    """Return the interpreters that a command names, which runs in a folder: by path, or that of an `activate` script.

    Else that on its PATH; it is an empty text where there is none.
    """
    named: dict[str, None] = {}
    if "/python" in command or "/activate" in command or "python3." in command:
        for word in _INTERPRETER.findall(command):
            path = expanded(word, environ)
            if path.endswith("/activate"):
                path = f"{path.rpartition('/')[0]}/python"
            file = os.path.normpath(folder / path) if "/" in path else _on_path(path, environ, folder)
            if file and os.access(file, os.X_OK) and not os.path.isdir(file):  # noqa: PTH112 - as below
                named[file] = None
    return list(named) or [python_on_path(environ, folder)]


def python_on_path(environ: Mapping[str, str], folder: Path) -> str:
    """Return the `python`, else the `python3`, that a command finds which runs in a folder; empty where there is none.

    It need not be the pipeline's, which may be that of the project's environment.
    """
    return _on_path("python", environ, folder) or _on_path("python3", environ, folder)


def _on_path(program: str, environ: Mapping[str, str], folder: Path) -> str:
    """Return as `shutil.which` does, which takes ten times as long, and knows no other folder than ours."""
    for place in environ.get("PATH", os.defpath).split(os.pathsep):
        file = f"{place}/{program}" if place.startswith("/") else f"{folder}/{place}/{program}"
        if os.access(file, os.X_OK) and not os.path.isdir(file):  # noqa: PTH112 - asked for each step
            return os.path.normpath(file)
    return ""
