"""The runner's files, kept from the steps: each attempt writes to its own, and well-formed lines are forwarded.

Steps run side by side and are anyone's code: a file that they all append to could be torn, or say what none of
them wrote. Of what a succeeded attempt wrote, variables and paths take effect for the later steps of the job; what
any attempt wrote to the summary is added to it. Outputs and state would be those of the step of the job that runs us:
they are dropped, a step returns values by `$RUNNABLE_OUTPUT`. Source: actions/runner, FileCommandManager.cs.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runnable_ci.errors import StepError
from runnable_ci.github.commands import append, assignments
from runnable_ci.pipeline.values.output_file import parse_output
from runnable_ci.util.console import is_actions
from runnable_ci.util.files import open_nofollow
from runnable_ci.util.text import decode_text

SUMMARY = "GITHUB_STEP_SUMMARY"
FILES = ("GITHUB_ENV", "GITHUB_PATH", SUMMARY, "GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_ARTIFACTS")
SUMMARY_MAX_BYTES = 1024 * 1024
_MAX_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class JobCommandFiles:
    """What the attempts of an invocation write for the runner; nothing outside of a job."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        given = {name: environ.get(name, "") for name in FILES} if is_actions(environ) else {}
        self._files = {name: Path(path) for name, path in given.items() if path}
        self._lock = threading.Lock()

    def create(self, folder: Path) -> dict[str, str]:
        """Return the variables of an attempt, whose own files are in this folder."""
        for name in self._files:
            (folder / name).touch(exist_ok=False)
        return {name: str(folder / name) for name in self._files}

    def forward(self, folder: Path, *, succeeded: bool, clean: Callable[[str], str]) -> list[str]:
        """Forward what an attempt wrote; return why something was not. `clean` redacts what is shown."""
        handed_on = ("GITHUB_ENV", "GITHUB_PATH", SUMMARY) if succeeded else (SUMMARY,)
        with self._lock:
            return [
                clean(f"{name}: {why}")
                for name in self._files
                if name in handed_on
                for why in self._take(name, folder / name, clean)
            ]

    def _take(self, name: str, written: Path, clean: Callable[[str], str]) -> Iterator[str]:
        try:
            content = _content(written)
            if not content:
                return
            refused: list[str] = []
            if name == SUMMARY:
                text = _checked_summary(clean(content), self._files[name])
            elif name == "GITHUB_PATH":
                text = _checked_paths(content)
            else:
                text, refused = _checked_variables(content)
            append(self._files[name], text)
            yield from refused
        except OSError as e:
            yield f"it cannot be written ({e.strerror})"
        except ValueError as e:
            yield f"ignored, {e}"
        except StepError as e:
            yield f"ignored, {e.message}"


def _content(path: Path) -> str:
    """Return what stands in an attempt's file. Raises `StepError` for what is no plain file any more, or too large."""
    try:
        # A step may have put anything in its place: a link elsewhere, a pipe that nobody writes to.
        descriptor = open_nofollow(str(path), os.O_RDONLY)
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise StepError(f"it cannot be read ({e.strerror})") from e
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StepError("it is no longer a file")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise StepError("it holds more than 1 MiB")
    return decode_text(content)


def _checked_variables(text: str) -> tuple[str, list[str]]:
    """Return the variables as we write them, and which are refused. Raises `StepError` where a line is none."""
    kept, refused = {}, []
    for name, value in parse_output(text).items():
        if name.upper() == "NODE_OPTIONS" or name.upper().startswith(("GITHUB_", "RUNNER_")):
            refused.append(f"`{name}` is refused, as GitHub's runner does")
        elif not _NAME.fullmatch(name) or "\0" in value:
            refused.append(f"{name[:100]!r} is refused, it cannot be a variable")
        else:
            kept[name] = value
    return assignments(kept), refused


def _checked_paths(text: str) -> str:
    lines = [line for line in re.split("\r\n|\r|\n", text) if line]
    if any("\0" in line for line in lines):
        raise StepError("a path has a NUL character")
    return "".join(f"{line}\n" for line in lines)


def _checked_summary(text: str, summary: Path) -> str:
    there = summary.stat().st_size if summary.exists() else 0
    if there + len(text.encode()) + 2 > SUMMARY_MAX_BYTES:
        raise StepError("with it the summary would be larger than GitHub's 1 MiB")
    return text if text.endswith("\n") else f"{text}\n"
