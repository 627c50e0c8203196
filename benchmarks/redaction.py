"""What it costs to keep secrets out of a log, in one run: `python benchmarks/redaction.py [--quick]`.

A program writes a log of 100 MiB into a pipe; it is read, written to a file and hashed, by the code that a run has for
it, with redaction and without; then also stored, as a run's output is at its end. Medians of rounds that take turns.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runnable_ci.output import AttemptOutput
from runnable_ci.process import Stream, Supervisor
from runnable_ci.redact import Redaction, Redactor
from runnable_ci.store.layout import Layout

MIB = 1024 * 1024
LINES = """
INFO WARNING training epoch step=42 loss=0.1234 accuracy=0.987 eta 0:12:34 2024-05-03T12:33:21.123Z GET 200 OK 12ms
/api/v2/items?page=3 user_id=1234 Requirement already satisfied: numpy>=1.26 in the of through unused variable `x`
./.venv/lib/python3.11/site-packages/sklearn/linear_model/_logistic.py line 123 fit_transform downloading package from
file:///home/runner/work/project/node_modules/some-library tests/test_pipeline.py::test_reads_the_file PASSED [ 42%]
"""
SECRETS = [
    *("q7Zk2-Vw9Xy4Tb1R", "AbC/123+dEfGhIjKlMnOpQrStUvWx", "hunter2-and-more", "0123456789abcdef0123456789abcdef"),
    "ghs_" + "aB3dE6" * 6,
]
VARIANTS: dict[str, Redactor | None] = {
    "none": None,
    "token formats": Redactor(),
    "and 1 secret": Redactor(SECRETS[:1]),
    "and 5 secrets": Redactor(SECRETS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 MiB, one round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rounds, size = (1, 10 * MIB) if options.quick else (options.rounds, 100 * MIB)
    with tempfile.TemporaryDirectory(prefix="redaction-") as name:
        folder = Path(name)
        log = write_log(folder / "log", size)
        layout = Layout(folder / "store")
        layout.create()
        kept: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        stored: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(rounds):
            for variant, redactor in VARIANTS.items():
                begin = time.perf_counter()
                written = keep(log, folder / "outputs", redactor)
                middle = time.perf_counter()
                layout.put_file(written)
                end = time.perf_counter()
                kept[variant].append(middle - begin)
                stored[variant].append(end - begin)
                shutil.rmtree(folder / "outputs")
                shutil.rmtree(layout.folder / "blobs" / "sha256")
                layout.create()
                os.sync()
            print(".", end="", file=sys.stderr, flush=True)
    print(table(kept, stored, size))


def write_log(path: Path, size: int) -> Path:
    """A log as programs write it, of this size."""
    chosen = random.Random(1)  # noqa: S311 - the same log each time
    words, lines, left = LINES.split(), [], 4 * MIB
    while left > 0:
        lines.append(" ".join(chosen.choices(words, k=chosen.randint(4, 14))) + "\n")
        left -= len(lines[-1])
    block = "".join(lines).encode()
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
    return path


def keep(log: Path, outputs: Path, redactor: Redactor | None) -> Path:
    """Have what `cat` writes in a file, as an attempt does."""
    outputs.mkdir()
    output = AttemptOutput(outputs, "step.1")
    supervisor = Supervisor()
    take: Callable[[Stream, bytes], None] = output.write
    if redactor is not None:
        redaction = Redaction(redactor)

        def take(stream: Stream, chunk: bytes) -> None:
            if clean := redaction.feed(chunk):
                output.write(stream, clean)

    supervisor.run(["cat", str(log)], cwd=outputs, env={"PATH": os.environ["PATH"]}, output=take)
    if redactor is not None and (rest := redaction.close()):
        output.write("o", rest)
    output.close()
    supervisor.close()
    return outputs / "step.1.log"


def table(kept: dict[str, list[float]], stored: dict[str, list[float]], size: int) -> str:
    """The medians in markdown, with the ratio to no redaction."""
    lines = ["| Redaction | pipe, file, hash: ms | of none | and stored: ms | of none |", "|---|---:|---:|---:|---:|"]
    for variant in VARIANTS:
        cells = []
        for times in (kept, stored):
            median = statistics.median(times[variant])
            of_none = statistics.median(mine / none for mine, none in zip(times[variant], times["none"], strict=True))
            cells += [f"{median * 1000:.0f}", f"{of_none:.2f}"]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join([f"{size // MIB} MiB, {len(kept['none'])} rounds", "", *lines])


if __name__ == "__main__":
    main()
