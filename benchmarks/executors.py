"""What it costs to run steps elsewhere: empty ones on this machine, by a command, and on a Slurm of this machine, in
turn, and how many workers ran for them. Slurm is that of the tests: two nodes of four processors each.

python benchmarks/executors.py [--steps 40] [--rounds 3] [--quick]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from measure import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from slurm import Slurm, slurm_server

PROGRAM = [sys.executable, "-m", "runnable_ci", "run", "-q", "-j", "2"]
SLURM = 'slurm = { partition = "all" }\n'
SHAPES = ("in a chain", "of a matrix")


class Place:
    """A workspace with empty steps, and the workers that ran in it."""

    def __init__(self, folder: Path, shape: str, steps: int, slurm: Slurm) -> None:
        folder.mkdir()
        self._folder, self._slurm, self._counter, self._runs = folder, slurm, folder / "started", 0
        self._environ = {**os.environ, **slurm.environ}
        counted = ["sh", "-c", f'echo >> {self._counter}; exec sh -c "$1"', "sh", "{}"]
        chain = "".join(f"[steps.s{number}]\nrun = 'true'\n" for number in range(steps))
        matrix = f"[steps.s]\nrun = 'true'\nstrategy = {{ matrix = {{ i = {[*range(steps)]} }} }}\n"
        tables = f"[executors.command]\ncommand = {json.dumps(counted)}\n[executors.slurm]\n{SLURM}"
        (folder / "runnable.toml").write_text(tables + (chain if shape == SHAPES[0] else matrix))

    def run(self, executor: str) -> tuple[float, int]:
        """Return how many seconds a run takes on an executor, and how many workers began."""
        self._runs += 1
        self._counter.unlink(missing_ok=True)
        before = set(self._begun())
        command = [*PROGRAM, "--run-id", f"r{self._runs}", "--executor", executor]
        took = run(command, cwd=self._folder, output=self._folder.with_suffix(".log"), env=self._environ)
        lines = self._counter.read_text().splitlines() if self._counter.exists() else []
        return took.seconds, len(lines) or len(set(self._begun()) - before)

    def _begun(self) -> list[str]:
        """Return the jobs of which a process was started."""
        lines = self._slurm("scontrol", "-o", "show", "jobs", check=False).splitlines()
        return [line.split()[0] for line in lines if "StartTime=Unknown" not in line and "JobState=COMPL" in line]


def measured(places: Mapping[str, Place], rounds: int) -> None:
    """Print a line for each shape and each way, by the medians of the rounds."""
    for shape, place in places.items():
        found: dict[str, list[tuple[float, int]]] = {way: [] for way in ("local", "command", "slurm")}
        for _ in range(rounds):
            for way, runs in found.items():
                runs.append(place.run(way))
        for way, runs in found.items():
            seconds = median(took for took, _ in runs)
            ratio = median(took / here for (took, _), (here, _) in zip(runs, found["local"], strict=True))
            workers = median(count for _, count in runs)
            print(f"| {shape}, {way} | {seconds:.1f} | {ratio:.1f} | {workers:.0f} |", flush=True)


def main() -> None:
    """Print what a run takes each way, of the one on this machine too, and its workers."""
    parser = ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    steps, rounds = (4, 1) if asked.quick else (asked.steps, asked.rounds)
    print(f"| {steps} empty steps | seconds | of local | workers |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch, slurm_server() as slurm:
        measured({it: Place(Path(scratch, it.replace(" ", "-")), it, steps, slurm) for it in SHAPES}, rounds)


if __name__ == "__main__":
    main()
