"""What a python or notebook step leaves: read by closed models, since the user's code may have written it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runnable_ci.errors import StepError
from runnable_ci.observe.assemble import LoadedLibrary, WorkerReport
from runnable_ci.observe.outside import is_environment
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import not_json
from runnable_ci.runs.model import ExceptionInfo
from runnable_ci.steps.base import StepContext, StepResult
from runnable_ci.util.bounded_json import require_few_elements

_MAX_BYTES: Final = 256 * 1024 * 1024
_MAX_ELEMENTS: Final = 4_000_000


class _Closed(BaseModel):
    """A part of the worker's answer; what it does not name comes from something else, and gets into no log."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class _Value(_Closed):
    kind: Literal["json", "metric"]
    value: Any


class _Object(_Closed):
    kind: Literal["object"]
    file: str
    type: str
    pickler: str = ""


class _Failure(_Closed):
    type: str
    message: str
    hint: str = ""
    """The traceback has it too."""
    traceback: str
    file: str | None = None
    line: int | None = None
    cell: int = 0
    cell_source: str = ""
    cell_line: int = 0
    """The run log has it as a line of the notebook's file."""

    def recorded(self) -> ExceptionInfo:
        """Return the exception as the run log stores it."""
        return ExceptionInfo(
            type=self.type,
            message=self.message,
            traceback=self.traceback,
            file=self.file or "",
            line=self.line or 0,
            cell=self.cell,
            cell_source=self.cell_source,
        )


class _Numeric(_Closed):
    name: str
    kind: str
    version: str
    threads: int


class _Report(_Closed):
    """What the worker tells of what its process did."""

    read: list[str]
    written: list[str]
    listed: dict[str, bool]
    connected: list[str]
    children: bool
    native: bool
    libraries: dict[str, str]
    outside: dict[str, str]
    read_outside: list[str]
    numeric: list[_Numeric] = Field(default_factory=list)

    def recorded(self, modules: Iterable[str]) -> WorkerReport:
        """Return the report with the modules of the workspace that were loaded."""
        return WorkerReport(
            read=tuple(self.read),
            written=frozenset(self.written),
            listed=self.listed,
            modules=tuple(modules),
            connected=tuple(self.connected),
            libraries=self.libraries,
            outside=self.outside,
            read_outside=tuple(path for path in self.read_outside if not is_environment(path)),
            numeric=tuple(LoadedLibrary(**one.model_dump()) for one in self.numeric),
            has_children=self.children,
            is_complete=not self.children and not self.native,
        )


class _Answer(_Closed):
    """What the worker leaves in `response.json`."""

    status: str = ""
    exit_code: int
    consumed: list[str]
    defaulted: list[str]
    returns: dict[str, Annotated[_Value | _Object, Field(discriminator="kind")]]
    modules: dict[str, tuple[int, int]]
    """Module → modification time (ns) and size (bytes)."""
    error: _Failure | None
    report: _Report | None = None


def collect(step: Step, context: StepContext) -> StepResult:
    """Return the function's result, or the exception that ended it.

    Raises `StepError` where the worker could not leave an answer: the interpreter itself died.
    """
    file = context.scratch / "response.json"
    if not file.exists():
        raise StepError(f"the interpreter exited before `{step.command}` returned")
    if file.stat().st_size > _MAX_BYTES:
        raise StepError(f"`{step.command}` returned more than 256 MiB of JSON", hint="declare it as `object`")
    try:
        document = file.read_bytes()
        require_few_elements(document, _MAX_ELEMENTS)
        answer = _Answer.model_validate(json.loads(document))
    except ValidationError as e:
        first = e.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StepError(f"the result of `{step.command}` cannot be read ({why})") from e
    except (ValueError, RecursionError) as e:
        raise StepError(f"the result of `{step.command}` cannot be read ({e})") from e
    values = {name: given.value for name, given in answer.returns.items() if isinstance(given, _Value)}
    wrong = [f"the return `{name}`: {why}" for name, value in values.items() if (why := not_json(value))]
    error = answer.error
    return StepResult(
        consumed=tuple(answer.consumed),
        defaulted=tuple(answer.defaulted),
        values=values,
        objects={
            name: (context.scratch / Path(given.file).name, given.type)
            for name, given in answer.returns.items()
            if isinstance(given, _Object)
        },
        modules=answer.modules,
        report=answer.report.recorded(answer.modules) if answer.report else None,
        exception=_recorded(step, context, error) if error else None,
        problem=": ".join(filter(None, (error.type, error.message))) if error else next(iter(wrong), ""),
        exit_code=answer.exit_code,
    )


def _recorded(step: Step, context: StepContext, error: _Failure) -> ExceptionInfo:
    """Return an exception as the run log stores it; that of a notebook's cell with its line in the notebook's file."""
    found = error.recorded()
    if not found.cell or found.file != step.command:
        return found
    from runnable_ci.steps.notebook.positions import line_of  # only what fails needs it

    return found.model_copy(update={"line": line_of(context.workspace / step.command, found.cell, error.cell_line)})
