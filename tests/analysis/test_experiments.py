"""What `reproduce`, `why` and `bisect` make is no run of the project, and a run that is not over is not made again."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry

import runnable_ci

FILES = {
    "runnable.toml": 'name = "shop"\n[steps.s]\npython = "m:f"\nreturns = { score = "metric" }\n',
    "m.py": "def f():\n    return 9\n",
    ".gitignore": ".runnable\n__pycache__\n",
}
MADE_FOR = {
    "old": "",
    "new": "",
    "old-again-1": "reproduce old",
    "old-code-of-new": "why new, old",
    "bisect": "bisect new",
}

LISTINGS = (("runs",), ("runs", "--sort", "score"), ("runs", "--where", "score > 1"), ("metrics", "score"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two runs, of which the older one was better, and an experiment of each kind."""
    made = workspace(tmp_path_factory.mktemp("experiments"), FILES)
    made.runnable("run", "--run-id", "old")
    for score in (5, 4):
        made.write({"m.py": f"def f():\n    return {score}\n"})
        made.commit()
    made.runnable("run", "--run-id", "new")
    made.runnable("reproduce", "old", "-q")
    made.runnable("why", "old", "new", "--metric", "score", "-q")
    made.runnable("bisect", "--good", "old", "--bad", "new", "--if", "score < 6", "-q")
    return made


def by_kind(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Which runs these are, and for what each was made; those of a bisection without their commit."""
    return {run["run_id"] if run["run_id"][:7] != "bisect-" else "bisect": run["made_for"] for run in runs}


@pytest.mark.promise
@pytest.mark.parametrize(
    "words",
    [("runs",), ("runs", "--sort", "score"), ("runs", "--where", "score > 1"), ("metrics", "score")],
    ids=" ".join,
)
def test_no_experiment_among_the_runs(project: Workspace, words: tuple[str, ...]) -> None:
    """It is left out and counted; asked for, it is there and says for what it was made."""
    done = project.runnable(*words, "--json")
    assert by_kind(json.loads(done.out)) == {"old": "", "new": ""}
    assert "3 experiments left out" in done.err
    done = project.runnable(*words, "--experiments", "--json")
    assert by_kind(json.loads(done.out)) == MADE_FOR
    assert done.err == ""


def test_how_it_is_marked(project: Workspace) -> None:
    """In a column of the table, of the metrics and of CSV."""
    assert "MADE FOR" not in project.runnable("runs").out
    lines = project.runnable("runs", "--experiments").out.splitlines()
    assert lines[0].endswith("MADE FOR")
    assert [line.endswith(("reproduce old: reproduced", "why new, old", "bisect new")) for line in lines[3:]] == [
        True
    ] * 3
    assert project.runnable("metrics", "score", "--experiments").out.count("  why new, old\n") == 1
    rows = csv.DictReader(io.StringIO(project.runnable("runs", "--experiments", "--csv").out))
    assert by_kind([*rows]) == MADE_FOR


def test_a_notebook_sees_the_mark(project: Workspace, tmp_path: Path) -> None:
    """Each row has it, whether it comes from the index or, without that, from the run's log."""
    runs = runnable_ci.list_runs(project.folder)
    assert by_kind(runs) == MADE_FOR
    assert runs._repr_html_().count("<td>reproduce old</td></tr>") == 1
    index = project.store / "index.json"
    whole = index.read_text()
    try:
        index.unlink()
        assert by_kind(runnable_ci.list_runs(project.folder)) == MADE_FOR
    finally:
        index.write_text(whole)


@pytest.mark.parametrize("word", ["latest", "latest-success", "main"])
def test_no_word_means_an_experiment(project: Workspace, word: str) -> None:
    """On the command line and in a notebook."""
    assert runnable_ci.open_run(word, project.folder).run_id == "new"
    assert json.loads(project.runnable("diff", "old", word, "--json").out)["b"]["run_id"] == "new"
    if word == "latest":
        assert json.loads(project.runnable("show", word, "--json").out)["run_id"] == "new"


def test_plots_are_of_runs(project: Workspace) -> None:
    """The page's plot has no experiment but the page's own, which says what it is."""
    project.write({"m.py": "def f():\n    return 3\n"})
    project.runnable("run", "--run-id", "newest")
    try:
        for run, points in {
            "newest": "new: 4, newest: 3",
            "old-again-1": "new: 4, old-again-1: 9",
        }.items():
            page = project.folder / project.runnable("report", run).out.strip()
            assert f'aria-label="score over runs: old: 9, {points}"' in page.read_text()
            assert ("<dd>reproduce old</dd>" in page.read_text()) == (run == "old-again-1")
    finally:
        project.runnable("rm", "newest")
        project.git("checkout", "-q", "m.py")


def test_where_there_is_nothing_else(project: Workspace, tmp_path: Path) -> None:
    """In a registry they are left out too; an experiment alone in a store is its `latest`."""
    with registry(tmp_path / "registry") as served:
        where = served.repository()
        for run in ("old", "old-again-1"):
            project.runnable("publish", run, "--to", where)
        done = project.runnable("runs", "--from", where, "--json")
        assert by_kind(json.loads(done.out)) == {"old": ""}
        assert "1 experiment left out; with --experiments it too" in done.err
        found = json.loads(project.runnable("runs", "--from", where, "--json", "--experiments").out)
        assert by_kind(found) == {"old": "", "old-again-1": "reproduce old"}
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{where}:old-again-1")
    assert runnable_ci.open_run("latest", other.folder).run_id == "old-again-1"
    for words in (("show", "latest", "--json"), ("explain", "latest", "--json")):
        assert '"old-again-1"' in other.runnable(*words).out
    assert "none of 1 runs" in other.runnable("runs").err


def test_an_environment_makes_no_tree_dirty(tmp_path: Path) -> None:
    """It is linked into the trees, where what ignores a folder ignores no link; the repository here stays as it is."""
    made = workspace(tmp_path, FILES | {".gitignore": FILES[".gitignore"] + ".venv/\n"})
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder / ".venv"], check=True)
    excluded = made.folder / ".git" / "info" / "exclude"
    before = excluded.read_text() if excluded.exists() else None
    made.runnable("run", "--run-id", "old")
    made.write({"m.py": "def f():\n    return 4\n"})
    made.commit()
    made.runnable("reproduce", "old", "-q")
    made.runnable("bisect", "--good", "HEAD~1", "--bad", "main", "--if", "score < 6", "-q")
    found = runnable_ci.list_runs(made.folder)
    assert [run["dirty"] for run in found] == [False] * 4
    assert (excluded.read_text() if excluded.exists() else None) == before
    assert made.git("status", "--porcelain") == ""


def test_the_index_is_read_once(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the two runs of a comparison are named."""
    from runnable_ci.analysis.comparison.which import run_finder
    from runnable_ci.config import load
    from runnable_ci.runs.remote.registry_config import Registries
    from runnable_ci.store.local import Layout

    class Counted(Layout):
        """A store that counts."""

        times = 0

        def _index(self) -> list[dict[str, Any]]:
            self.times += 1
            return super()._index()

    layout = Counted(project.store)
    with run_finder(layout, Registries(load({}), {}), lambda: pytest.fail("asks a registry")) as finder:
        a, b = finder.pair(("latest-success", "latest"))
        assert (a.read().log.run_id, b.read().log.run_id) == ("old", "new")
    assert layout.times == 1


def test_none_is_kept_in_place_of_a_run(tmp_path: Path) -> None:
    """`gc` and `prune` count runs of the project alone."""
    made = workspace(tmp_path, FILES)
    for run in ("old", "new"):
        made.runnable("run", "--run-id", run)
    for _ in range(2):
        made.runnable("reproduce", "new", "-q")
    assert made.runnable("gc", "--keep", "2").out == ""
    with registry(tmp_path / "registry") as served:
        where = served.repository()
        for run in ("old", "new", "new-again-1", "new-again-2"):
            made.runnable("publish", run, "--to", where)
        assert made.runnable("prune", "--from", where, "--keep", "1", "-n").out == "old\n"
    assert made.runnable("gc", "--keep", "1").out == "old\n"
    assert [run["run_id"] for run in runnable_ci.list_runs(made.folder)] == ["new", "new-again-1", "new-again-2"]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Workspace]:
    """A run `done`, and a run `busy` whose second step waits."""
    step = 'run = """echo waits; until [ -e go ]; do sleep 0.02; done; echo score=1 >> $RUNNABLE_OUTPUT"""'
    files = {
        "runnable.toml": f"[steps.first]\nrun = 'true'\n[steps.s]\nneeds = ['first']\n{step}\n"
        'returns = { score = "metric" }\ntimeout-minutes = 30\n',
        ".gitignore": ".runnable\ngo\n",
    }
    made = workspace(tmp_path, files)
    made.write({"go": ""})
    made.runnable("run", "--run-id", "done")
    (made.folder / "go").unlink()
    with made.start("run", "--run-id", "busy") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == [b"s", b"|", b"waits"]
        yield made
        made.write({"go": ""})
        assert process.wait(60) == 0


REFUSED: tuple[tuple[str, ...], ...] = (
    ("reproduce", "busy"),
    ("reproduce",),
    ("why", "done", "busy", "--metric", "score"),
    ("why", "busy", "done", "--metric", "score"),
    ("bisect", "--good", "done", "--bad", "busy", "--if", "score < 1"),
    ("bisect", "--good", "busy", "--bad", "main", "--if", "score < 1"),
    ("report", "busy", "--against", "done"),
    ("report", "done", "--against", "busy"),
)


def test_a_run_in_progress(busy: Workspace) -> None:
    """It is not made again, and of its steps those that are over are compared; it is said how to follow it."""
    for words in REFUSED:
        said = busy.runnable(*words, code=2).err
        assert "run busy is in progress" in said, words
        assert "`runnable-ci show busy --watch` follows it" in said
    assert [run["run_id"] for run in runnable_ci.list_runs(busy.folder)] == ["done", "busy"]
    for pair in (("done", "busy"), ("busy", "done")):
        said = busy.runnable("diff", *pair).out
        assert "is in progress: only steps that are over are compared" in said
        assert "first difference" not in said
    explained = json.loads(busy.runnable("explain", "busy", "--json").out)
    assert explained["commands"]["follow"] == "runnable-ci show busy --watch"
    assert "resume" not in explained["commands"]
    page = busy.folder / busy.runnable("report", "busy").out.strip()
    assert "The run is in progress" in page.read_text()
