"""`gc --evict` removes what a registry holds for sure, and nothing else; it comes back when it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import Workspace, workspace
from published_runs import opened
from registry_server import Reply, Seen, Served, registry, serving

from runnable_ci.runs.artifact import layers
from runnable_ci.runs.reader import load
from runnable_ci.store.local import Layout

PIPELINE = """
[steps.data]
run = 'head -c 400000 /dev/zero > data.bin; echo made >> made.txt'
catalog = { put = ["data.bin"] }
[steps.fit]
run = 'wc -c < data.bin; [ -e fixed ]'
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of its own, as content is taken out of it."""
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline whose second step fails."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": ".runnable/\ndata.bin\nmade.txt\nfixed\n"})


def published_run(project: Workspace, repository: str, run_id: str = "r") -> Layout:
    project.runnable("run", "--run-id", run_id, "--publish", "--to", repository, code=1)
    return Layout(project.folder / ".runnable")


def data_of(layout: Layout, run_id: str = "r") -> str:
    """The digest of the large file of a run."""
    (digest,) = [blob.digest for blob in layers(load(layout, run_id)).values() if blob.size == 400_000]
    return digest


@pytest.mark.promise
def test_content_leaves_the_store_and_comes_back(project: Workspace, served: Served) -> None:
    """The files of a published run go, which is said; its log stays, and a retry fetches what its steps read."""
    repository = served.repository()
    layout = published_run(project, repository)
    digest = data_of(layout)
    dry = project.runnable("gc", "--evict", "--dry-run")
    assert f"would evict r: its files are in {repository}\n" in dry.err
    assert digest in dict(layout.blobs())
    done = project.runnable("gc", "--evict")
    assert f"evicted r: its files are in {repository}\n" in done.err
    assert "freed 39" in done.err
    assert digest not in dict(layout.blobs())
    assert project.runnable("gc", "--evict").err.endswith("0 blobs; 1 run left\n")
    assert "data" in project.runnable("show", "r").out
    missing = project.runnable("catalog", "r", "--get", "data.bin", "--to", "got.bin", code=1)
    assert "downloads the whole run" in missing.err
    (project.folder / "data.bin").unlink()
    (project.folder / "fixed").touch()
    retried = project.runnable("retry", "r")
    assert f"fetched 390.6 KiB from {repository}" in retried.err
    assert (project.folder / "made.txt").read_text() == "made\n"
    assert (project.folder / "data.bin").stat().st_size == 400_000
    assert digest in dict(layout.blobs())


@pytest.mark.promise
def test_only_what_the_registry_holds_now_is_removed(project: Workspace, served: Served) -> None:
    """A run that was not published stays whole, and so does content that the registry has lost since, or hides."""
    repository = served.repository()
    layout = published_run(project, repository)
    project.write({"runnable.toml": PIPELINE.replace("400000", "500000")})
    project.runnable("run", "--run-id", "own", code=1)
    before = dict(layout.blobs())
    digest = data_of(layout)
    (lost,) = served.folder.rglob(f"sha256/{digest[7:9]}/{digest[7:]}/data")
    content = lost.read_bytes()
    lost.unlink()
    project.runnable("gc", "--evict")
    assert digest in dict(layout.blobs())
    lost.write_bytes(content)
    project.runnable("gc", "--evict")
    gone = before.keys() - dict(layout.blobs()).keys()
    assert digest in gone
    assert gone.isdisjoint(blob.digest for blob in layers(load(layout, "own")).values())


def test_a_registry_that_does_not_answer_keeps_the_content(project: Workspace, served: Served) -> None:
    """What is wrong is said of the run, and `gc` does its other work."""
    down = False

    def hook(_: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(403, {}, b'{"errors": [{"code": "DENIED"}]}') if down else forward()

    with serving(hook, upstream=served) as front:
        layout = published_run(project, front.repository())
        layout.put_bytes(b"of nobody", "text/plain")
        down = True
        done = project.runnable("gc", "--evict")
    assert "\nkept r: " in done.err
    assert data_of(layout) in dict(layout.blobs())
    assert ": 0 runs, 1 blob; 1 run left" in done.err


def test_an_evicted_run_is_published_and_pulled_again(project: Workspace, served: Served) -> None:
    """To publish it again nothing is missing; a pull brings all back."""
    repository = served.repository()
    layout = published_run(project, repository)
    project.runnable("gc", "--evict")
    assert project.runnable("publish", "r", "--to", repository).err == "already up to date\n"
    project.runnable("pull", "r")
    assert data_of(layout) in dict(layout.blobs())
    assert opened(repository).resolve("r").digest == layout.resolve("r").digest


def test_a_kill_at_any_change_loses_nothing(project: Workspace, served: Served) -> None:
    """Where content is, is noted before any of it goes."""
    layout = published_run(project, served.repository())
    digest = data_of(layout)
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "kill_points.py", project.folder, "gc", "--evict"],
        capture_output=True,
        text=True,
        timeout=120,
        env=project.environ,
    )
    assert done.returncode == 0, done.stderr
    times = [json.loads(line)["names"] for line in done.stdout.splitlines()]
    assert len(times) > 2
    assert all("runs/r/origin" in names for names in times if not any(digest[7:] in name for name in names))
    assert not any(re.search(digest[7:], name) for name in times[-1])
