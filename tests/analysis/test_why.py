"""`why` says which of code, data, values and packages moved a metric, by runs put together from two others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

PIPELINE = """
name = "shop"
[parameters]
rate = 0.5
[steps.clean]
run = "sort data/raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric" }
[steps.report]
run = "echo score,$score > report.csv"
catalog = { put = ["report.csv"] }
"""
TRAIN = "def fit(rate):\n    return rate * len(open('clean.csv').read().split())\n"
FILES = {
    "runnable.toml": PIPELINE,
    "data/raw.csv": "c\nb\na\n",
    "train.py": TRAIN,
    ".gitignore": ".runnable\nclean.csv\nreport.csv\n__pycache__\nlarge\n.venv\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once, as `a`."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-j", "1", "--run-id", "a")
    return made


def changed(project: Workspace, files: dict[str, str], *words: str) -> None:
    """Commit other files, and run as `b`."""
    project.write(files)
    if project.git("status", "--short"):
        project.commit()
    project.runnable("run", "-j", "1", "--run-id", "b", *words)


def why(project: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    """What `why a b --metric score --json` prints."""
    done = project.runnable("why", "a", "b", "--metric", "score", "--json", "-j", "1", *words, code=code)
    found: dict[str, Any] = json.loads(done.out)
    return found


def known(project: Workspace) -> list[str]:
    """The runs of the store."""
    return [one["run_id"] for one in json.loads(project.runnable("runs", "--experiments", "--json").out)]


def effects(found: dict[str, Any]) -> dict[str, tuple[float | None, float | None, str]]:
    """Kind → what it did in A, in B, and how."""
    return {one["kind"]: (one["from_a"], one["from_b"], one["moved"]) for one in found["kinds"] if "moved" in one}


def differing(found: dict[str, Any]) -> dict[str, list[str]]:
    """Kind → what differs."""
    return {one["kind"]: one["what"] for one in found["kinds"] if one["differs"]}


def test_code_alone(project: Workspace) -> None:
    """One run, which takes everything of B; nothing is computed again, and the workspace stays as it is."""
    changed(project, {"train.py": TRAIN.replace("rate *", "2 * rate *")})
    before = project.git("status", "--short", "--ignored")
    found = why(project)
    assert (found["moved_by"], found["change"], found["rest"]) == (["code"], 1.5, 0)
    assert differing(found) == {"code": ["train.py"]}
    assert [(one["label"], one["value"], one["executed"]) for one in found["runs"]] == [
        ("A with the code of B", 3.0, [])
    ]
    assert project.git("status", "--short", "--ignored") == before
    assert project.log("latest").run_id == "b", "what was made to find something is not what comes next"
    assert "B  b " in project.runnable("diff", "a").out
    made = project.log(found["runs"][0]["run_id"])
    assert made.made_from is not None
    assert (made.made_from.code, made.made_from.data, made.made_from.purpose) == ("b", "a", "why")
    assert "made from    code of b; data, values of a (by why)" in project.runnable("show", made.run_id).out


def test_data_alone_though_code_differs_too(project: Workspace) -> None:
    """Code that differs and does nothing is told from the data, which are tracked by git as it is."""
    changed(project, {"data/raw.csv": "a\nb\nc\nd\n", "train.py": TRAIN + "\n# the same\n"})
    found = why(project)
    assert effects(found) == {"code": (0.0, 0.0, "none"), "data": (0.5, 0.5, "alone")}
    assert differing(found) == {"code": ["train.py"], "data": ["data/raw.csv"]}
    text = project.runnable("why", "a", "b", "--metric", "score").out
    assert "`score` 1.5 → 2 (+0.5): moved by data (+0.5)" in text


def test_ignored_data(project: Workspace) -> None:
    """Files that git does not track come from here where they have the hash; those of the other run cannot be had.

    Then all runs get the data of the one, and both are made again with them.
    """
    pipeline = PIPELINE.replace("data/raw.csv", "large/raw.csv")
    project.write({"large/raw.csv": "a\n"})
    changed(project, {"runnable.toml": pipeline})
    project.runnable("tag", "b", "first")
    project.write({"large/raw.csv": "a\nb\n"})
    project.runnable("run", "-j", "1", "--run-id", "c")
    done = project.runnable("why", "b", "c", "--metric", "score", "--json", "-j", "1", code=4)
    found = json.loads(done.out)
    [data] = [one for one in found["kinds"] if one["kind"] == "data"]
    assert "large/raw.csv, which it read, is another file now" in data["not_comparable"]
    assert "not comparable" in done.err
    assert found["runs"][0]["label"] == "A, made again here"


def test_values_alone(project: Workspace) -> None:
    """A value on the command line."""
    changed(project, {"README.md": "text\n"}, "--param", "rate=1.0")
    found = why(project)
    assert effects(found) == {"code": (0.0, 0.0, "none"), "values": (1.5, 1.5, "alone")}
    assert differing(found)["values"] == ["`rate` 0.5 → 1"]
    assert [one["executed"] for one in found["runs"]] == [[], [], []], "nothing has to be computed for that"


def test_the_metric_of_an_instance(tmp_path: Path) -> None:
    """The metric of a matrix is a list, which nothing moves by an amount: each instance's has the name of `diff`."""
    matrix = "[steps.train]\nstrategy = { matrix = { seed = [1, 2] } }"
    pipeline = PIPELINE.replace("[steps.train]", matrix).replace("echo score,$score", "echo")
    train = "def fit(rate, seed):\n    return rate if seed == 1 else 1.0\n"
    made = workspace(tmp_path, FILES | {"runnable.toml": pipeline, "train.py": train})
    made.runnable("run", "--run-id", "a")
    made.runnable("run", "--run-id", "b", "--param", "rate=0.75")
    whole = made.runnable("why", "a", "b", "--metric", "score", code=2)
    assert "`score` of run a is no number: [0.5, 1.0]" in whole.err
    assert "name one of `score: train (1)`, `score: train (2)`" in whole.err
    done = made.runnable("why", "a", "b", "--metric", "score: train (1)", "--json")
    assert effects(json.loads(done.out)) == {"values": (0.25, 0.25, "alone")}
    assert "report |" not in done.err  # which no metric needs
    assert "nothing moved it" in made.runnable("why", "a", "b", "--metric", "score: train (2)", code=2).err


def test_two_that_act_together(project: Workspace) -> None:
    """Neither moves it in A by as much as in B: both are named, with both effects."""
    train = "def fit(rate, extra=0):\n    return rate * len(open('clean.csv').read().split()) ** 2\n"
    changed(project, {"train.py": train}, "--param", "rate=1.0")
    found = why(project)
    assert (found["moved_by"], found["together"]) == (["code", "values"], ["code", "values"])
    assert effects(found) == {"code": (3.0, 6.0, "together"), "values": (1.5, 4.5, "together")}
    assert found["executed"] == 2, "`train` once for each run that is neither A nor B"


def test_three_and_no_run_twice(project: Workspace) -> None:
    """Each is swapped in A and in B; asked again, the runs that are there are taken."""
    train, raw = "def fit(rate):\n    return rate + len(open('clean.csv').read().split())\n", "a\nb\n"
    project.write({"train.py": train})
    project.commit()
    project.runnable("run", "-j", "1", "--run-id", "a2")
    changed(project, {"train.py": train.replace("+", "+ 10 +"), "data/raw.csv": raw}, "--param", "rate=1.5")
    words = ("why", "a2", "b", "--metric", "score", "--json", "-j", "1")
    found = json.loads(project.runnable(*words).out)
    assert {kind: one[0] for kind, one in effects(found).items()} == {"code": 10.0, "data": -1.0, "values": 1.0}
    assert not found["together"]
    assert len(found["runs"]) == 7
    runs = known(project)
    again = json.loads(project.runnable(*words).out)
    assert all(one["made_before"] for one in again["runs"])
    assert effects(again) == effects(found)
    assert known(project) == runs


def test_chance(project: Workspace) -> None:
    """What differs by chance is none of the kinds, also where code differs that does nothing."""
    project.write({"train.py": "import os\ndef fit(rate):\n    return int.from_bytes(os.urandom(4), 'big')\n"})
    project.commit()
    project.runnable("run", "-j", "1", "--run-id", "r1")
    project.runnable("run", "-j", "1", "--run-id", "r2")
    project.write({"README.md": "text\n"})
    project.commit()
    project.runnable("run", "-j", "1", "--run-id", "r3")
    for pair, kinds in ((("r1", "r2"), {}), (("r1", "r3"), {"code": (0.0, 0.0, "none")})):
        done = project.runnable("why", *pair, "--metric", "score", "--json", "-j", "1", code=1)
        found = json.loads(done.out)
        assert (found["moved_by"], effects(found)) == ([], kinds)
        assert found["rest"] == found["change"]
    text = project.runnable("why", "r1", "r2", "--metric", "score", code=1).out
    assert "none of code, data, values and packages moved it" in text
    assert "runnable-ci reproduce r1 --times 5" in text


def test_packages(tmp_path: Path) -> None:
    """Virtual environments of the recorded versions, whatever is here now."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": 'name = "p"\npython = ".venv/bin/python"\n[parameters]\nx = 1\n[steps.s]\n'
            'python = "m:f"\nreturns = { score = "metric" }\n',
            "m.py": "import six\ndef f(x):\n    return x + int(six.__version__.split('.')[1])\n",
            ".gitignore": ".runnable\n.venv\n__pycache__\n",
        },
    )
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=made.folder, check=True)
    pip = [".venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "six==1.16.0"], cwd=made.folder, check=True)
    made.runnable("run", "--run-id", "a")
    subprocess.run([*pip, "six==1.17.0"], cwd=made.folder, check=True)
    made.runnable("run", "--run-id", "b", "--param", "x=5")
    found = why(made)
    assert effects(found) == {"values": (4.0, 4.0, "alone"), "packages": (1.0, 1.0, "alone")}
    assert differing(found)["packages"] == ["the package six 1.16.0 → 1.17.0"]


def test_secrets_are_given_again(project: Workspace) -> None:
    """What the runs do not have is given to all that are made; nothing that is kept can betray it."""
    pipeline = PIPELINE.replace("rate = 0.5", 'rate = 0.5\nkey = ""')
    code = "def fit(rate, key):\n    return {} * rate * len(key)\n"
    project.environ.update(RUNNABLE_CI_SECRETS="KEY", KEY="hunter2-hunter2")
    project.write({"runnable.toml": pipeline, "train.py": code.format(1)})
    project.commit()
    project.runnable("run", "-j", "1", "--run-id", "s", "--param", "key=hunter2-hunter2")
    changed(project, {"train.py": code.format(2)}, "--param", "key=hunter2-hunter2")
    words = ("why", "s", "b", "--metric", "score", "--json", "-j", "1", "--param", "key=hunter2-hunter2")
    done = project.runnable(*words)
    found = json.loads(done.out)
    assert found["moved_by"] == ["code"]
    assert "`key` was a secret, which the run log does not have" in found["not_held"]
    made = project.log(found["runs"][0]["run_id"]).made_from
    assert made is not None
    assert made.key == ""
    assert "hunter2" not in done.out + done.err


def test_a_run_that_fails_says_so(project: Workspace) -> None:
    """Where B's code cannot do with A's values, it is not known what each did, and the runs can be opened."""
    strict = "def fit(rate):\n    assert rate > 1, 'too small'\n    return rate\n"
    changed(project, {"train.py": strict}, "--param", "rate=7.0")
    found = why(project, code=4)
    assert found["not_known"] == ["code", "values"]
    failed = next(one for one in found["runs"] if one["failure"])
    assert (failed["label"], failed["value"]) == ("A with the code of B", None)
    assert "`train` failed" in failed["failure"]
    assert project.log(failed["run_id"]).outcome == "failed"


def test_the_plan(project: Workspace) -> None:
    """`-n` says what differs and which runs it takes, and makes none."""
    changed(project, {"train.py": TRAIN.replace("rate *", "2 * rate *"), "data/raw.csv": "a\n"})
    runs = known(project)
    done = project.runnable("why", "a", "b", "--metric", "score", "-n")
    assert "code differs: train.py" in done.out
    assert "data differ: data/raw.csv" in done.out
    assert "3 runs, in which only what changed runs" in done.out
    assert known(project) == runs


def test_uncommitted_code(project: Workspace) -> None:
    """Dirty trees are rebuilt as they were."""
    project.write({"train.py": "from new import fit\n", "new.py": TRAIN.replace("rate *", "4 * rate *")})
    project.runnable("run", "-j", "1", "--run-id", "b")
    project.git("checkout", "-q", "train.py")
    (project.folder / "new.py").unlink()
    found = why(project)
    assert (found["moved_by"], differing(found)) == (["code"], {"code": ["new.py", "train.py"]})


def test_bad_input(project: Workspace, tmp_path: Path) -> None:
    """One clear error with a hint, before anything is made."""

    def error(*words: str) -> str:
        return project.runnable("why", *words, code=2).err

    changed(project, {"data/raw.csv": "a\n"})
    assert "has no metric `scor`" in error("a", "b", "--metric", "scor")
    assert "did you mean `score`?" in error("a", "b", "--metric", "scor")
    assert "A and B are the same run, a" in error("a", "a", "--metric", "score")
    project.runnable("run", "-j", "1", "--run-id", "c")
    assert "`score` is 0.5 in both runs: nothing moved it" in error("b", "c", "--metric", "score")
    project.write({"runnable.toml": PIPELINE.replace('returns = { score = "metric" }', "")})
    project.runnable("run", "-j", "1", "--run-id", "d", "--until", "train")
    assert "run d has no metric `score`" in error("a", "d", "--metric", "score")
    project.write({"other.toml": PIPELINE.replace("shop", "else").replace("score =", "other =").replace("$score", "x")})
    project.runnable("run", "-f", "other.toml", "-j", "1", "--run-id", "o")
    assert "the runs are of different pipelines" in error("a", "o", "--metric", "score")
