"""A matrix of many `true` beside `xargs -P2`: `python benchmarks/matrix.py [--quick]`. Prints markdown.

Each runs in turns on two cores: `xargs -P2 -I{} bash -c true`, and one step with as many instances. Figures are medians
of whole processes, with the CPU time of all that they started.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import measure

PROGRAM = (sys.executable, "-m", "runnable_ci", "run", "--jobs", "2", "--quiet")
XARGS = "seq {count} | xargs -P2 -I{{}} bash -c true"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, and few instances")
    count, rounds = (100, 1) if parser.parse_args().quick else (1000, 3)
    with tempfile.TemporaryDirectory() as place:
        folder, output = Path(place) / "project", Path(place) / "output"
        folder.mkdir()
        (folder / ".gitignore").write_text(".runnable\n")
        values = ", ".join(map(str, range(count)))
        (folder / "runnable.toml").write_text(
            f'[steps.each]\nstrategy = {{ matrix = {{ n = [{values}] }} }}\nrun = "true"\n'
        )
        measure.run(["git", "init", "-q"], cwd=folder, output=output)
        hand, ours = [], []
        for _ in range(rounds):
            hand.append(measure.run(["sh", "-c", XARGS.format(count=count)], cwd=folder, output=output))
            ours.append(measure.run(PROGRAM, cwd=folder, output=output))
        print(f"| {count} instances of `true` | xargs | runnable-ci | ratio |\n| --- | --- | --- | --- |")
        both = (*hand, *ours)
        for what, costs in (("seconds", [one.seconds for one in both]), ("CPU", [one.cpu_s for one in both])):
            first, second = median(costs[:rounds]), median(costs[rounds:])
            print(f"| {what} | {first:.2f} | {second:.2f} | {second / first:.2f} |")


if __name__ == "__main__":
    main()
