"""Runs of the same steps by bash, doit, Snakemake, DVC, runnable and us: `python benchmarks/pipelines.py [--quick]`.

Prints markdown. The others are installed once into virtual environments of their own, under `.cache/benchmarks`. Every
figure is of a whole process, start-up included, in a fresh folder and, for us, a fresh git repository; the tools take
turns within each round and figures are medians. A tool that would take minutes is measured once, or left out.
Needs bash, git and openssl; `--quick` compares small works with bash only and installs nothing but a bare python. On a
machine that does other work too, `--first` (as root, on Linux) lets what is measured go before it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import measure
from tools import BASH, DONE, OTHERS, OURS, PYTHON_STEP, Step, Tool, install

ROOT = Path(__file__).parent.parent
MIB = 1024 * 1024
SLOW_S = 3.0
"""What takes another tool longer is measured once."""
LIMIT_S = 60.0
"""What would take longer is left out."""
PRODUCTS = (
    *(DONE, "logs/", "kept/", "moved.bin", "big.bin", "out/", "__pycache__/", ".doit.db*", ".snakemake/", ".dvc/"),
    *(".run_log_store/", ".catalog/"),
)
"""What git does not look at."""
AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
BARE = Tool("bare typer", lambda *_: [])
TYPER = """
import typer
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
@app.command()
def first(name: str = "") -> None:
    "One."
@app.command()
def second(name: str = "") -> None:
    "Two."
app()
"""
STARTED = {
    "`run` of a shell step": ["run", "--quiet"],
    "`runs`": ["runs"],
    "`retry` with nothing to do": ["retry", "latest"],
}


@dataclass(frozen=True)
class Work:
    """Steps to do, and how many at once. Works of one `family` differ in their size only."""

    family: str
    size: int
    steps: tuple[Step, ...]
    jobs: int = 1
    has_file: bool = False
    """Whether the file that the step puts is there before it begins."""

    @property
    def name(self) -> str:
        """With its size."""
        return self.family.format(f"{self.size:,}")


@dataclass(frozen=True)
class Sizes:
    """How large the works are."""

    shell_chains: tuple[int, ...]
    python_chains: tuple[int, ...]
    independent: int
    large_mib: int
    many: int
    runs: int


FULL = Sizes(
    shell_chains=(1, 10, 100, 1000), python_chains=(1, 10, 100), independent=100, large_mib=1024, many=2000, runs=20
)
QUICK = Sizes(shell_chains=(1, 5), python_chains=(1, 3), independent=4, large_mib=4, many=40, runs=1)


class Bench:
    """A folder for everything, the tools, and what was measured."""

    def __init__(self, folder: Path, cache: Path, tools: Sequence[Tool], rounds: int, works: str) -> None:
        self.folder = folder
        self.tools = tools
        self.rounds = rounds
        self.costs: dict[tuple[str, str], list[measure.Cost]] = {}
        self.failed: set[tuple[str, str]] = set()
        self.place = folder
        """Where the tool works; a folder of its own for each measurement."""
        self._works = re.compile(works)
        self._places = count()
        self._programs = {tool.name: install(tool, cache) for tool in (BARE, *tools)}
        (folder / "home").mkdir()

    def compare(self, work: Work, smaller: Work | None = None, *, tools: Sequence[Tool] = ()) -> None:
        """Let each tool do the work, if it is wanted, in turn, as many rounds as the tool can bear."""
        for number in range(self.rounds if self._works.search(work.name) else 0):
            for tool in tools or self.tools:
                if self._can_bear(tool, work, smaller, number):
                    self._do(tool, work)

    def _do(self, tool: Tool, work: Work) -> None:
        """Let a tool do the work; what another cannot do is noted, what bash or we cannot do ends the benchmark."""
        try:
            self.run(work.name, tool, self.told(tool, work))
            self._count_steps(tool, work)
        except measure.CommandError as e:
            if not tool.package:
                raise
            self.costs.pop((work.name, tool.name), None)
            self.failed.add((work.name, tool.name))
            print(f"{work.name}: {e}", file=sys.stderr)

    def _count_steps(self, tool: Tool, work: Work) -> None:
        done = self.place / DONE
        lines = done.stat().st_size if done.exists() else 0
        if lines != len(work.steps):
            said = (self.folder / "output").read_text(errors="replace")[-2000:]
            raise measure.CommandError(f"{tool.name} did {lines} of {len(work.steps)} steps: {said}")

    def _can_bear(self, tool: Tool, work: Work, smaller: Work | None, number: int) -> bool:
        known = self.costs.get((work.name, tool.name))
        if number:
            return not tool.package or (known is not None and known[0].seconds < SLOW_S)
        if smaller is None:
            return True
        known = self.costs.get((smaller.name, tool.name))
        if not self._works.search(smaller.name):
            return not tool.package
        return known is not None and known[0].seconds * work.size / smaller.size < LIMIT_S

    def told(self, tool: Tool, work: Work) -> list[str]:
        """The tool's command for the work, in a fresh git repository that has all that it needs."""
        if (self.place / "big.bin").exists():
            shutil.rmtree(self.place)
        # Else nothing is removed: a file system is slower for a while where thousands of files were.
        self.place = folder = self.folder / f"work-{next(self._places)}"
        (folder / "logs").mkdir(parents=True)
        if work.has_file:
            shutil.copyfile(self.folder / "seed.bin", folder / "moved.bin")
        (folder / "work.py").write_text(PYTHON_STEP)
        (folder / ".gitignore").write_text("\n".join(PRODUCTS) + "\n")
        command = tool.tell(folder, work.steps, work.jobs)
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "work"]):
            subprocess.run(["git", *AUTHOR, *words], cwd=folder, env=self.environ(tool), check=True)
        os.sync()
        return command

    def run(self, work: str, tool: Tool, command: Sequence[str]) -> None:
        """Run the command in the work's folder and keep its cost."""
        environ = self.environ(tool)
        program = shutil.which(command[0], path=environ["PATH"]) or command[0]
        cost = measure.run([program, *command[1:]], cwd=self.place, output=self.folder / "output", env=environ)
        self.costs.setdefault((work, tool.name), []).append(cost)
        print(f"{work}: {tool.name} {cost.seconds:.2f} s, {cost.cpu_s:.2f} s of CPU", file=sys.stderr)

    def environ(self, tool: Tool) -> dict[str, str]:
        """A clean environment in which the tool's own programs, for bash and us a bare python, come first."""
        path = f"{self._programs[tool.name]}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}

    def seconds(self, work: str, tool: str) -> float:
        """The median time."""
        return median(cost.seconds for cost in self.costs[work, tool])

    def cpu_s(self, work: str, tool: str) -> float:
        """The median of what the processors did."""
        return median(cost.cpu_s for cost in self.costs[work, tool])

    def peak_mb(self, work: str, tool: str) -> int:
        """The largest peak."""
        return max(cost.peak_mb for cost in self.costs[work, tool])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small works, one round, only bash and us")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--works", default="", help="a regular expression: only the works whose name it is found in")
    parser.add_argument("--first", action="store_true", help="go before all other processes (SCHED_RR)")
    parser.add_argument("--tools", default=",".join(tool.name for tool in OTHERS), help="which of the others")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="where the others live")
    parser.add_argument("--folder", type=Path, help="where to work; on a disk, not in memory")
    options = parser.parse_args()
    if options.first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    wanted = () if options.quick else options.tools.split(",")
    sizes, rounds = (QUICK, 1) if options.quick else (FULL, options.rounds)
    tools = [BASH, OURS, *(tool for tool in OTHERS if tool.name in wanted)]
    with tempfile.TemporaryDirectory(prefix="pipelines-", dir=options.folder) as name:
        bench = Bench(Path(name), options.cache, tools, rounds, options.works)
        start_up(bench, sizes)
        shell, python = chains(bench, sizes)
        spread = Work(
            "{} independent shell steps, two jobs", sizes.independent, tuple(steps(sizes.independent)), jobs=2
        )
        bench.compare(spread)
        large, put, many = files(bench, sizes)
        print(
            "\n\n".join(
                [
                    machine(rounds),
                    targets(bench, shell, python, put),
                    table(bench, [work.name for work in (*shell, *python, spread)]),
                    table(bench, [work.name for work in (large, many, put)]),
                    table(bench, ["`--help`", *STARTED]),
                ]
            )
        )


def steps(count: int, *, chained: bool = False, python: bool = False) -> Iterator[Step]:
    """Steps that print a line."""
    for number in range(count):
        before = f"s{number - 1}" if chained and number else ""
        yield Step(f"s{number}", "" if python else f"echo step {number}; echo >> {DONE}", needs=before)


def chains(bench: Bench, sizes: Sizes) -> tuple[list[Work], list[Work]]:
    """Chains of shell steps and of python steps, the small ones first."""
    shell = [Work("chain of {} shell steps", n, tuple(steps(n, chained=True))) for n in sizes.shell_chains]
    python = [
        Work("chain of {} python steps", n, tuple(steps(n, chained=True, python=True))) for n in sizes.python_chains
    ]
    for works in (shell, python):
        for smaller, work in zip([None, *works], works, strict=False):
            bench.compare(work, smaller)
    return shell, python


def files(bench: Bench, sizes: Sizes) -> tuple[Work, Work, Work]:
    """A large file and many small ones, put by one step and got by the next; and the put of the large file alone."""
    with (bench.folder / "seed.bin").open("wb") as seed:
        for _ in range(sizes.large_mib):
            seed.write(os.urandom(MIB))
    (bench.folder / "seed").mkdir()
    for number in range(sizes.many):
        (bench.folder / "seed" / f"{number:04}").write_bytes(os.urandom(10 * 1024))
    large = Work(
        "{} MiB file put and got",
        sizes.large_mib,
        (
            Step("make", f"cp ../seed.bin big.bin; echo >> {DONE}", puts="big.bin"),
            Step("take", f"cat big.bin > /dev/null; echo >> {DONE}", needs="make", gets="big.bin"),
        ),
    )
    moving = Step("keep", f"mv moved.bin big.bin; echo >> {DONE}", puts="big.bin")
    put = Work("{} MiB file put", sizes.large_mib, (moving,), has_file=True)
    many = Work(
        "{} files of 10 KiB put and got",
        sizes.many,
        (
            Step("make", f"rm -rf out; cp -r ../seed out; echo >> {DONE}", puts="out/"),
            Step("take", f"cat out/* > /dev/null; echo >> {DONE}", needs="make", gets="out/"),
        ),
    )
    bench.compare(large)
    bench.compare(put, tools=[BASH, OURS])
    bench.compare(many)
    return large, put, many


def start_up(bench: Bench, sizes: Sizes) -> None:
    """The help of each tool, and what a small command of ours takes beside one of a bare typer program that runs."""
    small = Work("", 1, tuple(steps(1)))
    (bench.folder / "bare.py").write_text(TYPER)
    command = bench.told(OURS, small)
    environ = bench.environ(OURS)
    for _ in range(sizes.runs):
        measure.run(command, cwd=bench.place, output=bench.folder / "output", env=environ)
    for _ in range(bench.rounds * 3):
        bench.run("`--help`", BARE, [sys.executable, "../bare.py", "--help"])
        for tool in bench.tools:
            if tool.help:
                bench.run("`--help`", tool, tool.help)
        for work, words in STARTED.items():
            bench.run(work, BARE, [sys.executable, "../bare.py", "first"])
            bench.run(work, OURS, [OURS.help[0], *words])


def targets(bench: Bench, shell: Sequence[Work], python: Sequence[Work], put: Work) -> str:
    """What is to be reached, and whether it is, as far as it was measured."""
    one, many = shell[0], shell[min(2, len(shell) - 1)]

    def per_step(of: Callable[[str, str], float], tool: Tool, first: Work, last: Work) -> float:
        return (of(last.name, tool.name) - of(first.name, tool.name)) / (last.size - first.size)

    def over_bash_ms(of: Callable[[str, str], float]) -> float:
        return 1000 * (per_step(of, OURS, one, many) - per_step(of, BASH, one, many))

    def ratio(work: str, other: str) -> float:
        return bench.seconds(work, OURS.name) / bench.seconds(work, other)

    def python_step(tool: Tool) -> float:
        return per_step(bench.seconds, tool, python[0], python[-1])

    known: list[tuple[str, float, Callable[[], float]]] = [
        ("a shell step over bash, ms of CPU", 5.0, lambda: over_bash_ms(bench.cpu_s)),
        ("a shell step over bash, ms", 5.0, lambda: over_bash_ms(bench.seconds)),
        (f"{many.name}, of doit's", 1.0, lambda: ratio(many.name, "doit")),
        ("a python step, of one by `python -c` in bash", 1.5, lambda: python_step(OURS) / python_step(BASH)),
        ("`--help`, of a bare typer program's", 1.3, lambda: ratio("`--help`", BARE.name)),
        *((f"{work}, of a bare typer command that runs", 1.6, partial(ratio, work, BARE.name)) for work in STARTED),
        (f"{put.name}, of `openssl dgst -sha256` and `cp`", 1.2, lambda: ratio(put.name, BASH.name)),
        ("peak memory, MB", 80.0, lambda: max(bench.peak_mb(*key) for key in bench.costs if key[1] == OURS.name)),
    ]
    lines = ["| Target | At most | Measured | |", "|---|---:|---:|---|"]
    for name, most, measured in known:
        with suppress(KeyError):
            value = measured()
            lines.append(f"| {name} | {most:g} | {value:.2f} | {'reached' if value <= most else 'missed'} |")
    return "\n".join(lines)


def table(bench: Bench, works: Sequence[str]) -> str:
    """Seconds, CPU seconds and peak memory in markdown: a work a row, a tool a column."""
    tools = list(dict.fromkeys(tool for work, tool in bench.costs if work in works))
    lines = [f"| Seconds (CPU seconds, MB) | {' | '.join(tools)} |", f"|---|{'---:|' * len(tools)}"]
    for work in works:
        if not any((work, tool) in bench.costs for tool in tools):
            continue
        cells = [
            "fails"
            if (work, tool) in bench.failed
            else f"{bench.seconds(work, tool):.2f} ({bench.cpu_s(work, tool):.2f}, {bench.peak_mb(work, tool)})"
            if (work, tool) in bench.costs
            else ""
            for tool in tools
        ]
        lines.append(f"| {work} | {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(rounds: int) -> str:
    """Where and how it was measured."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB of memory, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; medians of {rounds} rounds."
    )


if __name__ == "__main__":
    main()
