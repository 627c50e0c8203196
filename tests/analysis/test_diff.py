"""`diff` says what differs between two runs, which step diverges first, and why."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import Served, registry

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
lr = 0.1
rounds = 5
[steps.clean]
run = "sort data/raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric", model = "object" }
[steps.report]
run = "cat head.txt > report.txt; echo $score >> report.txt"
catalog = { put = ["report.txt"] }
""",
    "data/raw.csv": "c\nb\na\n",
    "head.txt": "Report\n",
    "train.py": "from scale import scale\ndef fit(lr, rounds):\n    rows = open('clean.csv').read().split()\n"
    "    return scale(lr * len(rows)) * rounds, {'rows': rows}\n",
    "scale.py": "def scale(value):\n    return value * 2\ndef unused():\n    return 1\n",
    ".gitignore": ".runnable\nclean.csv\nreport.txt\n__pycache__\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-j", "1", "--run-id", "first")
    return made


def compared(project: Workspace, *words: str) -> dict[str, Any]:
    """What `diff --json` prints."""
    found: dict[str, Any] = json.loads(project.runnable("diff", *words, "--json").out)
    return found


CHANGES: dict[str, tuple[Callable[[Workspace], None], list[str], str, list[tuple[str, str]]]] = {
    "a value": (
        lambda _: None,
        ["--param", "lr=0.01"],
        "`train` gives something else: `lr` 0.1 → 0.01",
        [("value", "lr")],
    ),
    "data": (
        lambda p: p.write({"data/raw.csv": "c\nb\na\nd\n"}),
        [],
        "`clean` gives something else: data/raw.csv changed",
        [("read", "data/raw.csv")],
    ),
    "code": (
        lambda p: p.replace("scale.py", "* 2", "* 3"),
        [],
        "`train` gives something else: scale.py changed",
        [("code", "scale.py")],
    ),
    "a definition": (
        lambda p: p.replace("runnable.toml", "sort data", "sort -r data"),
        [],
        "`clean` gives something else: its `run` sort data/raw.csv > clean.csv → sort -r data/raw.csv > clean.csv",
        [("definition", "run")],
    ),
    "a failure": (
        lambda p: p.replace("train.py", "rows = open", "rows = 1 / 0 or open"),
        [],
        "`train` succeeded in A and failed in B: ZeroDivisionError: division by zero (train.py:3); train.py changed",
        [("code", "train.py")],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_cause_comes_first(project: Workspace, change: str) -> None:
    """Of one planted change: which step gives something else first, and that it is the change."""
    make, options, sentence, causes = CHANGES[change]
    make(project)
    project.runnable("run", "-j", "1", "--run-id", "second", *options, code=int("failed" in sentence))
    found = compared(project, "first", "second")
    assert found["first"]["explanation"] == sentence
    assert [(one["kind"], one["name"]) for one in found["first"]["causes"]] == causes
    assert found["differs"]
    assert f"first difference: {sentence}" in project.runnable("diff", "first", "second").out
    back = compared(project, "second", "first")
    assert [(one["kind"], one["name"]) for one in back["first"]["causes"]] == causes


def test_what_follows_is_no_cause(project: Workspace) -> None:
    """Of two changes both are named; what a step received of another one that changed is said to be that one's."""
    project.write({"data/raw.csv": "c\nb\na\nd\n", "head.txt": "Another\n"})
    project.runnable("run", "-j", "1", "--run-id", "second")
    found = compared(project, "first", "second")
    assert found["first"]["step"] == "clean"
    assert [one["explanation"] for one in found["further"]] == ["`report` gives something else: head.txt changed"]
    received = {one["name"]: one["made_by"] for step in found["steps"] for one in step["inputs"]}
    assert received["clean.csv"] == "clean"
    assert received["score"] == "train"
    out = project.runnable("diff", "first", "second").out
    assert "train   from  clean.csv (by clean)" in out
    assert "also: `report` gives something else: head.txt changed" in out


def test_the_same_twice(project: Workspace) -> None:
    """Nothing is said to differ, and the exit code says so; what only one run printed or how long it took is no
    difference.
    """
    project.runnable("run", "-j", "1", "--run-id", "second")
    done = project.runnable("diff", "first", "second", "--exit-code")
    assert "nothing differs that was recorded, but for times\n" in done.out
    assert "3 steps of 3 the same" in done.out
    assert not compared(project, "first", "second")["differs"]


def test_another_printed_text_is_said(project: Workspace) -> None:
    """It is no difference of the runs, but nobody says that it is the same."""
    project.replace("runnable.toml", "cat head.txt >", "cat tips.txt; cat head.txt >")
    for run, text in (("second", "one"), ("third", "two")):
        project.write({"tips.txt": text})
        project.runnable("run", "-j", "1", "--run-id", run)
    assert "; `report` printed another text\n" in project.runnable("diff", "second", "third").out
    assert "printed" not in project.runnable("diff", "second", "second").out


def test_what_was_only_listed_has_no_hash(project: Workspace) -> None:
    """Of a name that a folder's listing has in one of the runs it is said that it was listed."""
    project.replace("runnable.toml", "sort data/raw.csv >", "ls data > n.txt; sort data/raw.csv >")
    for run, name in (("second", "old.csv"), ("third", "new.csv")):
        project.write({f"data/{name}": "x"})
        project.runnable("run", "-j", "1", "--run-id", run)
        (project.folder / "data" / name).unlink()
    rows = [
        line.split("  ") for line in project.runnable("diff", "second", "third").out.splitlines() if "data/" in line
    ]
    cells = {tuple(filter(None, map(str.strip, row)))[2:] for row in rows if row[0].startswith("clean")}
    assert cells == {("data/new.csv", "not listed", "listed"), ("data/old.csv", "listed", "not listed")}


def test_a_step_that_is_not_deterministic(project: Workspace) -> None:
    """Equal inputs and another result: that is said, not a cause invented."""
    project.replace("runnable.toml", "cat head.txt >", "date +%N; od -An -N8 -tx1 /dev/urandom >")
    for run in ("second", "third"):
        project.runnable("run", "-j", "1", "--run-id", run)
    found = compared(project, "second", "third")
    assert found["first"]["step"] == "report"
    assert found["first"]["causes"] == []
    assert "it is not deterministic, or takes what is not recorded" in found["first"]["explanation"]
    assert "a variable that `env-read` does not name" in found["first"]["explanation"]


def test_code_that_is_not_reached_is_no_cause(project: Workspace) -> None:
    """A function that nobody calls was changed, and a parameter: the parameter it was."""
    project.replace("scale.py", "return 1", "return 7")
    project.runnable("run", "-j", "1", "--run-id", "second", "--param", "rounds=6")
    found = compared(project, "first", "second")
    assert [(one["kind"], one["name"]) for one in found["first"]["causes"]] == [("value", "rounds")]
    assert [one["name"] for one in found["code"]["files"]] == ["scale.py"]


def test_commits_between_and_dirty_files(project: Workspace) -> None:
    """The commits between the runs are listed in their direction, and what had no commit."""
    project.replace("scale.py", "* 2", "* 3")
    project.git("commit", "-qam", "Scale by three")
    project.replace("train.py", "rows}", "rows[:1]}")
    project.runnable("run", "-j", "1", "--run-id", "second")
    code = compared(project, "first", "second")["code"]
    assert [line.partition(" ")[2] for line in code["commits"]] == ["Scale by three"]
    assert code["commits_back"] == []
    assert [one["name"] for one in code["files"]] == ["scale.py", "train.py"]
    assert (code["dirty_a"], code["dirty_b"]) == ("", "modified: train.py")
    assert "- " in project.runnable("diff", "second", "first").out.split("COMMITS")[1]


def test_words_for_runs(project: Workspace) -> None:
    """By default the newest run is compared with the last one before it that succeeded; a branch is its newest run."""
    project.git("checkout", "-qb", "topic")
    project.runnable("run", "-j", "1", "--run-id", "second", "--param", "lr=0.2")
    project.replace("train.py", "rows = open", "rows = 1 / 0 or open")
    project.runnable("run", "-j", "1", "--run-id", "third", code=1)
    assert project.runnable("diff").out.splitlines()[0].startswith("A  second  SUCCESS")
    found = compared(project, "main", "topic")
    assert (found["a"]["run_id"], found["b"]["run_id"]) == ("first", "third")
    assert compared(project, "latest-success", "second")["a"]["run_id"] == "first"
    wrong = project.runnable("diff", "frist", "second", code=2)
    assert "did you mean `first`?" in wrong.err


CONDITIONS = {
    "score < base - 0.01": 1,
    "score<base-0.01": 1,
    "score < 0.09 * base": 0,
    "base.score - score > 2 && rounds < 0 || score == 0.3": 2,
    "score / base < 0.2": 1,
    "metrics.score < base.metrics.score": 1,
    "score > base": 0,
    "-score > -base": 1,
    "duration < 0": 0,
    "scor < base": 2,
    "score <": 2,
    "base > 1": 2,
    "__import__('os')": 2,
}


@pytest.mark.parametrize(("condition", "code"), CONDITIONS.items())
def test_fail_if(tmp_path_factory: pytest.TempPathFactory, pair: Workspace, condition: str, code: int) -> None:
    """A condition on metrics decides the exit code; one that cannot be judged is an error."""
    done = pair.runnable("diff", "first", "second", "--fail-if", condition, code=code)
    if code < 2:
        assert f"{'fails' if code else 'passes'}: {condition}" in done.out


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two runs that differ in a value."""
    made = workspace(tmp_path_factory.mktemp("pair"), FILES)
    made.runnable("run", "-j", "1", "--run-id", "first")
    made.runnable("run", "-j", "1", "--run-id", "second", "--param", "lr=0.01")
    return made


def test_a_metric_that_is_no_number_fails(tmp_path: Path) -> None:
    """NaN is smaller than nothing: a condition that only compares would let it pass."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[parameters]\nx = 1.0\n[steps.s]\npython = "m:f"\nreturns = { score = "metric" }\n',
            "m.py": "def f(x):\n    return x if x < 2 else float('nan')\n",
        },
    )
    made.runnable("run", "--run-id", "a")
    made.runnable("run", "--run-id", "b", "--param", "x=3")
    assert "score is not a number" in made.runnable("diff", "a", "b", "--fail-if", "score < base", code=1).out
    made.runnable("run", "--run-id", "c", "--param", "x=0.0")
    for condition in (
        "score / base < 0.9",
        "(score - base) / (base - base) > 1",
        "1 / metrics.score > 7",
        "5 / (0 * base.score) < 0",
    ):
        done = made.runnable("diff", "c", "a" if "metrics" not in condition else "c", "--fail-if", condition, code=1)
        assert "the result of / is not a number, which fails" in done.out


def test_metrics_of_a_matrix(tmp_path: Path) -> None:
    """They are lists: their smallest, largest and each alone are numbers, the list itself is none, nor is NaN in it."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[parameters]\nx = 1.0\n[steps.s]\npython = "m:f"\nreturns = { score = "metric" }\n'
            "strategy = { matrix = { seed = [1, 2] } }\n",
            "m.py": "def f(x, seed):\n    return x * seed if x < 2 or seed == 1 else float('nan')\n",
        },
    )
    for name, x in {"a": "1", "b": "1.5", "odd": "3"}.items():
        made.runnable("run", "--run-id", name, "--param", f"x={x}")
    for condition, code in {
        "min(score) > base.score[0]": 1,
        "max(score, 7) > 7": 0,
        "score[1] > 2 * base.score[1]": 0,
        "score == base.score": 0,
        "contains(score, 3)": 1,
    }.items():
        made.runnable("diff", "a", "b", "--fail-if", condition, code=code)
    for condition, said in {
        "score < base": "score, base are not numbers",
        "score > 5": "score is not a number",
        "base.score * 2 < 1": "the result of * is not a number",
    }.items():
        assert f"{said}, which fails" in made.runnable("diff", "a", "b", "--fail-if", condition, code=1).out
    for condition in ("max(score) < 1", "score[0] < 1"):
        assert "score is not a number" in made.runnable("diff", "a", "odd", "--fail-if", condition, code=1).out
    listed = json.loads(made.runnable("runs", "--where", "min(score) > 1.2", "--json").out)
    assert {run["run_id"] for run in listed} == {"b"}


def test_exit_code(pair: Workspace) -> None:
    """3 says that the runs differ, only where that is asked for."""
    pair.runnable("diff", "first", "second")
    pair.runnable("diff", "first", "second", "--exit-code", code=3)
    pair.runnable("diff", "first", "first", "--exit-code")


def test_markdown_of_hostile_names(tmp_path: Path) -> None:
    """Values and names of others are no Markdown, HTML, mention or command."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": "[parameters]\nx = 'a'\n[steps.s]\nrun = 'echo \"$x\" > \"out|<b>@all.txt\"'\n"
            "catalog = { put = ['out*'] }\n"
        },
    )
    made.runnable("run", "--run-id", "a")
    made.runnable(
        "run", "--run-id", "b", "--param", "x=<img src=x onerror=alert(1)> | ![](http://e.org)\n::error::@everyone"
    )
    out = made.runnable("diff", "a", "b", "--markdown").out
    assert "<img" in out
    for line in out.splitlines():
        assert not line.startswith("::")
        outside = "".join(re.sub(r"\\.", "", line).split("`")[::2])
        assert "<" not in outside
        assert "![" not in outside
        assert "@e" not in outside


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def test_runs_of_a_registry(project: Workspace, served: Served, tmp_path: Path) -> None:
    """A reference is read from its registry, as is a branch that has no run here; nothing of it stays here."""
    repository = served.repository()
    project.environ["RUNNABLE_CI_REGISTRY"] = repository
    reference = project.runnable("publish", "first").out.split("@")[0].strip()
    other = elsewhere(project, tmp_path, "other")
    other.environ["RUNNABLE_CI_REGISTRY"] = repository
    other.git("checkout", "-qb", "topic")
    other.write({"data/raw.csv": "c\nb\na\nd\n"})
    other.runnable("run", "-j", "1", "--run-id", "second")
    for word in (reference, f"{repository}:latest", "first", "main"):
        found = compared(other, word, "second")
        assert found["a"]["run_id"] == "first"
        assert found["a"]["where"] == repository
        assert found["first"]["explanation"] == "`clean` gives something else: data/raw.csv changed"
    assert [run["run_id"] for run in json.loads(other.runnable("runs", "--json").out)] == ["second"]


def test_one_word_is_compared_with_the_newest_run(project: Workspace) -> None:
    """The newest run itself with the last success before it; where there is none that is said."""
    assert "no run beside first that succeeded" in project.runnable("diff", "first", code=2).err
    project.runnable("run", "--run-id", "second", "--param", "lr=0.2")
    for words in (["first"], ["second"]):
        found = compared(project, *words)
        assert (found["a"]["run_id"], found["b"]["run_id"]) == ("first", "second")
    assert "by reuse" not in project.runnable("diff", "first", "first").out


def test_environments_are_those_of_the_same_steps(tmp_path: Path) -> None:
    """A run that came to its shell steps alone has other packages than one with python steps, and none changed."""
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    steps = "[steps.a]\nrun = 'test -e well'\n[steps.b]\npython = 'm:f'\n"
    made = workspace(tmp_path, {"runnable.toml": f"python = '{python}'\n{steps}", "m.py": "def f():\n    pass\n"})
    made.write({"well": ""})
    made.runnable("run", "--run-id", "whole")
    (made.folder / "well").unlink()
    made.runnable("run", "--run-id", "half", code=1)
    log = made.log("whole")
    keys = {log.steps[name].attempts[-1].environment for name in ("a", "b")}
    assert len({tuple(log.environments[key].packages) for key in keys}) == 2
    assert [one for one in compared(made, "whole", "half")["environment"] if one["kind"] == "package"] == []


def test_what_was_asked_for_of_inputs_and_branches(tmp_path: Path) -> None:
    """An input that differs is one, and the output of a matrix is that of its branches."""
    steps = "[steps.each]\nrun = 'cat in.txt; echo $i'\nstrategy = { matrix = { i = [1, 2] } }\n"
    made = workspace(tmp_path, {"runnable.toml": steps, "in.txt": "1\n"})
    made.runnable("run", "--run-id", "one")
    made.write({"in.txt": "2\n"})
    made.runnable("run", "--run-id", "two")
    out = made.runnable("diff", "one", "two", "--file", "in.txt", "--logs", "each").out
    assert "in.txt: differs; no step made it, so the runs have only its hash" in out
    assert "each (1): 2 lines added or removed" in out
    assert "each (2): 2 lines added or removed" in out
