"""The environment of an invocation, described while its first step runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.runs.events import EnvironmentRecorded
from runnable_ci.runs.model import Environment
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import describe, key_of
from runnable_ci.util.threads import start
from runnable_ci.version import VERSION


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

    def record(self, recorder: Recorder) -> str:
        """Return the key of the environment, which the run log has from now on; empty where it could not be seen."""
        if self._thread is not None:
            self._thread.join()
        if self._is_awaited and self._interpreter.exists():
            self._is_awaited, self._key = False, ""
            self._look()
        if self._environment is None:
            return ""
        self._key = self._key or key_of(self._environment)
        if self._key not in recorder.log.environments:
            recorder.record(EnvironmentRecorded(key=self._key, environment=self._environment))
        return self._key
