"""What watching costs: 100 empty steps, and a workspace of 1,000 folders, each with and without it in turn.

python benchmarks/watching.py [ROUNDS]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measure import run

STEPS, FOLDERS = 100, 1000
WITHOUT = """
import errno
from runnable_ci.observe import inotify
def refused(self):
    raise OSError(errno.EMFILE, "left out")
inotify.Inotify.__init__ = refused
from runnable_ci.__main__ import main
main()
"""
WAYS = {
    "watched": [sys.executable, "-m", "runnable_ci"],
    "not": [sys.executable, "-c", WITHOUT],
}


def workspace(folder: Path, steps: int, folders: int) -> Path:
    """Make a workspace of empty steps and of folders with a file each."""
    folder.mkdir()
    lines = [f"[steps.s{number}]\nrun = 'true'\n" for number in range(steps)]
    (folder / "runnable.toml").write_text("".join(lines))
    for number in range(folders):
        inner = folder / f"d{number // 100}" / f"d{number % 100}"
        inner.mkdir(parents=True)
        (inner / "file").touch()
    return folder


def cpu_ms(way: Sequence[str], folder: Path, number: int) -> float:
    """Return the processor's time of a run, in milliseconds."""
    command = [*way, "run", "-j", "1", "-q", "--run-id", f"r{number}"]
    return run(command, cwd=folder, output=folder.with_suffix(".log")).cpu_s * 1000


def main() -> None:
    """Print the difference that watching makes for a step and for a run."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        works = {
            f"{STEPS} empty steps, each step": (workspace(Path(scratch, "steps"), STEPS, 0), STEPS),
            f"{FOLDERS} folders, the run": (workspace(Path(scratch, "folders"), 1, FOLDERS), 1),
        }
        for name, (folder, count) in works.items():
            taken: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(rounds):
                for way, command in WAYS.items():
                    taken[way].append(cpu_ms(command, folder, len(WAYS) * number + list(WAYS).index(way)))
            watched, without = (median(taken[way]) for way in ("watched", "not"))
            cost = (watched - without) / count
            print(f"{name}: {cost:.2f} ms of CPU ({watched:.0f} ms watched, {without:.0f} ms not)")


if __name__ == "__main__":
    main()
