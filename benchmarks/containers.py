"""Steps in containers beside `podman run` by hand: `python benchmarks/containers.py [--quick]`. Prints markdown.

Both run the same image with the workspace mounted, in turns, in a pipeline of so many steps and in a loop of as many
commands; figures are medians of whole processes, and of what a further step takes. Needs podman, runc and
busybox-static; the image is built in a storage of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from podman import IMAGE, podman_with_image

PROGRAM = (sys.executable, "-m", "runnable_ci", "run")


def by_hand(folder: Path, steps: int, seconds: str) -> list[str]:
    """Return the command that does the same by hand."""
    words = f"podman run --rm --log-driver none --volume {folder}:{folder} --workdir {folder} {IMAGE} sh -c"
    return ["sh", "-c", "\n".join([f"{words} 'sleep {seconds}'"] * steps)]


def pipeline(steps: int, seconds: str) -> str:
    """Return a pipeline of steps that each need the one before."""
    return "".join(f"[steps.s{number}]\ncontainer = '{IMAGE}'\nrun = 'sleep {seconds}'\n" for number in range(steps))


def compare(folder: Path, environ: dict[str, str], steps: int, seconds: str, rounds: int) -> tuple[float, float]:
    """Return the median seconds of both, by hand first."""
    (folder / "runnable.toml").write_text(pipeline(steps, seconds))
    output = folder.parent / "output"
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        found[0].append(measure.run(by_hand(folder, steps, seconds), cwd=folder, output=output, env=environ).seconds)
        found[1].append(measure.run(PROGRAM, cwd=folder, output=output, env=environ).seconds)
    return median(found[0]), median(found[1])


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once, and few steps")
    is_quick = parser.parse_args().quick
    few, many, rounds = (1, 3, 1) if is_quick else (1, 11, 3)
    with tempfile.TemporaryDirectory() as place, podman_with_image() as podman:
        folder = Path(place) / "project"
        folder.mkdir()
        (folder / ".gitignore").write_text(".runnable\n")
        environ = {**os.environ, **podman.environ, "RUNNABLE_CI_CONTAINER_ENGINE": "podman"}
        measure.run(["git", "init", "-q"], cwd=folder, output=Path(place) / "output")
        print("| steps | podman by hand (s) | runnable-ci (s) | ratio |\n| --- | --- | --- | --- |")
        totals = {}
        for steps, seconds in ((few, "0"), (many, "0"), (few, "2")):
            hand, ours = totals[steps, seconds] = compare(folder, environ, steps, seconds, rounds)
            what = f"{steps} of `sleep {seconds}`"
            print(f"| {what} | {hand:.2f} | {ours:.2f} | {ours / hand:.2f} |")
        hand, ours = ((totals[many, "0"][side] - totals[few, "0"][side]) / (many - few) for side in (0, 1))
        print(f"| each further step | {hand:.3f} | {ours:.3f} | {ours / hand:.2f} |")


if __name__ == "__main__":
    main()
