"""What it costs a run to record on what machine it ran: `python benchmarks/machine.py [ROUNDS]`. Prints markdown.

A run of one step is made as often; in each the module is loaded and asked once, when the run is about to do that: the
CPU time of this thread, with all that it loads which the run had not loaded before.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

import measure

AT_MOST_MS = 2
MEASURED = """
import time
from runnable_ci.engine.provenance import step_environments as environments
plain = environments.describe_system
def describe_system(workspace, environ, **more):
    found = plain(workspace, environ, **more)
    begin = time.thread_time()
    from runnable_ci.steps.machine import describe_machine
    describe_machine(workspace, environ)
    with open("took", "a") as file:
        print((time.thread_time() - begin) * 1000, file=file)
    return found
environments.describe_system = describe_system
from runnable_ci.__main__ import main
main()
"""


def main() -> None:
    """Measure, and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory(prefix="machine-") as name:
        folder = Path(name) / "project"
        folder.mkdir()
        (folder / "runnable.toml").write_text("[steps.one]\nrun = 'true'\n")
        for _ in range(rounds + 1):
            measure.run([sys.executable, "-c", MEASURED, "run", "-q"], cwd=folder, output=Path(name) / "output")
        took = [float(line) for line in (folder / "took").read_text().splitlines()[1:]]
        print("| ms of CPU | at most | measured | from | to |\n|---|---:|---:|---:|---:|")
        found = " | ".join(f"{ms:.2f}" for ms in (median(took), min(took), max(took)))
        print(f"| facts of the machine, a run | {AT_MOST_MS} | {found} |")


if __name__ == "__main__":
    main()
