"""What publishing as it goes costs a run: `python benchmarks/live.py [--quick]`. Prints markdown.

The same runs with `--publish=as-you-go`, with `--publish`, which sends all of it at the end, and without either, in
turn within each round, each into a repository of its own of a docker-registry on this machine. Figures are medians of
the rounds: time and CPU time of whole processes, with all that they started, and what a run took more than the one of
its round with `--publish`, in parts of that run's time. Steps that take long sleep, so that their CPU time is that of
the program. The registry's own work is not counted as CPU time, but slows a run down on the same processors. Needs
docker-registry. On a machine that does other work too, `--first` (as root, on Linux) lets what is measured go before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import measure
from transfer import Bench as Registry
from transfer import serving

PROGRAM = (str(Path(sys.executable).with_name("runnable-ci")), "run", "-q", "-j", "1")
WAYS = {"without": (), "at the end": ("--publish",), "as it goes": ("--publish=as-you-go",)}
AT_MOST = 0.03


def pipelines(*, is_quick: bool) -> dict[str, str]:
    """Return works by their names: the pipeline file."""
    waiting, seconds, small, size = (2, 1, 20, 2) if is_quick else (8, 3, 1000, 200)
    wait = "".join(f"[steps.w{number}]\nrun = 'sleep {seconds}'\n" for number in range(waiting))
    many = "".join(f"[steps.s{number}]\nrun = 'echo {number}'\n" for number in range(small))
    make = f"head -c {size}M /dev/urandom > large.bin"
    large = f"[steps.make]\nrun = '{make}'\ncatalog = {{ put = ['large.bin'] }}\n"
    return {
        f"{waiting} steps of {seconds} s": wait,
        f"{small:,} small steps": many,
        f"a step with {size} MB of products, then {waiting} of {seconds} s": large + wait,
    }


def run(place: Path, words: tuple[str, ...], registry: Registry) -> measure.Cost:
    """Return what a run of the pipeline in a folder takes."""
    environ = {**registry.environ, "RUNNABLE_CI_REGISTRY": registry.repository()}
    return measure.run([*PROGRAM, *words], cwd=place, output=place.with_suffix(".log"), env=environ)


def compare(place: Path, registry: Registry, rounds: int) -> dict[str, list[measure.Cost]]:
    """Measure each way in turn."""
    costs: dict[str, list[measure.Cost]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            cost = run(place, WAYS[way], registry)
            costs[way].append(cost)
            print(f"{place.name}: {way} {cost.seconds:.2f} s, {cost.cpu_s:.2f} s of CPU", file=sys.stderr)
    return costs


def row(name: str, costs: dict[str, list[measure.Cost]]) -> str:
    """Return a row of the table."""
    cells = [
        f"{median(it.seconds for it in them):.2f} ({median(it.cpu_s for it in them):.2f})" for them in costs.values()
    ]
    pairs = list(zip(costs["as it goes"], costs["at the end"], strict=True))
    more = median((one.seconds - two.seconds) / two.seconds for one, two in pairs)
    cpu = median((one.cpu_s - two.cpu_s) / two.seconds for one, two in pairs)
    return f"| {name} | {' | '.join(cells)} | {more:+.1%} | {cpu:+.1%} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small works, once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="go before all other processes (SCHED_RR)")
    parser.add_argument("--folder", type=Path, help="where to work; on a disk, not in memory")
    options = parser.parse_args()
    if options.first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="live-", dir=options.folder) as name, serving(Path(name)) as registry:
        print(f"| Seconds (CPU seconds) | {' | '.join(WAYS)} | more time | more CPU time |\n|---|{'---:|' * 5}")
        for number, (work, pipeline) in enumerate(pipelines(is_quick=options.quick).items()):
            place = Path(name) / f"work{number}"
            place.mkdir()
            (place / "runnable.toml").write_text(pipeline)
            (place / ".gitignore").write_text(".runnable/\nlarge.bin\n")
            subprocess.run(["git", "init", "-q"], cwd=place, check=True)
            print(row(work, compare(place, registry, 1 if options.quick else options.rounds)), flush=True)
        print(f"\nTarget: at most {AT_MOST:.0%} more, of the time of a run that is published at its end.")


if __name__ == "__main__":
    main()
