"""The environment of an invocation, described while its first step runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.pipeline.step import Step
from runnable_ci.runs.events import EnvironmentRecorded
from runnable_ci.runs.model import Environment
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import describe, key_of
from runnable_ci.util.threads import start
from runnable_ci.version import VERSION

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers
    from runnable_ci.steps.probe import Answer


class EnvironmentProbe:
    """Describes the environment in a thread, where there is one: the first step need not wait for it."""

    def __init__(self, interpreter: str, workspace: Path, environ: Mapping[str, str]) -> None:
        self._environment: Environment | None = None
        self._key = ""
        self._interpreter = Path(interpreter)
        self._is_awaited = bool(interpreter) and not self._interpreter.exists()
        """Whether a step has yet to make the interpreter."""

        def look() -> None:
            with suppress(OSError):  # what cannot be recorded stops no run
                self._environment = describe(interpreter, workspace, environ, tool_version=VERSION)

        self._look = look
        self._thread = start(look, name="environment")
        if self._thread is None:
            look()

    def record(self, recorder: Recorder, step: Step, containers: StepContainers | None) -> str:
        """Return the key of a step's environment, which the run log has from now on; empty where it was not seen."""
        if self._thread is not None:
            self._thread.join()
        if self._is_awaited and self._interpreter.exists():
            self._is_awaited, self._key = False, ""
            self._look()
        if self._environment is None:
            return ""
        if containers is not None and step.container is not None:
            return _recorded(recorder, _in_container(self._environment, containers.environment(step.container)))
        self._key = self._key or _recorded(recorder, self._environment)
        return self._key


def _in_container(environment: Environment, answer: Answer) -> Environment:
    """Return the environment of a container on a machine: the packages are those of its image."""
    return environment.model_copy(
        update={
            "interpreter": answer.executable,
            "interpreter_version": answer.version,
            "packages": dict(sorted(answer.packages.items())),
        }
    )


def _recorded(recorder: Recorder, environment: Environment) -> str:
    key = key_of(environment)
    if key not in recorder.log.environments:
        recorder.record(EnvironmentRecorded(key=key, environment=environment))
    return key
