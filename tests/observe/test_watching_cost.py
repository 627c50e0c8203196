"""What watching costs, by its growth: counts of system calls."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import environment


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict[str, int]]:
    """Steps and folders of a run → how often it watched a folder, listed one, and looked what had happened by then."""
    return {size: calls(tmp_path_factory.mktemp("work"), *size) for size in ((2, 10), (2, 40), (12, 10))}


def calls(folder: Path, steps: int, folders: int) -> dict[str, int]:
    """Trace a run of steps that do nothing."""
    work, trace = folder / "work", folder / "trace"
    for number in range(folders):
        (work / f"d{number}").mkdir(parents=True)
        (work / f"d{number}" / "file").touch()
    (work / "runnable.toml").write_text("".join(f"[steps.s{n}]\nrun = 'true'\n" for n in range(steps)))
    traced = ["strace", "-f", "-qq", "-e", "trace=inotify_add_watch,openat", "-o", str(trace)]
    command = [*traced, sys.executable, "-m", "runnable_ci", "run", "-q", "-j", "1"]
    subprocess.run(command, cwd=work, env=environment(folder), check=True, capture_output=True)
    lines = trace.read_text(errors="replace").splitlines()
    patterns = {"watched": r"inotify_add_watch\(", "listed": r'openat\(.*/work/d\d+"', "looked": r'openat\(.*/canary"'}
    return {name: sum(bool(re.search(pattern, line)) for line in lines) for name, pattern in patterns.items()}


def test_a_folder_is_watched_once(counted: dict[tuple[int, int], dict[str, int]]) -> None:
    """A run adds a watch for each folder, whose names it reads once, and two more: its own, and the workspace's."""
    assert {folders: counted[2, folders]["watched"] for folders in (10, 40)} == {10: 12, 40: 42}
    assert {folders: counted[2, folders]["listed"] for folders in (10, 40)} == {10: 10, 40: 40}


def test_a_step_adds_no_watch(counted: dict[tuple[int, int], dict[str, int]]) -> None:
    """More steps watch and list no folder again: each looks twice what has happened, before and after its process."""
    few, many = counted[2, 10], counted[12, 10]
    assert (many["watched"], many["listed"]) == (few["watched"], few["listed"])
    assert many["looked"] - few["looked"] == 2 * 10
