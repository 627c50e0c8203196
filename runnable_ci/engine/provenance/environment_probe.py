"""The environments of an invocation's steps, described while its first step runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.events import EnvironmentRecorded
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import key_of
from runnable_ci.util.threads import start

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


class EnvironmentProbe:
    """Describes environments in a thread, where there is one: the first step need not wait for it."""

    def __init__(self, interpreter: str, project: Project, environ: Mapping[str, str]) -> None:
        self._environments = StepEnvironments(interpreter, project.workspace, environ, with_machine=True)
        self._keys: dict[int, tuple[Environment, str]] = {}

        def look() -> None:
            for step in project.pipeline.outlined().steps.values():
                if step.container is None:
                    self._look(step, None)

        self._thread = start(look, name="environment")

    def record(self, recorder: Recorder, step: Step, containers: StepContainers | None) -> str:
        """Return the key of a step's environment, which the run log has from now on; empty where it was not seen."""
        environment = self.of(step, containers)
        if environment is None:
            return ""
        known = self._keys.get(id(environment))
        if known is None:
            known = self._keys[id(environment)] = environment, key_of(environment)
            if known[1] not in recorder.log.environments:
                recorder.record(EnvironmentRecorded(key=known[1], environment=environment))
        return known[1]

    def of(self, step: Step, containers: StepContainers | None) -> Environment | None:
        """Return the environment in which a step runs now, None where it cannot be seen; waits until it is known."""
        if self._thread is not None:
            self._thread.join()
        return self._look(step, containers)

    def imported_from(self, step: Step, around: str) -> str:
        """Return a folder that a command's python imports from beside what is installed, as `StepEnvironments` does."""
        if self._thread is not None:
            self._thread.join()
        return self._environments.imported_from(step, around)

    def _look(self, step: Step, containers: StepContainers | None) -> Environment | None:
        with suppress(OSError):  # what cannot be recorded stops no run
            return self._environments.of(step, containers)
        return None
