"""What a killed process leaves of the temporary is where the next one sweeps, whatever the moment of the kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry

KILL_POINTS = Path(__file__).parent / "kill_points.py"
EACH = int(os.environ.get("KILL_PLACES", "4"))
"""One place in so many is taken, by chance; all of them by `--long`."""
SEED = int(os.environ.get("KILL_SEED", time.time_ns() % 1_000_000))
# Twenty small files make a pack; output on both streams makes an index; the last step fails, so that a retry has work.
PIPELINE = """
[steps.make]
run = "mkdir -p d; for i in $(seq 20); do echo $i > d/$i; done; echo out; echo err >&2"
catalog = { put = ["d"] }
[steps.lose]
run = "rm -r d; echo x=1 > $RUNNABLE_OUTPUT"
returns = ["x"]
[steps.take]
run = "cat d/1; echo err >&2; exit 3"
catalog = { get = ["d/1"] }
"""
LASTING = re.compile(
    r"\.gitignore|oci-layout|index\.json|index\.lock|store\.lock|workspace\.lock|writer|tmp|runs|blobs|blobs/sha256"
    r"|products\.jsonl|products\.lock|unfinished|blobs/sha256/[0-9a-f]{64}|seen|seen/[0-9a-f]{64}"
    r"|runs/[^/]+|runs/[^/]+/replaced(/.*)?"
    r"|runs/[^/]+/(journal\.jsonl|lock|processes|origin|writers\.json|publish\.lock|logs|logs/[a-z]+\.\d+\.(log|idx|reads))"
)


def is_temporary(name: str) -> bool:
    """Whether a name in a store is of what lasts no longer than an attempt."""
    return name.startswith(("tmp/", "unfinished/"))


def killed(project: Workspace, *words: str) -> list[dict[str, Any]]:
    """What there was after each kill of the commands; always the store reads, and only `tmp` has what is temporary."""
    print(f"KILL_SEED={SEED}, one place in {EACH}")
    done = subprocess.run(
        [sys.executable, KILL_POINTS, project.folder, *words],
        env={**project.environ, "KILL_PLACES": f"{EACH}:{SEED}"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    times: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["runs"] for one in times} == {0}, done.stderr
    for one in times:
        assert [name for name in one["names"] if not LASTING.fullmatch(name) and not is_temporary(name)] == []
    assert [name for name in times[-1]["names"] if is_temporary(name)] == []
    return times


def has_left_something(times: list[dict[str, Any]]) -> bool:
    """Whether some kill came while a temporary file was there, which a sample need not have."""
    return EACH > 1 or any(name.startswith("tmp/") for one in times for name in one["names"])


def test_a_run_or_a_retry_that_is_killed_before_any_change_in_the_store(tmp_path: Path) -> None:
    """What is temporary goes with the next command, whose run comes to its own end."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "d\n"})
    times = killed(project, "run", "--run-id", "killed-{}", "--", "retry", "latest")
    assert len(times) > 40 / EACH / 2
    assert has_left_something(times)
    assert [one["code"] for one in times if not one["place"]] == [1, 1]


def test_a_publish_or_a_pull_that_is_killed_before_any_change_in_the_store(tmp_path: Path) -> None:
    """A run that was being pulled is not listed before it is there, and the next pull has it."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "d\n"})
    project.runnable("run", "--run-id", "r", code=1)
    with registry(tmp_path / "registry") as served:
        assert killed(project, "publish", "r", "--to", f"{served.host}/o/r")[-1]["code"] == 0
        other = elsewhere(project, tmp_path)
        times = killed(other, "pull", f"{served.host}/o/r:r")
    assert len(times) > 20 / EACH / 2
    assert has_left_something(times)
    assert times[-1]["code"] == 0
    assert other.log("r").status == "FAIL"


IN_PLACE = """
[steps.add]
run = "echo more >> base.txt; mkdir -p made; echo $RANDOM > made/one.txt"
catalog = { put = ["base.txt", "made"] }
[steps.copy]
run = "cp base.txt copy.txt"
catalog = { put = ["copy.txt"] }
"""


@pytest.mark.promise
def test_a_retry_that_is_killed_before_any_change_loses_no_file_of_the_user(tmp_path: Path) -> None:
    """However often it is killed while it sets aside, copies, stores and undoes, the next one begins with the same."""
    project = workspace(tmp_path, {"runnable.toml": IN_PLACE, ".gitignore": "*.txt\nmade\n"})
    project.write({"base.txt": "base\n", "made/mine.txt": "mine\n"})
    project.runnable("run", "--run-id", "r")
    times = killed(project, "retry", "r", "--from", "add")
    assert len(times) > 30 / EACH / 2
    assert times[-1]["code"] == 0
    assert EACH > 1 or any("set_aside" in one["place"] or "step_products" in one["place"] for one in times)
    assert (project.read("base.txt"), project.read("copy.txt")) == ("base\nmore\n", "base\nmore\n")
    assert project.read("made/mine.txt") == "mine\n"
    last = project.log("r").steps["add"].data_catalog
    assert [(entry.name, entry.stage, entry.kept) for entry in last] == [
        ("base.txt", "get", True),
        ("base.txt", "put", False),
        ("made/one.txt", "put", False),
    ]
    assert {entry.size for entry in last if entry.kept} == {len("base\n")}
