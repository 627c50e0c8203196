"""Tests of the code that runs record: what counts, what is kept, and what a look costs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from cli import Workspace, workspace

from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.session import code_of
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.model import CodeState
from runnable_ci.runs.products.index import Product, ProductsIndex, StoredContent
from runnable_ci.store.local import Layout


def state_of(project: Workspace, step: str) -> CodeState:
    """The code of a step's last attempt in the newest run."""
    log = project.log()
    state = code_state_of(log, log.steps[step].attempts[-1])
    assert state is not None
    return state


def test_an_edited_file_that_a_put_matches_is_a_change(tmp_path: Path) -> None:
    """Only the content that a step gave a file is the step's: an edited input is recorded, kept and rebuilt."""
    steps = """
[steps.make]
run = "sort in.csv > out.csv"
catalog = { put = ["*.csv"] }
[steps.use]
run = "sleep 1; cat out.csv"
"""
    project = workspace(tmp_path, {"runnable.toml": steps, "in.csv": "b\na\n"})
    project.write({"in.csv": "c\nb\na\n"})
    for run in ("first", "second"):
        project.runnable("run", "--run-id", run)
        for step in ("make", "use"):
            assert state_of(project, step).changes.keys() == {"in.csv"}, (run, step)
    project.runnable("checkout", "second", "../copy")
    assert (tmp_path / "copy/in.csv").read_text() == "c\nb\na\n"
    assert not (tmp_path / "copy/out.csv").exists()
    project.write({"out.csv": "mine\n"})
    project.runnable("run", "--run-id", "third", "--jobs", "1")
    assert state_of(project, "make").changes["out.csv"] == ("untracked", hashlib.sha256(b"mine\n").hexdigest())


def test_a_state_is_recorded_once(tmp_path: Path) -> None:
    """All attempts with the same code, of each invocation, name one state; the state is whole in the log."""
    steps = "".join(f"[steps.s{n}]\nrun = 'test -e ok || [ $n != {n} ]'\nenv = {{ n = '{n}' }}\n" for n in range(5))
    project = workspace(tmp_path, {"runnable.toml": steps.replace("!= 4", "= 9"), ".gitignore": "ok\n"})
    project.write({"notes.txt": "mine"})
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"ok": ""})
    project.runnable("retry", "r")
    log = project.log()
    attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
    assert len(attempts) == 6
    (key,) = log.code_states
    assert {attempt.code_state for attempt in attempts} == {key}
    assert key.startswith(log.code_states[key].tree)
    assert all(attempt.code_seen <= attempt.start_time for attempt in attempts)


def test_a_damaged_repository_stops_no_run(tmp_path: Path) -> None:
    """A run and its retry work where git cannot read the commit's version of a changed file, which is kept."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'test -e ok'\n", "data.txt": "old\n"})
    found = project.git("rev-parse", "HEAD:data.txt")
    damaged = project.folder / ".git/objects" / found[:2] / found[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"")
    project.write({"data.txt": "new\n"})
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"ok": ""})
    project.runnable("retry", "r")
    state = state_of(project, "a")
    assert state.changes.keys() == {"data.txt", "ok"}
    assert (state.omitted, bool(state.kept)) == ({}, True)


def test_a_required_filter_that_is_missing_stops_no_run(tmp_path: Path) -> None:
    """A changed file of a filter whose program is not installed is kept, and said not to be compared."""
    project = workspace(
        tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", ".gitattributes": "*.bin filter=lfs\n", "a.bin": "1"}
    )
    for key, value in (("clean", "no-such-program"), ("process", "no-such-program"), ("required", "true")):
        project.git("config", f"filter.lfs.{key}", value)
    project.write({"a.bin": "2"})
    project.runnable("run")
    state = state_of(project, "a")
    assert state.changes["a.bin"][0] == "filtered"
    assert "was not run" in state.unknown["a.bin"]
    assert "1 not compared" in project.runnable("show", "latest").out


def test_a_commit_on_no_remote_is_said(tmp_path: Path) -> None:
    """`run` and `show` warn of a commit that nobody else can have; without a remote only `show` does."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"})
    warning = "no branch of a remote is known to have commit"
    assert warning not in project.runnable("run").err
    assert warning in project.runnable("show", "latest").out
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    project.git("remote", "add", "origin", str(tmp_path / "bare"))
    assert warning in project.runnable("run").err
    project.git("push", "-q", "origin", "main")
    assert warning not in project.runnable("run").err


def test_cost_grows_with_the_steps(tmp_path: Path) -> None:
    """Twice the steps, each with an undeclared file, take about twice the git processes and bytes, not four times."""
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho >> {tmp_path}/calls\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)

    def cost(count: int) -> tuple[int, int]:
        steps = "".join(f"[steps.s{n}]\nrun = 'echo hi{n} > o{n}.dat'\n" for n in range(count))
        project = workspace(tmp_path, {"runnable.toml": steps}, name=f"of{count}")
        (tmp_path / "calls").write_text("")
        project.runnable("run", PATH=f"{wrapper.parent}:{project.environ['PATH']}")
        files = [path for path in project.store.rglob("*") if path.is_file()]
        return len((tmp_path / "calls").read_text()), sum(path.stat().st_size for path in files)

    calls, size_bytes = cost(40)
    calls_of_twice, size_of_twice = cost(80)
    assert calls_of_twice <= 2.5 * calls + 20
    assert calls_of_twice <= 8 * 80
    assert size_of_twice <= 2.5 * size_bytes + 20_000


def test_what_earlier_versions_called_a_product(tmp_path: Path) -> None:
    """Those took what a pattern matched, whoever made it: what git tracks is a change of the code nevertheless."""
    at = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", "in.csv": "old\n"})
    at.write({"in.csv": "new\n", "out.csv": "new\n"})
    content = StoredContent(hashlib.sha256(b"new\n").hexdigest(), 4)
    logged = [Product(name, content, "a", "r") for name in ("in.csv", "out.csv")]
    project = load_project(at.folder / "runnable.toml")
    earlier = ProductsIndex(Layout(tmp_path / "none"), lambda: logged)
    assert code_of(project, earlier, at.environ).look().changes.keys() == {"in.csv"}
    now = ProductsIndex(Layout(at.folder / ".runnable"))
    (at.folder / ".runnable").mkdir()
    now.record(logged)
    assert code_of(project, now, at.environ).look().changes == {}
