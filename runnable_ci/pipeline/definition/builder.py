"""A pipeline defined by a Python program, which writes the pipeline file: `runnable_ci.Pipeline`.

The file is what counts: each key of its reference is a keyword here, a run has all of it, and resuming needs no
program. Only the standard library is imported, so it runs in the user's own interpreter.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runnable_ci.errors import PipelineError, StepError
from runnable_ci.pipeline.definition.functions import named
from runnable_ci.pipeline.definition.toml_writer import toml_text
from runnable_ci.util.console import console

MARK = "# Written by runnable_ci.Pipeline: change the program that defines the pipeline, not this file.\n"
"""The first line of what is written: a file without it was written by hand, and stays."""

_TABLES = ("attempts", "catalog", "container", "defaults", "loop", "strategy", "workflow")
"""Tables whose keys are words of the file: those of any other are names, as they are."""


class PipelineBuilder:
    """A pipeline file in the making: `Pipeline("iris", parameters={"seed": 7})`, then `step` for each step.

    Keywords are the keys of the file, written as Python can: `working_directory` is `working-directory`, `if_` is `if`;
    so are the keys of its tables, such as `strategy={"max_parallel": 2}`.
    """

    def __init__(self, name: str, **keys: Any) -> None:
        self._table = {"name": name, **_as_in_the_file(keys)}
        self._steps: dict[str, dict[str, Any]] = {}
        if "steps" in self._table:
            raise PipelineError("steps are not given as a keyword", hint="call `step` for each of them")

    def step(
        self,
        name: str,
        *,
        python: Callable[..., Any] | str | None = None,
        run: str | None = None,
        needs: Iterable[str] | None = None,
        returns: Iterable[str] | Mapping[str, str] | None = None,
        **keys: Any,
    ) -> str:
        """Add a step; return its name, for the `needs` of others. A function may be given as an object.

        Raises `PipelineError` where a step has the name already.
        """
        if name in self._steps:
            raise PipelineError(f"there is a step `{name}` already", hint="each step has a name of its own")
        given = {"python": python, "run": run, "needs": _listed(needs), "returns": _listed(returns), **keys}
        self._steps[name] = _as_in_the_file(given)
        return name

    def text(self, folder: str | Path = ".") -> str:
        """Return the pipeline file, as it is in this folder. The same definition gives the same bytes.

        Raises `PipelineError` for a function without a name of its own, `TypeError` for a value that TOML has not.
        """
        table = {**self._table, "steps": self._steps}
        return MARK + "\n" + toml_text(named(table, Path(folder).resolve()))

    def write(self, path: str | Path = "runnable.toml") -> Path:
        """Write the file, where it is not what it would be; return its path.

        Raises `PipelineError` for a file that was not written by this method: it stays.
        """
        file = Path(path)
        content = self.text(file.parent).encode()
        there = file.read_bytes() if file.exists() else None
        if there == content:
            return file
        if there is not None and not there.startswith(MARK.encode()):
            raise PipelineError(f"{file} was not written by a program", hint="move it away, or write to another path")
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        return file

    def check(self, path: str | Path = "runnable.toml") -> None:
        """Write the file and find mistakes in it, as `runnable-ci check` does. Raises `SystemExit` where there are."""
        _call("check", str(self.write(path)))

    def run(self, *arguments: str, path: str | Path = "runnable.toml") -> None:
        """Write the file and run it by the installed `runnable-ci run`, with these options, such as `--jobs`, `2`.

        Raises `SystemExit` with the exit code of a run that failed, so a program that ends with it fails too.
        """
        if "RUNNABLE_RUN_ID" in os.environ:
            raise StepError(
                "a step would start its own pipeline: it imports the program that defines it",
                hint='call `run` below `if __name__ == "__main__":`',
            )
        _call("run", str(self.write(path)), *arguments)


def _as_in_the_file(keys: Mapping[str, Any]) -> dict[str, Any]:
    written = {key.rstrip("_").replace("_", "-"): value for key, value in keys.items() if value is not None}
    return {
        key: _as_in_the_file(value) if key in _TABLES and isinstance(value, Mapping) else value
        for key, value in written.items()
    }


def _listed(names: Iterable[str] | Mapping[str, str] | None) -> list[str] | Mapping[str, str] | None:
    if isinstance(names, str):
        return [names]
    return names if names is None or isinstance(names, Mapping) else list(names)


def _call(*words: str) -> None:
    """Run the program on the same terminal. Raises `SystemExit` with its exit code if that is not 0."""
    # What the program needs may be missing here, where only this package is on the path.
    program = sys.executable if find_spec("typer") else shutil.which("runnable-ci")
    if program is None:
        raise StepError("runnable-ci is not installed", hint="install it, in an environment of its own: pipx install")
    command = [program, "-m", "runnable_ci"] if program == sys.executable else [program]
    console.flush()
    with _interrupts_left_to_it():
        code = os.spawnv(os.P_WAIT, program, [*command, *words])  # noqa: S606 - a list of arguments, as all are
    if code:
        raise SystemExit(128 - code if code < 0 else code)


@contextmanager
def _interrupts_left_to_it() -> Iterator[None]:
    """Let Ctrl-C end the program that is waited for: it ends its steps first. No program inherits a handler."""
    try:
        before = signal.signal(signal.SIGINT, lambda *_: None)
    except ValueError:  # not the main thread: no signal ends this one
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
