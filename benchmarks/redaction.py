"""What it costs to keep secrets out of a log, in one run: `python benchmarks/redaction.py [--quick]`.

A program writes a log of 100 MiB into a pipe; it is read, written to a file and hashed, by the code that a run has for
it. And the same as a whole run (`runnable-ci run --quiet`, start-up included). Once without redaction, once as it is,
and with secrets in the environment, in turn: the figures are medians of seconds of CPU, of the program and all that it
starts, and of their ratio within a round.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from runnable_ci.redaction.masks import MaskCommands
from runnable_ci.redaction.redactor import Redaction, Redactor
from runnable_ci.runs.output import AttemptOutput
from runnable_ci.util.process import Supervisor
from runnable_ci.util.process_output import Stream

MIB = 1024 * 1024
Secrets = list[str] | None
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
VARIANTS: dict[str, Secrets] = {
    "none": None,
    "token formats": [],
    "and 1 secret": SECRETS[:1],
    "and 5 secrets": SECRETS,
}
WITH = "from runnable_ci.__main__ import main; main()"
WITHOUT = f"""
import runnable_ci.engine.step_output
class Nothing:
    def __init__(self, *_, **named): pass
    def mentions_mask(self, chunk): return False
    def feed(self, chunk): return chunk
    def close(self): return b""
runnable_ci.engine.step_output.Redaction = runnable_ci.engine.step_output.MaskCommands = Nothing
{WITH}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 MiB, one round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rounds, size = (1, 10 * MIB) if options.quick else (options.rounds, 100 * MIB)
    kept: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    whole: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="redaction-") as name:
        folder = Path(name)
        log = write_log(folder / "log", size)
        for _ in range(rounds):
            for variant, secrets in VARIANTS.items():
                kept[variant].append(cpu_s(keep, log, folder / "outputs", secrets))
                whole[variant].append(cpu_s(run, log, folder / "project", secrets))
                os.sync()
            print(".", end="", file=sys.stderr, flush=True)
    print(table(kept, whole, size))


def cpu_s(
    work: Callable[[Path, Path, list[str] | None], None], log: Path, folder: Path, secrets: list[str] | None
) -> float:
    """Seconds of CPU that some work took in an empty folder, which is gone afterwards."""
    folder.mkdir()
    begin = sum(os.times()[:4])
    work(log, folder, secrets)
    end = sum(os.times()[:4])
    shutil.rmtree(folder)
    return end - begin


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


def keep(log: Path, folder: Path, secrets: Secrets) -> None:
    """Have what `cat` writes in a file, as an attempt does."""
    output = AttemptOutput(folder, "step.1")
    supervisor = Supervisor()
    redaction = Redaction(Redactor(secrets or []))
    commands = MaskCommands(lambda _: None, mentions_mask=redaction.mentions_mask)

    def redacted(stream: Stream, chunk: bytes) -> None:
        if clean := redaction.feed(commands.feed(chunk)):
            output.write(stream, clean)

    take = output.write if secrets is None else redacted
    supervisor.run(["cat", str(log)], cwd=folder, env={"PATH": os.environ["PATH"]}, output=take)
    if rest := redaction.feed(commands.close()) + redaction.close():
        output.write("o", rest)
    output.close()
    supervisor.close()


def run(log: Path, folder: Path, secrets: Secrets) -> None:
    """Run a pipeline whose one step writes the log."""
    (folder / "runnable.toml").write_text(f'[steps.step]\nrun = "cat {log}"\n')
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    environ |= {f"KEY_{i}_SECRET": secret for i, secret in enumerate(secrets or [])}
    program = WITHOUT if secrets is None else WITH
    subprocess.run(
        [sys.executable, "-c", program, "run", "--quiet"],
        cwd=folder,
        env=environ,
        check=True,
        stderr=subprocess.DEVNULL,
    )


def table(kept: dict[str, list[float]], whole: dict[str, list[float]], size: int) -> str:
    """The medians in markdown, with the ratio to no redaction."""
    lines = ["| Redaction | pipe, file, hash: s | of none | whole run: s | of none |", "|---|---:|---:|---:|---:|"]
    for variant in VARIANTS:
        cells = []
        for times in (kept, whole):
            of_none = statistics.median(mine / none for mine, none in zip(times[variant], times["none"], strict=True))
            cells += [f"{statistics.median(times[variant]):.2f}", f"{of_none:.2f}"]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join([f"{size // MIB} MiB, {len(kept['none'])} rounds", "", *lines])


if __name__ == "__main__":
    main()
