"""`gc` removes what no kept run needs, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runnable_ci.runs import load, run_ids
from runnable_ci.store.layout import Layout

PIPELINE = """
[parameters]
text = "one"
[steps.shared]
run = "head -c 300000 /dev/zero > shared.bin"
catalog = { put = ["shared.bin"] }
[steps.own]
run = 'echo "$text" > own.txt'
catalog = { put = ["own.txt"] }
[steps.last]
run = '[ "$text" != bad ]'
"""


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program, run in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "runnable_ci", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three runs: `a` and `c` succeeded, `b` failed at its last step."""
    (tmp_path / "runnable.toml").write_text(PIPELINE)
    for run_id, text in (("a", "one"), ("b", "bad"), ("c", "three")):
        tool(tmp_path, "run", "--run-id", run_id, "--param", f"text={text}")
    return tmp_path


def test_nothing_is_removed_without_being_asked(project: Path) -> None:
    """Plain `gc` finds nothing loose after three runs, and removes content that no run holds."""
    layout = Layout(project / ".runnable")
    before = dict(layout.blobs())
    loose = layout.put_bytes(b"loose", "text/plain")
    (project / ".runnable" / "blobs" / "sha256" / ".0123.tmp").write_bytes(b"half")
    done = tool(project, "gc")
    assert done.returncode == 0, done.stderr
    assert loose.digest not in dict(layout.blobs())
    assert dict(layout.blobs()).keys() == before.keys()


def test_kept_runs_stay_whole_and_resumable(project: Path) -> None:
    """After `gc --keep 2` the oldest run is gone, the others read, verify and resume."""
    layout = Layout(project / ".runnable")
    done = tool(project, "gc", "--keep", "2")
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
    assert run_ids(layout) == ["b", "c"]
    assert load(layout, "c").status == "SUCCESS"
    (project / "shared.bin").unlink()
    (project / "own.txt").unlink()
    resumed = tool(project, "retry", "b", "--param", "text=good")
    assert resumed.returncode == 0, resumed.stderr
    assert (project / "shared.bin").stat().st_size == 300000
    assert tool(project, "catalog", "c", "--get", "own.txt", "--to", "c.txt").returncode == 0
    assert (project / "c.txt").read_text() == "three\n"


def test_a_dry_run_removes_nothing(project: Path) -> None:
    """`gc --dry-run` names the runs that would go and leaves all content."""
    layout = Layout(project / ".runnable")
    before = sorted(layout.blobs())
    done = tool(project, "gc", "--keep", "0", "--dry-run")
    assert done.stdout.split() == ["a", "b", "c"]
    assert re.fullmatch(r"would free .*: 3 runs, \d+ blobs; 0 runs left\n", done.stderr)
    assert re.search(r": 2 runs, \d+ blobs?; 1 run left\n", tool(project, "gc", "--keep", "1", "-n").stderr)
    assert sorted(layout.blobs()) == before


def test_age_protects_the_young(project: Path) -> None:
    """`--older-than 1h` removes none of the runs that were just made; a word that is no age is an error."""
    assert tool(project, "gc", "--keep", "0", "--older-than", "1h").stdout == ""
    wrong = tool(project, "gc", "--older-than", "soon")
    assert wrong.returncode == 2
    assert "12h, 30d or 8w" in wrong.stderr


def test_everything_can_go(project: Path) -> None:
    """`gc --keep 0` leaves an empty store that runs again."""
    assert tool(project, "gc", "--keep", "0").returncode == 0
    assert list(Layout(project / ".runnable").blobs()) == []
    assert tool(project, "run", "--run-id", "d").returncode == 0


def test_a_store_that_is_being_written_is_left_alone(project: Path) -> None:
    """While a run is going on `gc` refuses, and the run ends well."""
    (project / "runnable.toml").write_text(
        "[steps.wait]\nrun = 'touch started; while [ ! -e go ]; do sleep 0.02; done'\n"
    )
    running = subprocess.Popen([sys.executable, "-m", "runnable_ci", "run", "--run-id", "w"], cwd=project)
    try:
        while not (project / "started").exists():
            time.sleep(0.02)
        refused = tool(project, "gc", "--keep", "0")
        assert refused.returncode == 1
        assert "a run is being written" in refused.stderr
    finally:
        (project / "go").touch()
        assert running.wait(timeout=30) == 0
    assert os.listdir(project / ".runnable" / "runs")  # noqa: PTH208
