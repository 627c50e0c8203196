"""`gc` removes what no kept run needs, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import leftovers, python

from runnable_ci.runs.reader import load, run_ids
from runnable_ci.store.local import Layout

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
    done = tool(project, "gc")
    assert done.returncode == 0, done.stderr
    assert loose.digest not in dict(layout.blobs())
    assert dict(layout.blobs()).keys() == before.keys()


def test_only_files_that_a_digest_names_are_content(project: Path) -> None:
    """What else stands among the blobs, and whatever its name, is none of the tool's to remove."""
    folder = project / ".runnable" / "blobs" / "sha256"
    victim = project / "thesis.tex"
    victim.write_text("dear")
    (folder / "thesis.tex").write_text("dear")
    (folder / ("a" * 63)).write_text("short")
    (folder / ("A" * 64)).write_text("capital")
    (folder / ("b" * 64)).symlink_to(victim)
    (folder / ("c" * 64)).mkdir()
    os.mkfifo(folder / ("d" * 64))
    (folder / ("e" * 64)).write_text("loose")
    kept = {path.name for path in folder.iterdir() if path.is_symlink() or not path.is_file() or len(path.name) != 64}
    done = tool(project, "gc", "--keep", "0")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == kept | {"A" * 64}
    assert victim.read_text() == "dear"


@pytest.mark.parametrize("run_id", ["../../victim", "..", "/victim", "a/b"])
def test_a_name_that_leads_elsewhere_is_no_run(run_id: str, project: Path) -> None:
    """A tag of the index that could not be a run's folder stops `gc` before it removes anything."""
    victim = project / "victim"
    victim.mkdir()
    (victim / "file").touch()
    path = project / ".runnable" / "index.json"
    index = json.loads(path.read_text())
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = run_id
    path.write_text(json.dumps(index))
    before = sorted(Layout(project / ".runnable").blobs())
    done = tool(project, "gc", "--keep", "0")
    assert done.returncode == 1
    assert "is not a run id" in done.stderr
    assert (victim / "file").exists()
    assert sorted(Layout(project / ".runnable").blobs()) == before


def test_the_store_is_named_first(project: Path) -> None:
    """Whoever is in the wrong folder sees whose runs would go before they do."""
    for words in (["-n"], ["--keep", "0"]):
        assert tool(project, "gc", *words).stderr.startswith(f"store: {project / '.runnable'}\n")


def test_the_index_is_written_once_however_many_runs_go(project: Path) -> None:
    """Removing runs costs one change of the index, not one a run."""
    code = (
        "import os, sys; from pathlib import Path; from runnable_ci.cli.cleanup import gc\n"
        "from runnable_ci.store.local import Layout\n"
        "def watch(event, words):\n"
        "    if event == 'os.rename' and os.fsdecode(words[1]).endswith('index.json'): print('written')\n"
        "    if event == 'open' and str(words[0]).endswith('index.json'): print('read')\n"
        "sys.addaudithook(watch)\n"
        "gc(Layout(Path('.runnable')), keep=int(sys.argv[1]), older_than=None, dry_run=False)"
    )

    def touched(keep: str) -> tuple[int, int]:
        done = python(code, keep, cwd=project)
        assert done.returncode == 0, done.stderr
        return done.stdout.count("read"), done.stdout.count("written")

    reads, writes = touched("2")
    assert writes == 1
    assert touched("0") == (reads, 1)


@pytest.mark.promise
def test_a_kill_at_any_change_leaves_runs_that_read(project: Path) -> None:
    """A run is there as a whole or gone, and what is left of it is swept."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "kill_points.py", project, "gc", "--keep", "1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    times = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(times) > 5
    for time_ in times:
        folders = {name for name in time_["names"] if re.fullmatch("runs/[a-z]", name)}
        assert {f"{folder}/journal.jsonl" for folder in folders} <= set(time_["names"])
    layout = Layout(project / ".runnable")
    assert run_ids(layout) == ["c"]
    layout.sweep()
    assert leftovers(project) == []
    assert [load(layout, "c").status, len(list((project / ".runnable" / "runs").iterdir()))] == ["SUCCESS", 1]


@pytest.mark.promise
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
    assert re.fullmatch(r"store: .*\nwould free .*: 3 runs, \d+ blobs, 4 files set aside; 0 runs left\n", done.stderr)
    planned = tool(project, "gc", "--keep", "1", "-n").stderr
    assert re.search(r": 2 runs, \d+ blobs?, 4 files set aside; 1 run left\n", planned)
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
        assert "a run is in progress" in refused.stderr
    finally:
        (project / "go").touch()
        assert running.wait(timeout=30) == 0
    assert os.listdir(project / ".runnable" / "runs")  # noqa: PTH208


def test_what_was_set_aside_goes_with_its_content(project: Path) -> None:
    """A copy of what a kept run holds, or of what a removed run made, goes; what only a person has stays."""
    (project / "own.txt").write_text("mine\n")
    assert tool(project, "run", "--run-id", "d", "--param", "text=four").returncode == 0
    places = {name: project / ".runnable/runs" / name / "replaced/1" for name in "bcd"}
    assert (places["d"] / "own/own.txt").read_text() == "mine\n"
    assert (places["d"] / "shared/shared.bin").stat().st_size == 300_000
    killed = project / ".runnable/unfinished/a.own.1"
    killed.mkdir(parents=True)
    (killed / "0").write_text("0")
    planned = tool(project, "gc", "--keep", "2", "--dry-run").stderr
    assert killed.exists()
    done = tool(project, "gc", "--keep", "2").stderr
    assert planned.replace("would free", "freed") == done
    assert re.search(r"freed 9[01]\d\.\d KiB: 2 runs, \d+ blobs, 6 files set aside; 2 runs left", done)
    left = [path for path in (project / ".runnable/runs").rglob("replaced/**/*") if path.is_file()]
    assert left == [places["d"] / "own/own.txt"]
    assert not killed.exists()
    assert not places["c"].exists()
    assert ", 0 blobs; 2 runs left" in tool(project, "gc").stderr
