"""Which container engine runs the steps: docker, podman or apptainer, whichever is there and answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from runnable_ci.errors import StepError
from runnable_ci.util.process import run_bounded
from runnable_ci.util.process_output import Finished
from runnable_ci.util.text import printable, truncate

Kind = Literal["docker", "podman", "apptainer"]
ENGINES: Final[Mapping[str, Kind]] = {
    "docker": "docker",
    "podman": "podman",
    "apptainer": "apptainer",
    "singularity": "apptainer",
}
_ANSWER_S: Final = 60.0
_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_SELINUX: Final = Path("/sys/fs/selinux/enforce")


class ContainerEngine(NamedTuple):
    """A program that runs containers."""

    kind: Kind
    program: str
    is_rootless: bool = False
    """Whether its containers are within a user's own rights, and their users are mapped."""
    has_labels: bool = False
    """Whether SELinux keeps containers from files that are not labelled for them."""

    def ask(self, *words: str, environ: Mapping[str, str], timeout_s: float = _ANSWER_S) -> Finished:
        """Return what a command of the engine says. Raises `StepError` where it cannot be started, or does not end."""
        argv = [self.program, *words]
        try:
            return run_bounded(argv, stdin=b"", env=environ, timeout_s=timeout_s, most=_ANSWER_MAX_BYTES)
        except TimeoutError as e:
            raise StepError(f"`{self.program} {words[0]}` took more than {timeout_s:g} s") from e
        except (OSError, MemoryError, OverflowError) as e:
            raise StepError(f"`{self.program}` cannot be started: {e}") from e


def find_engine(environ: Mapping[str, str], chosen: str | None = None) -> ContainerEngine:
    """Return the chosen engine, else the first that is on PATH and answers. Raises `StepError` where there is none."""
    names = [chosen] if chosen else list(ENGINES)
    silent: list[str] = []
    for name in names:
        program = shutil.which(name, path=environ.get("PATH"))
        if program is None:
            continue
        kind = ENGINES[name]
        is_rootless = os.geteuid() != 0
        if kind == "docker":
            answer = ContainerEngine(kind, program).ask("version", "--format", "{{json .Server}}", environ=environ)
            if answer.code:
                silent.append(f"{name} does not answer: {last_line(answer.stderr)}")
                continue
            if b"podman" in answer.stderr.lower():  # podman-docker, which says so there
                kind = "podman"
            else:
                is_rootless = b'"rootlesskit"' in answer.stdout  # one of the components, only where it is so
        return ContainerEngine(kind, program, is_rootless, _SELINUX.exists())
    if silent:
        raise StepError("; ".join(silent), hint="start it, or install another engine: podman needs no daemon")
    looked = f"`{chosen}` is not" if chosen else "neither docker nor podman nor apptainer is"
    raise StepError(f"{looked} on PATH", hint="install a container engine, such as podman")


def last_line(said: bytes) -> str:
    """Return the last line of what a program said, as an error shows it."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return truncate(printable(lines[-1]), 300) if lines else "it said nothing"


def option_of(options: Sequence[str], *names: str) -> bool:
    """Return whether one of these is among the options of an engine."""
    return any(word.partition("=")[0] in names for word in options)
