"""What every kind of step is turned into, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runnable_ci.runs.model import ExceptionInfo, Parameter, StoredObject

if TYPE_CHECKING:
    from runnable_ci.observe.assemble import WorkerReport
    from runnable_ci.pipeline.step import Step


class StepContext(NamedTuple):
    """What a step runs in."""

    workspace: Path
    scratch: Path
    """A folder of the attempt's own; gone afterwards."""
    environ: Mapping[str, str]
    """The full environment that the tool was started with."""
    interpreter: str
    """What runs python steps."""
    parameters: Mapping[str, Parameter]
    """All that is in scope."""
    blob: Callable[[Parameter | StoredObject], Path]
    """The verified pickle of an object parameter, as a file."""

    def source(self, parameter: Parameter) -> Mapping[str, object]:
        """Return a parameter as it is handed to the step's own interpreter; objects as the files of their pickles."""
        if parameter.kind != "object":
            return {"kind": parameter.kind, "value": parameter.value}
        if not parameter.items:
            return {"kind": "object", "path": str(self.blob(parameter))}
        paths = [str(self.blob(one)) if one.data_hash else "" for one in parameter.items]
        return {"kind": "object", "paths": paths}

    containers: Containing | None = None
    """What runs steps in containers, where there are such steps."""


class Containing(Protocol):
    """Runs steps in containers."""

    def context(self, step: Step, context: StepContext) -> StepContext:
        """Return what a step in a container runs in."""

    def wrap(self, step: Step, spec: ProcessSpec, context: StepContext) -> ProcessSpec:
        """Return the process that runs a step's process in its container."""


class ProcessSpec(NamedTuple):
    """A process to start."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    given: tuple[str, ...] = ()
    """The parameters that it gets."""
    notes: tuple[str, ...] = ()
    """What a person should know of that."""
    container: tuple[str, str] | None = None
    """The engine and the name of the container that the process is only a client of."""
    not_seen: Callable[[], str] = str
    """Says, once it has ended, why its files were not seen; empty where they may be."""


class StepResult(NamedTuple):
    """What a finished step gave back."""

    consumed: tuple[str, ...] = ()
    """The parameters that it was seen to use."""
    defaulted: tuple[str, ...] = ()
    values: Mapping[str, Any] = MappingProxyType({})
    """json and metric returns."""
    objects: Mapping[str, tuple[Path, str]] = MappingProxyType({})
    """Object returns: the pickle's file and the type's name."""
    modules: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """Workspace modules that were loaded → modification time (ns) and size (bytes) at that moment."""
    exception: ExceptionInfo | None = None
    undeclared: tuple[str, ...] = ()
    """Names that it gave a value and that its `returns` does not have."""
    problem: str = ""
    """Why the step failed although its process did not, or what failed in it; empty for a success."""
    report: WorkerReport | None = None
    """What the step's own process tells of what it read."""
    exit_code: int | None = None
    """What the step itself ended with, where that is not its process's exit code."""
