"""What watching costs: empty steps, and a workspace of 1,000 folders, each with and without it in turn; and of what a
step leaves behind: undeclared files, and the same in a repository of 50,000 files.

python benchmarks/watching.py [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measure import run

STEPS, FOLDERS, FILES = 300, 1000, 50_000
START = "from runnable_ci.__main__ import main\nmain()\n"
REFUSED = """
import errno
from runnable_ci.observe import inotify
def refused(self):
    raise OSError(errno.EMFILE, "left out")
inotify.Inotify.__init__ = refused
"""
WATCHED, NOT_WATCHED = ([sys.executable, "-c", code] for code in (START, REFUSED + START))


def workspace(folder: Path, steps: int, *, folders: int = 0, files: int = 0, command: str = "true") -> Path:
    """Make a workspace of steps, `{}` in their command is the number, and of folders that share files, of one at least.

    It is a repository where there are files.
    """
    folder.mkdir()
    lines = [f"[steps.s{number}]\nrun = '{command.format(number)}'\n" for number in range(steps)]
    (folder / "runnable.toml").write_text("".join(lines))
    for number in range(folders):
        inner = folder / f"d{number // 100}" / f"d{number % 100}"
        inner.mkdir(parents=True)
        for name in range(files // folders or 1):
            (inner / f"file{name}").touch()
    if files:
        (folder / ".gitignore").write_text(".runnable/\n")
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        for words in (("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "all")):
            subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def cpu_ms(way: Sequence[str], folder: Path, number: int) -> float:
    """Return the processor's time of a run, in milliseconds."""
    command = [*way, "run", "-j", "1", "-q", "--run-id", f"r{number}"]
    return run(command, cwd=folder, output=folder.with_suffix(".log")).cpu_s * 1000


def in_turn(rounds: int, one: tuple[Sequence[str], Path], other: tuple[Sequence[str], Path]) -> tuple[float, float]:
    """Return the median of two kinds of runs that take turns, and of what the first one takes more in a round."""
    pairs = [(cpu_ms(*one, 2 * number), cpu_ms(*other, 2 * number + 1)) for number in range(rounds)]
    return median(second for _, second in pairs), median(first - second for first, second in pairs)


def main() -> None:
    """Print what watching, and undeclared files, make of a step and of a run, and the ratio of the whole."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    leave = "echo {0} > o{0}.dat"
    print("| | ms of CPU more | of the run without |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        empty = workspace(Path(scratch, "steps"), STEPS)
        wide = workspace(Path(scratch, "folders"), 1, folders=FOLDERS)
        works = [
            (f"watching {STEPS} empty steps, each step", STEPS, (WATCHED, empty), (NOT_WATCHED, empty)),
            (f"watching {FOLDERS:,} folders, the run", 1, (WATCHED, wide), (NOT_WATCHED, wide)),
        ]
        for name, files in (("", 1), (f" in a repository of {FILES:,} files", FILES)):
            many, one = (
                workspace(
                    Path(scratch, f"{files}of{count}"), count, folders=min(files, FOLDERS), files=files, command=way
                )
                for count, way in ((STEPS + 1, leave), (1, leave))
            )
            works.append((f"a step with an undeclared file{name}", STEPS, (WATCHED, many), (WATCHED, one)))
        for name, count, first, second in works:
            without, more = in_turn(rounds, first, second)
            print(f"| {name} | {more / count:.2f} | {(without + more) / without:.2f} |", flush=True)


if __name__ == "__main__":
    main()
