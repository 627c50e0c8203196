"""What steps read travels with the run: another machine decides by it, before any file of the run is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import Served, registry
from support import blobs

from runnable_ci.runs.model import RunLog

IGNORED = ".runnable/\n*.bin\n__pycache__/\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def pipeline(steps: int) -> dict[str, str]:
    """A project of steps that read a table each and make a file, of a python step, and of a step that fails."""
    lines = []
    files = {"rules.py": "def count():\n    return len(open('words.txt').read())\n", "words.txt": "five"}
    for number in range(steps):
        lines.append(f"[steps.s{number}]\nneeds = []\nrun = 'cat tables/{number}.csv > {number}.bin'")
        lines.append(f"catalog = {{ put = ['{number}.bin'] }}")
        files[f"tables/{number}.csv"] = f"{number}\n"
    lines.append("[steps.count]\nneeds = []\npython = 'rules:count'\nreturns = ['length']")
    lines.append("[steps.last]\nneeds = []\nrun = 'exit 3'")
    return {**files, "runnable.toml": "\n".join(lines), ".gitignore": IGNORED}


def plan_of(project: Workspace, *arguments: str) -> dict[str, str]:
    """Step → what a retry would do with it, and why."""
    lines = project.runnable("retry", *arguments, "--dry-run").out.splitlines()
    return {name: f"{action} {reason}" for name, action, reason in (line.split(maxsplit=2) for line in lines)}


def reads_of(log: RunLog) -> set[str]:
    """The sha256 of all records of reads."""
    return {attempt.reads for step in log.steps.values() for attempt in step.attempts if attempt.reads}


@pytest.mark.parametrize("steps", [3, 20])  # each record alone, and all in a pack
def test_another_machine_decides_by_what_was_read(tmp_path: Path, served: Served, steps: int) -> None:
    """In a fresh clone only what read a changed file runs again; nothing that steps made is fetched to know that."""
    project = workspace(tmp_path, pipeline(steps))
    repository = served.repository()
    project.runnable("run", "-j", "1", "--run-id", "r", "--to", repository, code=1)
    other = elsewhere(project, tmp_path)
    other.write({"tables/1.csv": "other\n", "words.txt": "longer", "README.md": "nobody reads this\n"})
    other.commit()
    planned = plan_of(other, f"{repository}:r")
    expected = {f"s{number}": "reuse unchanged since attempt 1" for number in range(steps)}
    assert planned == expected | {
        "s1": "run tables/1.csv changed, which it read",
        "count": "run words.txt changed, which it read",
        "last": "run attempt 1 failed: exit code 3",
    }
    log = project.log()
    there = blobs(other.store)
    made = {entry.data_hash for step in log.steps.values() for entry in step.put_entries()}
    packs = {digest for digest, pack in log.packs.items() if reads_of(log) <= pack.members.keys()}
    assert len(packs) == (steps >= 16)
    assert made.isdisjoint(there)
    assert there.keys() >= (packs or reads_of(log))
    assert all(made.isdisjoint(log.packs[digest].members) for digest in packs)
    other.runnable("retry", "r", code=1)
    assert [name for name, step in other.log("r").steps.items() if len(step.attempts) > 1] == ["s1", "count", "last"]


def test_the_log_alone_brings_the_reads_and_gc_keeps_them(tmp_path: Path, served: Served) -> None:
    """`pull --only log` is enough for a plan, also after `gc`."""
    project = workspace(tmp_path, pipeline(2))
    repository = served.repository()
    project.runnable("run", "-j", "1", "--run-id", "r", "--to", repository, code=1)
    other = elsewhere(project, tmp_path)
    other.runnable("pull", f"{repository}:r", "--only", "log")
    other.runnable("gc", "--keep", "5")
    other.write({"tables/0.csv": "other\n"})
    planned = plan_of(other, "r")
    assert (planned["s0"], planned["s1"]) == (
        "run tables/0.csv changed, which it read",
        "reuse unchanged since attempt 1",
    )


def test_reads_that_the_registry_lost_are_not_seen(tmp_path: Path) -> None:
    """Where the registry has the log without the reads, whatever changed in the repository counts."""
    project = workspace(tmp_path, pipeline(1))
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("run", "-j", "1", "--run-id", "r", "--to", repository, code=1)
        digests = reads_of(project.log())
        for path in (tmp_path / "registry").rglob("*"):
            if path.is_dir() and path.name in digests:
                (path / "data").unlink(missing_ok=True)
                (path / "link").unlink(missing_ok=True)
        other = elsewhere(project, tmp_path)
        other.write({"README.md": "new\n"})
        planned = plan_of(other, f"{repository}:r")
    assert "README.md" in planned["s0"]
    assert "what it read was not seen (what it read is not in this store)" in planned["s0"]
