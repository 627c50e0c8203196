"""Tests of what attempts are seen to read, and of what a retry makes of it: the real program, real steps."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli import PROGRAM, Workspace, workspace
from support import wait_until

from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.reader import catalog_of
from runnable_ci.store.local import Layout
from runnable_ci.util.text import seconds_between


def reads(project: Workspace, step: str) -> ReadSet:
    """Return what the last attempt at a step read."""
    log = project.log()
    attempt = log.steps[step].attempts[-1]
    found = reads_of(catalog_of(Layout(project.store), log), f"{step}.{attempt.attempt_number}", attempt)
    assert found is not None, attempt.not_seen
    return found


def plan(project: Workspace, *arguments: str) -> dict[str, tuple[str, str]]:
    """Step → action and reason of a retry."""
    lines = project.runnable("retry", "latest", "--dry-run", *arguments).out.splitlines()
    words = [line.split(maxsplit=2) for line in lines]
    return {name: (action, reason) for name, action, reason in words}


def test_what_a_shell_step_read(tmp_path: Path) -> None:
    """Files and folders that a shell step reads, directly or by a script, are recorded, and what it wrote besides."""
    steps = """
[steps.a]
run = "bash do.sh; cat data/x.csv; ls data > names.txt; echo more >> log.txt"
"""
    files = {"runnable.toml": steps, "do.sh": "python3 tool.py\n", "tool.py": "print(open('conf.json').read())\n"}
    project = workspace(tmp_path, {**files, "conf.json": "{}", "data/x.csv": "1", "log.txt": "", "other.txt": "x"})
    project.runnable("run")
    found = reads(project, "a")
    assert set(found.files) == {"do.sh", "tool.py", "conf.json", "data/x.csv"}
    assert found.listings["data"].names == ["x.csv"]
    assert set(project.log().steps["a"].attempts[-1].made) == {"names.txt", "log.txt"}


def test_what_a_python_step_read(tmp_path: Path) -> None:
    """A python step's record has absent files, distributions and connections, and no more than it did itself."""
    module = """
import socket
def f():
    open("conf.json").read()
    try:
        open("local.json")
    except FileNotFoundError:
        pass
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError:
        pass
"""
    steps = "[steps.a]\npython = 'm:f'\n[steps.fail]\nrun = 'exit 1'\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "m.py": module, "conf.json": "{}", "n.py": ""})
    project.runnable("run", code=1)
    found = reads(project, "a")
    assert (set(found.files), set(found.absent)) == ({"m.py", "conf.json"}, {"local.json"})
    assert found.connected == ["127.0.0.1:9"]
    assert plan(project)["a"][0] == "reuse"
    project.write({"local.json": "{}"})
    assert plan(project)["a"] == ("run", "local.json is new, which it looked for")


def test_steps_side_by_side(tmp_path: Path) -> None:
    """What a parallel step writes is nobody's read, and a retry reuses both though their windows overlap."""
    make = "touch here.{0}; while [ ! -e here.{1} ]; do sleep 0.05; done; cat in.{0}; sleep 0.3; echo {0} > out.{0}"
    steps = "".join(
        f"[steps.{one}]\nneeds = []\nrun = '{make.format(one, other)}'\ncatalog = {{ put = ['out.{one}'] }}\n"
        for one, other in (("a", "b"), ("b", "a"))
    )
    files = {"runnable.toml": steps + "[steps.c]\nneeds = ['a', 'b']\nrun = 'exit 1'\n", "in.a": "1", "in.b": "2"}
    project = workspace(tmp_path, files)
    project.runnable("run", "-j", "2", code=1)
    assert not {"out.a", "out.b"} & set(reads(project, "a").files)
    assert reads(project, "a").files["in.b"].grade == "possible"
    assert [plan(project)[name][0] for name in "ab"] == ["reuse", "reuse"]
    project.write({"in.b": "3"})
    assert plan(project)["a"] == ("run", "in.b changed, which it may have read")


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    """A file that another process wrote while the step ran compares equal to nothing."""
    steps = (
        "[steps.a]\nrun = 'cat x; touch started; while [ ! -e go ]; do sleep 0.05; done'\n[steps.b]\nrun = 'exit 1'\n"
    )
    for name, ignored in (("tracked", ""), ("ignored", "x\n")):
        (tmp_path / name).mkdir()
        project = workspace(tmp_path / name, {"runnable.toml": steps, ".gitignore": ignored, "x": "1"})
        with project.start("run") as running:
            while not (project.folder / "started").exists():
                assert running.poll() is None
            project.write({"x": "2", "go": ""})
        assert plan(project)["a"] == ("run", "x changed while the step ran, which it read")


def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    """A read through a link counts with where the link leads to, also outside of the workspace."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text(name)
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'cat data/x.csv'\n[steps.b]\nrun = 'exit 1'\n"})
    link = project.folder / "data"
    link.symlink_to(tmp_path / "one")
    project.runnable("run", code=1)
    assert plan(project)["a"][0] == "reuse"
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert plan(project)["a"][0] == "run"
    link.unlink()
    link.symlink_to(tmp_path / "one")
    (tmp_path / "one" / "x.csv").write_text("other")
    assert plan(project)["a"] == ("run", "data/x.csv changed, which it read")


def test_where_nothing_can_be_watched(tmp_path: Path) -> None:
    """Where the system has no watcher to give, the attempt says so, and then any change of the repository counts."""
    steps = "[parameters]\nrate = 1\n[steps.a]\nrun = 'cat x'\n[steps.b]\nrun = 'exit 1'\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "x": "1", "unread": "1"})
    limited = f"echo 0 > /proc/sys/user/max_inotify_instances; exec {PROGRAM} run"
    environ = {**os.environ, **project.environ}
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", limited], cwd=project.folder, env=environ, capture_output=True)
    assert done.returncode == 1, done.stderr
    attempt = project.log().steps["a"].attempts[-1]
    assert (attempt.reads, "limit of watchers" in attempt.not_seen) == ("", True)
    assert attempt.consumed == {"rate": "possible"}
    assert plan(project)["a"][0] == "reuse"
    assert plan(project, "--param", "rate=2")["a"][0] == "run"
    project.write({"unread": "2"})
    action, reason = plan(project)["a"]
    assert action == "run"
    assert "unread" in reason
    assert "what it read was not seen" in reason


def test_where_byte_code_lies_elsewhere(tmp_path: Path) -> None:
    """With a bytecode folder outside of the workspace it is not seen which modules a child loads, and it is said."""
    steps = "[steps.a]\nrun = 'python3 main.py'\n[steps.f]\npython = 'main:f'\n[steps.b]\nrun = 'exit 1'\n"
    files = {"main.py": "import helper\n\n\ndef f(): ...\n", "helper.py": "VALUE = 1\n", "unread": "1"}
    project = workspace(tmp_path, {"runnable.toml": steps, **files})
    project.runnable("run", code=1, PYTHONPYCACHEPREFIX=str(tmp_path / "cache"))
    attempts = {name: step.attempts[-1] for name, step in project.log().steps.items()}
    assert (attempts["a"].reads, "PYTHONPYCACHEPREFIX" in attempts["a"].not_seen) == ("", True)
    assert (attempts["f"].reads != "", attempts["f"].not_seen) == (True, "")
    project.write({"helper.py": "VALUE = 2\n"})
    assert plan(project)["a"][0] == "run"


def test_a_repository_around_the_pipeline(tmp_path: Path) -> None:
    """Of a pipeline in a folder of a repository, what a step reads beside that folder counts, and nothing else."""
    steps = "[steps.a]\nrun = 'cat ../shared/x.sql; ls ../more'\n[steps.b]\nrun = 'exit 1'\n"
    files = {"ml/runnable.toml": steps, "shared/x.sql": "1", "shared/unread": "1", "more/y": "1", "README.md": "x"}
    project = workspace(tmp_path, files)
    project.runnable("run", code=1, at="ml")

    def planned() -> tuple[str, str]:
        line = project.runnable("retry", "latest", "-n", at="ml").out.splitlines()[0].split(maxsplit=2)
        return line[1], line[2]

    assert planned()[0] == "reuse"
    project.write({"README.md": "y", "shared/unread": "2"})
    project.commit()
    assert planned()[0] == "reuse"
    project.write({"shared/x.sql": "2"})
    assert planned() == ("run", "../shared/x.sql changed, which it read")
    project.write({"shared/x.sql": "1", "more/z": ""})
    assert planned() == ("run", "z is new in ../more, which it listed")


def test_files_outside_of_the_repository(tmp_path: Path) -> None:
    """What a python step opens outside of the repository counts, and what a shell step's command names there."""
    data = tmp_path / "mnt"
    data.mkdir()
    for name in ("x.csv", "y.csv", "lib.py"):
        (data / name).write_text(f"NAME = '{name}'\n")
    module = f"import sys\nsys.path.append('{data}')\nimport lib\n\n\ndef f():\n    open('{data}/x.csv').read()\n"
    steps = f"[steps.a]\nneeds = []\npython = 'm:f'\n[steps.b]\nneeds = []\nrun = 'cat {data}/y.csv'\n"
    project = workspace(tmp_path, {"runnable.toml": f"{steps}[steps.c]\nneeds = []\nrun = 'exit 1'\n", "m.py": module})
    project.runnable("run", code=1)
    assert [plan(project)[name][0] for name in "ab"] == ["reuse", "reuse"]
    for name, step in (("x.csv", "a"), ("lib.py", "a"), ("y.csv", "b")):
        before = (data / name).read_text()
        (data / name).write_text("OTHER = 1\n")
        assert plan(project)[step] == ("run", f"{data / name} changed, which it read")
        (data / name).write_text(before)
    assert [plan(project)[name][0] for name in "ab"] == ["reuse", "reuse"]


def test_looks_that_read_nothing(tmp_path: Path) -> None:
    """To open a folder without listing it, or a file for writing without writing, depends on nothing in there."""
    steps = """
[steps.find]
needs = []
run = "find data -type f | xargs cat; mkdir -p m; python3 m.py"
[steps.both]
needs = []
run = "exec 3<>rw; cat <&3"
[steps.fail]
needs = []
run = "exit 1"
"""
    files = {"data/x": "1", "rw": "1", "m.py": "import json\n"}
    project = workspace(tmp_path, {"runnable.toml": steps, **files})
    project.runnable("run", "-j", "1", code=1)
    project.write({"NOTES.md": "new", "reports/r.txt": "new"})
    assert [plan(project)[name][0] for name in ("find", "both")] == ["reuse", "reuse"]
    project.write({"rw": "2"})
    assert plan(project)["both"] == ("run", "rw changed, which it read")


def test_what_later_steps_change_in_place(tmp_path: Path) -> None:
    """An input that a later step changes in place, tracked or not, is no change for the steps before that."""
    for name, ignored in (("tracked", ""), ("ignored", "in.csv\n")):
        steps = """
[steps.list]
run = "ls; cat in.csv"
[steps.append]
run = "echo more >> in.csv"
catalog = { put = ["in.csv"] }
[steps.clean]
run = "cat d/2; rm d/2; ls d"
[steps.fail]
run = "exit 1"
"""
        files = {"runnable.toml": steps, ".gitignore": ignored, "in.csv": "start\n", "d/1": "1", "d/2": "2"}
        folder = tmp_path / name
        folder.mkdir()
        project = workspace(folder, files)
        project.runnable("run", code=1)
        found = plan(project)
        assert [found[step][0] for step in ("list", "append", "clean")] == ["reuse"] * 3, found
        project.runnable("retry", "latest", code=1)
        assert project.read("in.csv") == "start\nmore\n"


@pytest.mark.promise
def test_early_cut_off(tmp_path: Path) -> None:
    """A step whose need ran again is reused if it gets the same, and runs if it gets something else."""
    steps = """
[steps.prepare]
run = "grep -v '#' params.txt > clean.txt"
catalog = { put = ["clean.txt"] }
[steps.fit]
run = "cat clean.txt > model.txt; echo ran >> fit.log"
catalog = { get = ["clean.txt"], put = ["model.txt"] }
[steps.fail]
run = "exit 1"
"""
    project = workspace(tmp_path, {"runnable.toml": steps, "params.txt": "# a\n1\n", ".gitignore": "*.log\n"})
    project.runnable("run", code=1)
    project.write({"params.txt": "# another remark\n1\n"})
    done = project.runnable("retry", "latest", code=1)
    assert "fit     | reuse: unchanged since attempt 1" in done.err
    assert (project.read("fit.log"), project.read("model.txt")) == ("ran\n", "1\n")
    project.write({"params.txt": "2\n"})
    project.runnable("retry", "latest", code=1)
    assert (project.read("fit.log"), project.read("model.txt")) == ("ran\nran\n", "2\n")


def test_variables(tmp_path: Path) -> None:
    """A shell step runs again for a variable that it may use, by way of any file that it read, and for no other."""
    steps = """
[parameters]
alpha = 1
beta = 1
gamma = 1
[steps.direct]
needs = []
run = 'echo "$alpha"'
[steps.script]
needs = []
run = "make -s train"
[steps.all]
needs = []
run = "python3 dump.py"
[steps.fail]
run = "exit 1"
"""
    files = {
        "Makefile": "train:\n\t@python3 train.py\n",
        "train.py": "import helper\nhelper.go()\n",
        "helper.py": "import os\n\n\ndef go():\n    print(os.environ['beta'])\n",
        "dump.py": "import os\nprint(dict(os.environ)['PATH'])\n",
    }
    project = workspace(tmp_path, {"runnable.toml": steps, **files})
    project.runnable("run", "-j", "1", code=1)  # of steps at the same time each may have read what the others did
    attempts = {name: step.attempts[-1] for name, step in project.log().steps.items()}
    assert attempts["direct"].consumed == {"alpha": "seen"}
    assert attempts["script"].consumed == {"beta": "possible"}
    assert set(attempts["all"].consumed) == {"alpha", "beta", "gamma"}
    assert all(set(attempt.input_parameters) == {"alpha", "beta", "gamma"} for attempt in attempts.values())
    expected: dict[str, list[Any]] = {
        "alpha=2": ["run", "reuse", "run"],
        "beta=2": ["reuse", "run", "run"],
        "gamma=2": ["reuse", "reuse", "run"],
    }
    for given, actions in expected.items():
        found = plan(project, "--param", given)
        assert [found[name][0] for name in ("direct", "script", "all")] == actions, given


def test_reads_are_in_the_artifact(tmp_path: Path) -> None:
    """What attempts read is content of the run's manifest, by its digest."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'cat x'\n", "x": "1"})
    project.runnable("run", "--run-id", "r")
    layout = Layout(project.store)
    layers = layout.manifest(layout.resolve("r"))["layers"]
    assert project.log().steps["a"].attempts[-1].reads in json.dumps(layers)


def test_what_differs_is_said_in_plain_words(tmp_path: Path) -> None:
    """Each name with what became of it and what the step did with it; several names in the plural."""
    steps = """
[steps.a]
run = "ls in; cat one.txt two.txt"
"""
    project = workspace(tmp_path, {"runnable.toml": steps, "in/a": "", "one.txt": "1", "two.txt": "2"})
    project.runnable("run", "--run-id", "r")
    project.write({"in/x": "", "in/y": ""})
    for name in ("one.txt", "two.txt"):
        (project.folder / name).unlink()
    differing = "one.txt, two.txt are gone, which it read; x, y are new in in, which it listed"
    assert plan(project)["a"] == ("run", differing)


def test_a_silent_step_that_is_killed_was_seen_alive(tmp_path: Path) -> None:
    """How long it ran is known to about a second, though neither its output nor the log grew."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "sleep 60"\n'})
    outputs = project.store / "runs/r/logs"
    with project.start("run", "--run-id", "r") as running:
        wait_until(outputs.exists, "the run")
        began = outputs.stat().st_mtime
        wait_until(lambda: outputs.stat().st_mtime > began + 2, "signs of life")
        running.kill()
    attempt = project.log("r").steps["a"].attempts[0]
    assert (seconds_between(attempt.start_time, attempt.end_time) or 0) > 0.9


def test_what_a_script_names_and_does_not_find(tmp_path: Path) -> None:
    """A missing folder that a script lists, or file that it looks for, is a change once it is there; no other is."""
    steps = """
[steps.lists]
needs = []
run = "echo extra/*"
[steps.looks]
needs = []
run = "bash look.sh > log; cat in/x.csv"
[steps.fails]
run = "exit 1"
"""
    look = "cat conf/local.json 2> /dev/null || true\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "look.sh": look, "in/x.csv": "1\n", ".gitignore": "log\n"})
    project.runnable("run", "-j", "1", code=1)
    project.write({"other/new.txt": "", "in/y.csv": ""})
    assert [plan(project)[name][0] for name in ("lists", "looks")] == ["reuse", "reuse"]
    project.write({"extra/new.txt": "", "conf/local.json": "{}"})
    assert plan(project)["lists"] == ("run", "new.txt is new in extra, which it may have listed")
    assert plan(project)["looks"] == ("run", "conf/local.json is new, which it looked for")


LATER = """
[steps.a]
run = "ls > a.out; sleep 0.2"
catalog = { put = ["a.out"] }
[steps.b]
run = "cat a.out > b.out; test ! -e ../broken"
catalog = { put = ["b.out"] }
[steps.c]
run = "cat b.out > c.out"
catalog = { put = ["c.out"] }
"""


@pytest.mark.promise
def test_what_a_later_step_left_in_another_run_is_not_listed(tmp_path: Path) -> None:
    """It is set aside before a retry begins, which its plan and its question know of; a person's file counts."""
    project = workspace(tmp_path, {"runnable.toml": LATER, ".gitignore": ".runnable\n*.out\n"})
    project.runnable("run", "--run-id", "one")
    (tmp_path / "broken").touch()
    project.runnable("run", "--run-id", "two", code=1)
    assert (project.folder / "c.out").exists()
    assert plan(project)["a"] == ("reuse", "unchanged since attempt 1")
    retried = project.runnable("retry", "two", code=1, RUNNABLE_CI_ASK_MINUTES="0.001")
    assert "run two: 2 steps to run, 1 reused" in retried.err
    project.write({"c.out": "mine"})
    assert plan(project)["a"][0] == "run"
