"""The benchmarks still run, on small works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

pytestmark = pytest.mark.long("a benchmark is no part of the program")
ROOT = Path(__file__).parents[2]


def quick(name: str, folder: Path, *options: str | Path, timeout_s: int) -> str:
    """What a benchmark prints with `--quick`, with `folder` as its home and for its temporary files."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name, "--quick", *options],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(lines: Iterable[str]) -> list[list[str]]:
    """The cells of a table's lines."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_pipelines(tmp_path: Path) -> None:
    """`--quick` does every kind of work with both tools and prints the targets and a figure for each."""
    printed = quick("pipelines.py", tmp_path, "--cache", tmp_path / "cache", "--folder", tmp_path, timeout_s=120)
    measured = {row[0]: row[1:] for row in cells(line for line in printed.splitlines() if line.startswith("|"))}
    figures = r"\d+\.\d\d \(\d+\.\d\d, \d+\)"
    for work in (
        "chain of 1 shell steps",
        "chain of 5 shell steps",
        "chain of 3 python steps",
        "4 independent shell steps, two jobs",
        "4 MiB file put and got",
        "4 MiB file put",
        "40 files of 10 KiB put and got",
    ):
        assert len(measured[work]) == 2, printed
        assert all(re.fullmatch(figures, cell) for cell in measured[work]), printed
    for work in ("`run` of a shell step", "`runs`", "`retry` with nothing to do"):
        assert all(re.fullmatch(figures, cell) for cell in measured[work]), printed
        assert float(measured[f"{work}, of a bare typer command that runs"][1]) > 0
    assert measured["peak memory, MB"][2] in ("reached", "missed")
    assert not list(tmp_path.glob("pipelines-*"))


def test_transfer(tmp_path: Path) -> None:
    """`--quick` does every kind of transfer with each tool, and counts the requests of an unchanged publish."""
    printed = quick("transfer.py", tmp_path, "--folder", tmp_path, timeout_s=180)
    measured = {row[0]: row[1:] for row in cells(line for line in printed.splitlines() if line.startswith("|"))}
    assert measured["requests of an unchanged publish"] == ["3", "1", "reached"]
    assert measured["peak memory, MB"][2] == "reached"
    figures = r"\d+\.\d\d \(\d+, \d+\)"
    for work, tools in (
        ("push 4 MiB file", 4),
        ("pull 10 x 10 KiB", 4),
        ("publish one file changed of a run of 10 x 10 KiB", 2),
        ("pull 3 x 10 KiB at 40 ms", 4),
    ):
        given = [cell for cell in measured[work] if cell]
        assert len(given) == tools, printed
        assert all(re.fullmatch(figures, cell) for cell in given), printed
    assert not list(tmp_path.glob("transfer-*"))


def test_reuse(tmp_path: Path) -> None:
    """`--quick` finds the same results again in each way, and checks that no step ran for it but make's."""
    printed = quick("reuse.py", tmp_path, "--folder", tmp_path, timeout_s=180)
    rows = cells(line for line in printed.splitlines() if line.startswith("| 3 steps"))
    assert [row[0] for row in rows] == ["3 steps, found again", "3 steps, nothing to do", "3 steps, in a fresh clone"]
    assert all(re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d\)", row[1]) for row in rows), printed
    assert re.search(r"\| deciding on 3 steps \| -?\d\.\d\d \|", printed)
    assert list(tmp_path.glob("reuse-*")) == []


def test_live(tmp_path: Path) -> None:
    """`--quick` publishes each kind of run in each way, and says what more it took to do that as it goes."""
    printed = quick("live.py", tmp_path, "--folder", tmp_path, timeout_s=180)
    rows = cells(printed.splitlines()[2:5])
    assert [row[0] for row in rows] == [
        "2 steps of 1 s",
        "20 small steps",
        "a step with 2 MB of products, then 2 of 1 s",
    ]
    assert all(re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d\)", cell) for row in rows for cell in row[1:4]), printed
    assert all(re.fullmatch(r"[+-]\d+\.\d%", cell) for row in rows for cell in row[4:]), printed
    assert list(tmp_path.glob("live-*")) == []


def test_machine(tmp_path: Path) -> None:
    """What a run takes to find out on what machine it is can be measured."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "machine.py", "1"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    [row] = cells(done.stdout.splitlines()[2:])
    assert row[0] == "facts of the machine, a run", done.stderr
    assert float(row[2]) > 0


def test_redaction(tmp_path: Path) -> None:
    """`--quick` measures copying and a whole run, without redaction and with secrets of either kind."""
    printed = quick("redaction.py", tmp_path, timeout_s=180)
    rows = cells(printed.splitlines()[4:])
    assert [row[0] for row in rows] == ["none", "token formats", "and 1 secret", "and 5 secrets"]
    assert all(re.fullmatch(r"\d+\.\d\d", cell) for row in rows for cell in row[1:]), printed
    assert rows[0][2] == rows[0][4] == "1.00"
    assert list(tmp_path.glob("redaction-*")) == []


def test_containers(tmp_path: Path) -> None:
    """`--quick` compares steps in containers with podman by hand, in a storage that is gone afterwards."""
    printed = quick("containers.py", tmp_path, timeout_s=180)
    rows = cells(printed.splitlines()[2:])
    assert [row[0] for row in rows] == ["1 of `sleep 0`", "3 of `sleep 0`", "1 of `sleep 2`", "each further step"]
    assert all(re.fullmatch(r"\d+\.\d{2,3}", cell) for row in rows for cell in row[1:]), printed
    assert list(tmp_path.iterdir()) == []


def test_matrix(tmp_path: Path) -> None:
    """`--quick` compares a matrix with `xargs`, by the time and the CPU of whole processes."""
    printed = quick("matrix.py", tmp_path, timeout_s=60)
    rows = cells(printed.splitlines()[2:])
    assert [row[0] for row in rows] == ["seconds", "CPU"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])


def test_executors(tmp_path: Path) -> None:
    """`--quick` runs a chain and a matrix in each of the three ways; a chain has one worker."""
    printed = quick("executors.py", tmp_path, timeout_s=240)
    rows = cells(printed.splitlines()[2:])
    ways = ("local", "command", "slurm")
    assert [row[0] for row in rows] == [f"{it}, {way}" for it in ("in a chain", "of a matrix") for way in ways]
    assert [row[3] for row in rows[:3]] == ["0", "1", "1"]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
