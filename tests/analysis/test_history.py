"""Runs are found by what they were given and measured; labels, descriptions and pins stay with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import Served, registry

FILES = {
    "runnable.toml": 'name = "shop"\n[parameters]\nlr = 0.1\nmodel = { depth = 3 }\n'
    '[steps.s]\npython = "m:f"\nreturns = { score = "metric" }\n',
    "m.py": "def f(lr, model):\n    assert lr < 1\n    return lr * 10 * model['depth']\n",
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Four runs, of which one failed and one is of a branch."""
    made = workspace(tmp_path_factory.mktemp("many"), FILES)
    made.runnable("run", "--run-id", "a", "--param", "lr=0.3")
    made.runnable("run", "--run-id", "b", "--param", "lr=0.1", "--tag", "tuned")
    made.runnable("run", "--run-id", "c", "--param", "lr=2", code=1)
    made.git("checkout", "-qb", "topic")
    made.runnable("run", "--run-id", "d", "--param", "lr=0.2")
    return made


QUERIES = {
    (): "abcd",
    ("--status", "failed"): "c",
    ("--status", "succeeded"): "abd",
    ("--status", "fail"): "c",
    ("--branch", "topic"): "d",
    ("--tag", "tuned"): "b",
    ("--pipeline", "other"): "",
    ("--since", "1h"): "abcd",
    ("--until", "1h"): "",
    ("--since", "30m"): "abcd",
    ("--since", "1d12h"): "abcd",
    ("--since", "999999w"): "abcd",
    ("--since", "2020-01-01", "--limit", "2"): "cd",
    ("--where", "score > 4"): "ad",
    ("--where", "score > 4", "--where", "lr < 0.25"): "d",
    ("--where", "metrics.score / parameters.lr == 30 && parameters.model.depth == 3"): "abd",
    ("--where", "lr >= 0.2"): "acd",
    ("--where", "duration < 0"): "",
    ("--sort", "score"): "bda",
    ("--sort", "lr", "--reverse"): "cadb",
    ("--sort", "score", "--limit", "1"): "a",
}


@pytest.mark.parametrize(("options", "expected"), QUERIES.items())
def test_queries(many: Workspace, options: tuple[str, ...], expected: str) -> None:
    """Which runs are found, in which order."""
    found = json.loads(many.runnable("runs", *options, "--json").out)
    assert "".join(run["run_id"] for run in found) == expected


WRONG = {
    ("--where", "scor > 1"): "did you mean `score`?",
    ("--where", "score >"): "a value is missing",
    ("--sort", "scor"): "did you mean `score`?",
    ("--since", "yesterday"): "such as 2026-11-01",
    ("--status", "faild"): "did you mean `failed`?",
}


@pytest.mark.parametrize(("options", "said"), WRONG.items())
def test_wrong_queries(many: Workspace, options: tuple[str, ...], said: str) -> None:
    """An error with what would be right."""
    assert said in many.runnable("runs", *options, code=2).err


def test_csv(many: Workspace) -> None:
    """A row for each run, a column for each parameter and metric."""
    rows = list(csv.DictReader(io.StringIO(many.runnable("runs", "--csv").out)))
    assert [row["run_id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["metrics.score"] for row in rows] == ["9.0", "3.0", "", "6.0"]
    assert [row["parameters.model.depth"] for row in rows] == ["3"] * 4


def test_metrics_over_runs(many: Workspace) -> None:
    """Each run's value, and a bar that is as long as it is large."""
    lines = many.runnable("metrics", "score").out.splitlines()
    bars = {line.split()[0]: line.count("█") for line in lines[1:]}
    assert bars["a"] > bars["d"] > bars["b"] > 0
    assert "did you mean `score`?" in many.runnable("metrics", "scor", code=2).err


@pytest.fixture
def one(tmp_path: Path) -> Workspace:
    """Two runs."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "--run-id", "first")
    made.runnable("run", "--run-id", "second")
    return made


@pytest.mark.promise
def test_a_pinned_run_stays(one: Workspace) -> None:
    """`gc` never removes it, `rm` only by force, and what it holds is there."""
    one.runnable("pin", "first")
    one.runnable("gc", "--keep", "0")
    assert [run["run_id"] for run in json.loads(one.runnable("runs", "--json").out)] == ["first"]
    assert "pinned" in one.runnable("rm", "first", code=2).err
    one.runnable("pin", "first", "--off")
    one.runnable("rm", "first")
    assert json.loads(one.runnable("runs", "--json").out) == []


def test_labels_and_descriptions(one: Workspace) -> None:
    """They are in listings, are changed again, and the log stays what it was."""
    before = one.log("first")
    one.runnable("tag", "first", "best")
    one.runnable("describe", "first", "The run of the paper; 95 % of it")
    shown = json.loads(one.runnable("runs", "--tag", "best", "--json").out)
    assert [(run["run_id"], run["description"]) for run in shown] == [("first", "The run of the paper; 95 % of it")]
    assert "The run of the paper" in one.runnable("show", "first").out
    one.runnable("tag", "first", "")
    log = one.log("first")
    assert (log.tag, log.notes.by) == ("", "A")
    assert log.steps == before.steps
    one.runnable("retry", "first")
    assert one.log("first").notes.description.startswith("The run of the paper")


def test_removing_keeps_what_others_hold(one: Workspace) -> None:
    """Of two runs with the same files one is removed, and the other is whole."""
    one.runnable("rm", "first")
    assert one.runnable("catalog", "second").code == 0
    assert "no run `first`" in one.runnable("show", "first", code=2).err


def test_numbers_that_are_not_finite_have_their_place(tmp_path: Path) -> None:
    """In order and conditions infinite ones are numbers; NaN is none, and does not hide the others."""
    pipeline = '[parameters]\nx = "1"\n[steps.s]\npython = "m:f"\nreturns = { score = "metric" }\n'
    made = workspace(tmp_path, {"runnable.toml": pipeline, "m.py": "def f(x):\n    return float(x)\n"})
    for name in ("nan", "inf", "-inf", "0.5"):
        made.runnable("run", "-q", "--run-id", f"r{name}", "--param", f"x={name}")

    def ids(*options: str) -> list[str]:
        return [run["run_id"] for run in json.loads(made.runnable("runs", "--json", *options).out)]

    assert ids("--sort", "score") == ["rnan", "r-inf", "r0.5", "rinf"]
    assert ids("--where", "score > 0") == ["rinf", "r0.5"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def test_notes_travel(one: Workspace, served: Served, tmp_path: Path) -> None:
    """They are published and pulled with the run; the newest count; `prune` leaves pinned runs."""
    one.environ["RUNNABLE_CI_REGISTRY"] = repository = served.repository()
    one.runnable("publish", "first")
    other = elsewhere(one, tmp_path, "other")
    other.environ["RUNNABLE_CI_REGISTRY"] = repository
    other.runnable("pull", "first")
    one.runnable("describe", "first", "old")
    other.runnable("describe", "first", "new")
    other.runnable("pin", "first")
    one.runnable("publish", "first")
    other.runnable("publish", "first")
    one.runnable("pull", "first")
    assert one.log("first").notes.description == "new"
    found = json.loads(one.runnable("runs", "--from", repository, "--where", "lr < 1", "--json").out)
    assert [(run["run_id"], run["pinned"]) for run in found] == [("first", True)]
    one.runnable("prune", "--from", repository, "--keep", "0")
    assert len(json.loads(one.runnable("runs", "--from", repository, "--json").out)) == 1
