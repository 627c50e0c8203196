"""Tests of large inputs: hashed beside the next steps, as they were when the step that read them ended."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

from runnable_ci.engine.provenance.pending_reads import NOT_HASHED, Hashing, KeptReads, PendingReads
from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.observe.reads import FileRead, ReadSet
from runnable_ci.runs.files.workspace import UnhashedFile
from runnable_ci.runs.files.workspace import Workspace as Files
from runnable_ci.runs.reader import catalog_of
from runnable_ci.store.local import Layout
from runnable_ci.util.threads import start

GIB = 1024**3
READ = "head -c 10 big > /dev/null; cat small"


def project_with(tmp_path: Path, then: str, size: int) -> Workspace:
    """A project whose first step reads a file of that many zeros, and whose second step does something."""
    steps = f"[steps.a]\nrun = '{READ}'\n[steps.b]\nneeds = ['a']\nrun = '''{then}'''\n"
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "big\n", "small": "1"})
    (project.folder / "big").touch()
    os.truncate(project.folder / "big", size)
    return project


def plan(project: Workspace) -> dict[str, list[str]]:
    """Step → action and reason of a retry."""
    lines = project.runnable("retry", "latest", "--dry-run").out.splitlines()
    return {words[0]: words[1:] for words in (line.split(maxsplit=2) for line in lines)}


def test_the_next_step_does_not_wait(tmp_path: Path) -> None:
    """While a large file is hashed the next step runs; the record has its digest in the end, and a retry reuses."""
    project = project_with(tmp_path, "! ls .runnable/runs/*/*/a.1.reads && exit 3", GIB // 2)
    project.runnable("run", code=1)
    log = project.log()
    assert log.steps["b"].attempts[-1].exit_code == 3
    attempt = log.steps["a"].attempts[-1]
    found = reads_of(catalog_of(Layout(project.store), log), "a.1", attempt)
    assert found is not None
    zeros = hashlib.sha256()
    for _ in range(512):
        zeros.update(bytes(1024**2))
    assert found.files["big"] == FileRead(digest=zeros.hexdigest())
    assert (attempt.not_seen, set(found.files)) == ("", {"big", "small"})
    assert plan(project)["a"][0] == "reuse"


def test_killed_before_all_was_hashed(tmp_path: Path) -> None:
    """A finished step stays finished: it is reused if nothing changed, and runs again if anything did."""
    project = project_with(tmp_path, "kill -9 $PPID", 8 * GIB)
    project.runnable("run", code=-9)
    attempt = project.log().steps["a"].attempts[-1]
    assert (attempt.status, attempt.reads, attempt.not_seen) == ("SUCCESS", "", NOT_HASHED)
    assert plan(project)["a"][0] == "reuse"
    project.write({"small": "2"})
    action, reason = plan(project)["a"]
    assert (action, NOT_HASHED in reason, "small" in reason) == ("run", True, True)


def test_cancelled_before_all_was_hashed(tmp_path: Path) -> None:
    """What would take long is not waited for when the run is cancelled; it is sealed, and says what was not seen."""
    project = project_with(tmp_path, "kill -INT $PPID; sleep 60", 64 * GIB)
    project.runnable("run", code=130)
    assert project.log().outcome == "cancelled"
    assert project.log().steps["a"].attempts[-1].not_seen == NOT_HASHED


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A workspace with a file of two mebibytes that is older than a moment."""
    (tmp_path / "big").write_bytes(bytes(2 * 1024**2))
    while time.time_ns() - (tmp_path / "big").stat().st_ctime_ns < 60_000_000:
        time.sleep(0.01)
    return Files(tmp_path)


@pytest.mark.parametrize("change", ["none", "append", "same size", "replace", "remove"])
def test_a_file_that_changes_before_it_is_hashed(files: Files, change: str) -> None:
    """What was read is known only if nothing has touched the file since, whatever time it says it has."""
    path = files.path / "big"
    before = path.stat()
    opened = files.open_unhashed("big", since_ns=time.time_ns())
    assert opened is not None
    match change:
        case "append":
            path.write_bytes(bytes(2 * 1024**2 + 1))
        case "same size":
            path.write_bytes(b"1" * 2 * 1024**2)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "replace":
            (files.path / "new").write_bytes(path.read_bytes())
            (files.path / "new").replace(path)
        case "remove":
            path.unlink()
    expected = hashlib.sha256(bytes(2 * 1024**2)).hexdigest() if change == "none" else None
    assert files.hash_opened(opened) == expected
    assert opened.file.closed


def test_what_is_hashed_at_once(files: Files, tmp_path: Path) -> None:
    """Small files, known ones, and those whose times could not tell of a change: they are not put off."""
    (tmp_path / "small").write_bytes(b"1")
    assert files.open_unhashed("small", since_ns=time.time_ns()) is None
    assert files.open_unhashed("absent", since_ns=time.time_ns()) is None
    assert files.open_unhashed("big", since_ns=(tmp_path / "big").stat().st_ctime_ns - 1) is None
    files.hash_of("big")
    assert files.open_unhashed("big", since_ns=time.time_ns()) is None
    (tmp_path / "big").write_bytes(bytes(3 * 1024**2))
    assert files.open_unhashed("big", since_ns=time.time_ns()) is None


def test_a_step_waits_that_declares_such_a_file(files: Files) -> None:
    """A step that gets or puts a file which is being hashed starts once that is done; another one does not wait."""
    opened = files.open_unhashed("big", since_ns=time.time_ns())
    assert opened is not None
    told: list[Any] = []
    gate = threading.Event()

    def hash_opened(unhashed: UnhashedFile) -> str:
        gate.wait()
        unhashed.file.close()
        return "d" * 64

    reads = ReadSet(files={"big": FileRead(digest="")})
    pending = PendingReads(reads, {"big": opened}, hash_opened, lambda found: KeptReads(found.files["big"].digest))
    hashing = Hashing(lambda step, kept: told.append((step, kept)), lambda: False)
    hashing.begin("a", pending)
    hashing.before(["other/*"])()
    assert (told, hashing.is_over()) == ([], False)
    waiting = start(hashing.before(["b*"]), name="waits")
    assert waiting is not None
    waiting.join(0.05)
    assert waiting.is_alive()
    gate.set()
    waiting.join()
    assert told == [("a", KeptReads("d" * 64))]
    hashing.end("a")
    assert hashing.is_over()


@pytest.mark.parametrize("refused", ["1-", "2-", "3-", "4-"])
def test_without_threads(tmp_path: Path, refused: str) -> None:
    """Where the system has no thread for it, nothing fails: a step, or the hashing, is then done by the main thread."""
    project = project_with(tmp_path, "true", GIB // 8)
    project.with_threads(refused, "run")
    attempt = project.log().steps["a"].attempts[-1]
    assert (attempt.reads != "", attempt.not_seen) == (True, "")
