"""Tests of the code that runs record: what counts, what is kept, and what a look costs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from cli import Workspace, workspace
from support import wait_until

from runnable_ci.engine.code.code_recorder import CodeRecorder
from runnable_ci.engine.code.generated import code_of
from runnable_ci.engine.preflight import load_project
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.code_states import code_state_of, whole
from runnable_ci.runs.events import Started
from runnable_ci.runs.model import Invocation
from runnable_ci.runs.products.index import Product, ProductsIndex, StoredContent
from runnable_ci.runs.recorder import create
from runnable_ci.store.local import Layout
from runnable_ci.store.target import Descriptor
from runnable_ci.util.clock import now
from runnable_ci.vcs.checkout.rebuild import Bundles, rebuild
from runnable_ci.vcs.identity import Code


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


def counting_git(folder: Path) -> str:
    """A folder for PATH whose git notes each of its calls in `calls` beside it."""
    wrapper = folder / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho >> {folder}/calls\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper.parent)


@pytest.mark.parametrize(
    ("command", "calls_a_step"),
    [
        pytest.param("echo hi{n} > o{n}.dat", 0, id="undeclared files"),
        pytest.param("echo hi{n} > o{n}.csv", 0, id="products"),
        pytest.param("echo hi{n} > build/o{n}.log", 0, id="ignored files"),
        pytest.param("echo hi{n} >> a.py", 1, id="code"),
        pytest.param("cat a.py", 0, id="nothing"),
    ],
)
def test_cost_grows_with_the_steps(tmp_path: Path, command: str, calls_a_step: int) -> None:
    """A step asks git once where it left something that may be code, else not at all; twice the steps take no more."""
    folder = counting_git(tmp_path)

    def cost(count: int) -> tuple[int, int]:
        put = "\ncatalog = { put = ['o{n}.csv'] }" if ".csv" in command else ""
        steps = [f"[steps.s{n}]\nrun = '{command}'{put}\n".replace("{n}", str(n)) for n in range(count)]
        files = {"runnable.toml": "".join(steps), ".gitignore": "build/\n", "build/x": "", "a.py": ""}
        project = workspace(tmp_path, files, name=f"of{count}")
        (tmp_path / "calls").write_text("")
        project.runnable("run", PATH=f"{folder}:{project.environ['PATH']}")
        stored = [path for path in project.store.rglob("*") if path.is_file()]
        return len((tmp_path / "calls").read_text()), sum(path.stat().st_size for path in stored)

    calls, size_bytes = cost(12)
    calls_of_twice, size_of_twice = cost(24)
    assert calls <= 12 * calls_a_step + 10
    assert calls_of_twice <= 24 * calls_a_step + 10
    assert size_of_twice <= 2.5 * size_bytes + 20_000


def test_each_step_names_the_code_that_it_found(tmp_path: Path) -> None:
    """However quickly steps follow each other, each one's state has what those before it left in the code."""
    steps = "".join(f"[steps.s{n}]\nrun = 'echo {n} > data.txt; echo {n} >> f{n}.txt'\n" for n in range(6))
    files = {"runnable.toml": steps, "data.txt": "data\n", **{f"f{n}.txt": "" for n in range(6)}}
    project = workspace(tmp_path, files)
    project.runnable("run")
    assert state_of(project, "s0").changes == {}
    for number in range(1, 6):
        found = state_of(project, f"s{number}").changes
        assert found.keys() == {"data.txt", *(f"f{n}.txt" for n in range(number))}
        assert found["data.txt"][1] == hashlib.sha256(f"{number - 1}\n".encode()).hexdigest()


WAITING = """
[steps.first]
run = "touch begun.log; until [ -e go.log ]; do sleep 0.01; done"
[steps.second]
run = "true"
"""


def test_edits_under_a_long_step(tmp_path: Path) -> None:
    """What a person edits, gives another mode, removes or commits while a step runs is in the next step's state."""
    files = {
        "runnable.toml": WAITING,
        ".gitignore": "*.log\n",
        "a.py": "1\n",
        "b.sh": "",
        "pkg/c.py": "",
        "d.py": "1\n",
    }
    project = workspace(tmp_path, files)
    with project.start("run", "--run-id", "r") as running:
        wait_until((project.folder / "begun.log").exists, "the step")
        project.write({"d.py": "2\n"})
        commit = project.commit()
        project.write({"a.py": "2\n"})
        (project.folder / "b.sh").chmod(0o755)
        (project.folder / "pkg").rename(project.folder / "lib")
        project.write({"go.log": ""})
        assert running.wait() == 0
    first, second = state_of(project, "first"), state_of(project, "second")
    assert first.changes == {}
    assert (second.commit, first.commit != commit) == (commit, True)
    assert second.changes.keys() == {"a.py", "b.sh", "pkg/c.py"}


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


def test_a_value_masked_later_leaves_all_that_builds_on_it(tmp_path: Path) -> None:
    """Of a chain of states only those before the value stay kept; the newest one is kept again, without it."""
    word = "s3cr3t-" + "w0rd-9981"
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", "a.py": "1\n"})
    layout = load_project(project.folder / "runnable.toml").opened(project.environ).layout
    code = Code(project.folder, environ=project.environ)
    redactor = Redactor()
    invocation = Invocation(number=1, command="run", start_time=now())
    begun = Started(run_id="r", name="p", dag_hash="d", run_config={}, invocation=invocation)
    with create(layout, begun, redactor) as recorder:
        recording = CodeRecorder(code, recorder, project.environ, container=None, untracked=lambda _: "")
        keys = []
        for name, content in (("first", "1"), ("word", word), ("more", "2"), ("most", "3")):
            project.write({f"{name}.txt": content})
            recorder.record(*recording.look())
            keys.append(recording.key)
        assert [bool(state.base) for state in recorder.log.code_states.values()] == [False, True, True, True]
        redactor.learn([word])
        replaced = recording.redact()
        recorder.redact_past(outputs=(), replaced=replaced)
        project.write({"last.txt": "4"})
        recorder.record(*recording.look())
        states = {key: whole(recorder.log.code_states, key) for key in [*keys, recording.key]}
    assert [bool(state.kept) for state in states.values()] == [True, False, False, True, True]
    assert ["word.txt" in state.omitted for state in states.values()] == [False, False, False, True, True]
    assert [len(state.changes) for state in states.values()] == [1, 2, 3, 4, 5]
    for number, key in ((1, keys[0]), (4, keys[3]), (5, recording.key)):
        files = {commit: layout.path(Descriptor.of_hash(*bundle)) for commit, bundle in states[key].bundles.items()}
        copy = tmp_path / f"copy{number}"
        bundles = Bundles(states[key].kept, files)
        sources = [project.folder]
        rebuild(bundles, commit=states[key].commit, sources=sources, destination=copy, environ=project.environ)
        assert len(list(copy.glob("*.txt"))) == number - (number > 1)
        assert not any(word in path.read_text() for path in copy.glob("*.txt"))


def test_a_state_again_is_not_recorded_again(tmp_path: Path) -> None:
    """After an edit that is taken back the first state is named again, and the next one builds on the newest."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", "a.py": "1\n"})
    layout = load_project(project.folder / "runnable.toml").opened(project.environ).layout
    code = Code(project.folder, environ=project.environ)
    invocation = Invocation(number=1, command="run", start_time=now())
    begun = Started(run_id="r", name="p", dag_hash="d", run_config={}, invocation=invocation)
    with create(layout, begun) as recorder:
        recording = CodeRecorder(code, recorder, project.environ, container=None, untracked=lambda _: "")
        seen = []
        for content in ("2\n", "1\n", "2\n", "1\n", "3\n"):
            project.write({"a.py": content})
            recorder.record(*recording.look())
            seen.append((recording.key, whole(recorder.log.code_states, recording.key).changes))
    assert (seen[0], seen[1]) == (seen[2], seen[3])
    assert [len(changes) for _, changes in seen] == [1, 0, 1, 0, 1]
    assert len(recorder.log.code_states) == 3
