"""Results found again, by us, DVC and make, in one run: `python benchmarks/reuse.py [--quick]`. Prints markdown.

The same chain of small steps, each of which reads a file of its own and the product of the one before. Found again: git
checks out another branch whose results are known, and all of them are taken from an earlier run, by DVC from its run
cache; make knows times only and runs them all. In a fresh clone: they come from a docker-registry, by DVC from a remote
in a folder of the same disk. Nothing to do: a second time at once. Whole processes, in turn within each round; figures
are medians, ratios medians of the rounds' own; what takes DVC more than three seconds is measured once.
At last the same steps are decided on through a proxy that adds 40 ms to each round trip. Needs git, make and
docker-registry; DVC is installed under `.cache/benchmarks`. On a machine that does other work too, `--first` (as root,
on Linux) lets what is measured go before it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import measure
from pipelines import AUTHOR, ROOT, SLOW_S
from tools import OTHERS, OURS, install
from transfer import ROUND_TRIP_S, delaying, serving
from transfer import Bench as Registry

DVC = next(tool for tool in OTHERS if tool.name == "DVC")
PROGRAM = OURS.help[0]
AGAIN, CLONE, NOTHING = "found again", "in a fresh clone", "nothing to do"
IGNORED = ("out/", ".runnable/", ".dvc/cache", ".dvc/tmp")
BRANCHES = ("main", "other")


@dataclass
class Comparison:
    """A folder for everything, and what was measured."""

    folder: Path
    registry: Registry
    programs: Mapping[str, str]
    """Tool → the folder of its programs."""
    costs: dict[tuple[str, str], list[measure.Cost]] = field(default_factory=dict)

    def environ(self, tool: str) -> dict[str, str]:
        """Nothing of the user's."""
        (self.folder / "home").mkdir(exist_ok=True)
        path = (
            os.pathsep.join([self.programs[tool], os.environ["PATH"]]) if tool in self.programs else os.environ["PATH"]
        )
        return {"PATH": path, "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}

    def run(
        self, tool: str, command: Sequence[str], place: Path, *, work: str = "", more: Mapping[str, str] | None = None
    ) -> measure.Cost:
        """Run a command of a tool, and keep its cost where it is of a work."""
        environ = {**self.environ(tool), **(more or {})}
        program = shutil.which(command[0], path=environ["PATH"]) or command[0]
        cost = measure.run([program, *command[1:]], cwd=place, output=self.folder / "output", env=environ)
        if work:
            self.costs.setdefault((work, tool), []).append(cost)
            print(f"{work}: {tool} {cost.seconds:.2f} s, {cost.cpu_s:.2f} s of CPU", file=sys.stderr)
        return cost

    def is_slow(self, tool: str, work: str) -> bool:
        """Return whether a tool took so long for a work that once is enough."""
        return any(cost.seconds > SLOW_S for cost in self.costs.get((work, tool), []))

    def git(self, place: Path, *words: str) -> None:
        """Let git do something that is not measured."""
        subprocess.run(["git", *AUTHOR, *words], cwd=place, env=self.environ("git"), check=True)

    def ran(self) -> int:
        """Return how many steps ran since that was asked last, of whatever tool."""
        found = list((self.folder / "ran").iterdir())
        for path in found:
            path.unlink()
        return len(found)


@dataclass(frozen=True)
class Way:
    """How a tool is told the work, and does it."""

    tool: str
    tell: Callable[[Path, int], None]
    """Write the steps into a folder."""
    again: tuple[str, ...]
    nothing: tuple[str, ...]
    clone: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    """What publishes too what it makes."""


def _commands(steps: int) -> list[tuple[str, list[str], str]]:
    """Return the command, the inputs and the product of each step."""
    found = []
    for number in range(steps):
        inputs = [f"in/{number}", *([f"out/{number - 1}"] if number else [])]
        command = f"true > ../ran/$$; cat {' '.join(inputs)} | sha256sum > out/{number}"
        found.append((command, inputs, f"out/{number}"))
    return found


def _tell_us(folder: Path, steps: int) -> None:
    lines = ['name = "work"', 'reuse = "any-run"']
    for number, (command, inputs, product) in enumerate(_commands(steps)):
        lines += [f"[steps.s{number}]", f"run = {json.dumps(command)}", f"catalog.put = {json.dumps([product])}"]
        lines += (
            [f"catalog.get = {json.dumps([inputs[1]])}", f'needs = ["s{number - 1}"]'] if number else ["needs = []"]
        )
    (folder / "runnable.toml").write_text("\n".join(lines) + "\n")


def _tell_dvc(folder: Path, steps: int) -> None:
    stages = {
        f"s{number}": {"cmd": command, "deps": inputs, "outs": [product]}
        for number, (command, inputs, product) in enumerate(_commands(steps))
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".dvc").mkdir()
    config = f"[core]\nanalytics = false\nremote = there\n['remote \"there\"']\nurl = {folder.parent / 'dvc-remote'}\n"
    (folder / ".dvc" / "config").write_text(config)


def _tell_make(folder: Path, steps: int) -> None:
    rules = []
    for command, inputs, product in _commands(steps):
        escaped = command.replace("$", "$$")
        rules.append(f"{product}: {' '.join(inputs)}\n\t{escaped}\n")
    (folder / "Makefile").write_text(f"all: out/{steps - 1}\n{''.join(rules)}")


WAYS = (
    Way(
        OURS.name,
        _tell_us,
        again=(PROGRAM, "run", "-q", "-j", "1"),
        nothing=(PROGRAM, "retry", "latest", "-q"),
        clone=(PROGRAM, "run", "-q", "-j", "1"),
        first=(PROGRAM, "run", "-q", "-j", "1", "--publish"),
    ),
    Way(
        DVC.name,
        _tell_dvc,
        again=("dvc", "repro", "--quiet"),
        nothing=("dvc", "repro", "--quiet"),
        clone=("sh", "-c", "dvc fetch --run-cache --quiet && dvc repro --pull --quiet"),
        first=("sh", "-c", "dvc repro --quiet && dvc push --run-cache --quiet"),
    ),
    Way("make", _tell_make, again=("make", "-s"), nothing=("make", "-s")),
)


def prepare(bench: Comparison, way: Way, steps: int, repository: str) -> Path:
    """Return a repository with two branches that differ in what the first step reads.

    All was made of both once, and published where the tool can do that.
    """
    place = bench.folder / f"{way.tool}-{steps}"
    for name in ("in", "out"):
        (place / name).mkdir(parents=True)
    (place / "out" / ".gitkeep").touch()
    for number in range(steps):
        (place / "in" / str(number)).write_text(f"{number}\n")
    (place / ".gitignore").write_text("\n".join(IGNORED) + "\n")
    way.tell(place, steps)
    bench.git(place, "init", "-q")
    bench.git(place, "add", "-f", "out/.gitkeep")
    bench.git(place, "add", ".")
    bench.git(place, "commit", "-qm", "main")
    bench.git(place, "switch", "-qc", "other")
    (place / "in" / "0").write_text("another\n")
    bench.git(place, "commit", "-qam", "other")
    for branch in BRANCHES:
        bench.git(place, "switch", "-q", branch)
        bench.run(way.tool, way.first or way.again, place, more={"RUNNABLE_CI_REGISTRY": repository})
    return place


def products(place: Path, steps: int) -> list[str]:
    """Return what all steps made."""
    return [(place / "out" / str(number)).read_text() for number in range(steps)]


def require(way: Way, ran: int, expected: int) -> None:
    """End the benchmark where a tool ran other steps than it should: it would measure something else."""
    if ran != expected:
        raise SystemExit(f"{way.tool} ran {ran} steps, not {expected}")


def compare(bench: Comparison, places: Mapping[Way, Path], steps: int, rounds: int) -> None:
    """Measure what is found again after a checkout, and where nothing is to be done; in each way the same comes out."""
    made: dict[str, list[str]] = {}
    for number in range(rounds):
        branch = BRANCHES[number % 2]
        for way, place in places.items():
            if bench.is_slow(way.tool, f"{steps} steps, {AGAIN}"):
                continue
            bench.git(place, "switch", "-q", BRANCHES[(number + 1) % 2])
            bench.run(way.tool, way.again, place)
            bench.git(place, "switch", "-q", branch)
            bench.ran()
            bench.run(way.tool, way.again, place, work=f"{steps} steps, {AGAIN}")
            require(way, bench.ran(), 0 if way.clone else steps)
            if made.setdefault(branch, products(place, steps)) != products(place, steps):
                raise SystemExit(f"{way.tool} left other products on {branch} than the first one did")
            bench.run(way.tool, way.nothing, place, work=f"{steps} steps, {NOTHING}")
            require(way, bench.ran(), 0)


def compare_clones(bench: Comparison, places: Mapping[Way, Path], repository: str, steps: int, rounds: int) -> None:
    """Measure the same in fresh clones, from where the results were published, and decisions from afar."""
    registry = {"RUNNABLE_CI_REGISTRY": repository}
    origins = {way: place for way, place in places.items() if way.clone}
    for number in range(rounds):
        for way, place in origins.items():
            if bench.is_slow(way.tool, f"{steps} steps, {CLONE}"):
                continue
            clone = bench.folder / f"clone-{way.tool}-{steps}-{number}"
            bench.git(bench.folder, "clone", "-q", "--branch", "main", str(place), str(clone))
            bench.ran()
            bench.run(way.tool, way.clone, clone, work=f"{steps} steps, {CLONE}", more=registry)
            require(way, bench.ran(), 0)
    with delaying(bench.registry.host) as host:
        far = f"{host}/{repository.partition('/')[2]}"
        for number in range(rounds):
            place = bench.folder / f"far-{steps}-{number}"
            bench.git(bench.folder, "clone", "-q", "--branch", "main", str(origins[WAYS[0]]), str(place))
            for where, words in (("here", {}), ("far", {"RUNNABLE_CI_REGISTRY": far})):
                cost = bench.run(OURS.name, [PROGRAM, "run", "-n", "-q"], place, more=words)
                bench.costs.setdefault((f"{steps} decided on", where), []).append(cost)


def ratios(bench: Comparison, work: str, other: str) -> tuple[float, float]:
    """Return our time and CPU time, of another's: the medians of the ratios of rounds in which both did the work."""
    pairs = list(zip(bench.costs[work, OURS.name], bench.costs[work, other], strict=False))
    return median(a.seconds / b.seconds for a, b in pairs), median(a.cpu_s / b.cpu_s for a, b in pairs)


def table(bench: Comparison, tools: Sequence[str]) -> str:
    """Return seconds and CPU seconds in markdown, and ours of DVC's."""
    lines = [f"| Seconds (CPU seconds) | {' | '.join(tools)} | of DVC's |", f"|---|{'---:|' * (len(tools) + 1)}"]
    for work in dict.fromkeys(work for work, tool in bench.costs if tool in tools):
        cells = [_cell(bench.costs.get((work, tool), [])) for tool in tools]
        compared = (work, DVC.name) in bench.costs
        ratio = "{:.2f} ({:.2f})".format(*ratios(bench, work, DVC.name)) if compared else ""
        lines.append(f"| {work} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines)


def _cell(costs: Sequence[measure.Cost]) -> str:
    if not costs:
        return ""
    return f"{median(one.seconds for one in costs):.2f} ({median(one.cpu_s for one in costs):.2f})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, once, without DVC")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first", action="store_true", help="go before all other processes (SCHED_RR)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="where the others live")
    parser.add_argument("--folder", type=Path, help="where to work; on a disk, not in memory")
    options = parser.parse_args()
    if options.first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    sizes, rounds = ((3,), 1) if options.quick else ((10, 100), options.rounds)
    ways = [way for way in WAYS if not options.quick or way.tool != DVC.name]
    programs = {} if options.quick else {DVC.name: str(install(DVC, options.cache))}
    with (
        tempfile.TemporaryDirectory(prefix="reuse-", dir=options.folder) as name,
        serving(Path(name)) as registry,
    ):
        (Path(name) / "ran").mkdir()
        bench = Comparison(Path(name), registry, programs)
        for steps in sizes:
            repository = registry.repository()
            places = {way: prepare(bench, way, steps, repository) for way in ways}
            compare(bench, places, steps, rounds)
            compare_clones(bench, places, repository, steps, rounds)
        print(f"{table(bench, [way.tool for way in ways])}\n")
        print(f"| {ROUND_TRIP_S * 1000:.0f} ms round trip | more seconds |\n|---|---:|")
        for steps in sizes:
            near, far = (bench.costs[f"{steps} decided on", where] for where in ("here", "far"))
            more = median(b.seconds - a.seconds for a, b in zip(near, far, strict=True))
            print(f"| deciding on {steps} steps | {more:.2f} |")


if __name__ == "__main__":
    main()
