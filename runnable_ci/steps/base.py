"""What every kind of step is turned into, and what comes back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from runnable_ci.runs.model import ExceptionInfo, Parameter

if TYPE_CHECKING:
    from runnable_ci.observe.assemble import WorkerReport


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
    blob: Callable[[Parameter], Path]
    """The verified pickle of an object parameter, as a file."""


class ProcessSpec(NamedTuple):
    """A process to start."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    given: tuple[str, ...] = ()
    """The parameters that it gets."""
    notes: tuple[str, ...] = ()
    """What a person should know of that."""


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
