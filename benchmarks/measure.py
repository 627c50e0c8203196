"""What a process took: time, processor and memory, by the kernel's own account."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter


@dataclass(frozen=True)
class Cost:
    """What a process and all that it waited for took."""

    seconds: float
    cpu_s: float
    peak_mb: int
    """Of the largest of its processes."""


class CommandError(SystemExit):
    """A measured command failed; ends the benchmark with what the command wrote, unless that is caught."""


def run(command: Sequence[str], *, cwd: Path, output: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, its output into a file. Raises `CommandError` where it fails.

    Its Python may keep what it compiles, as that of an installed program is kept: else each start would compile all.
    """
    environ = {k: v for k, v in (os.environ if env is None else env).items() if k != "PYTHONDONTWRITEBYTECODE"}
    with output.open("wb") as written:
        begin = perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, cwd=cwd, env=environ
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = output.read_text(errors="replace")[-2000:]
        raise CommandError(f"{' '.join(command)[:200]} ended with {process.returncode}: {said}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)
