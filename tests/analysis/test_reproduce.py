"""`reproduce` makes a run again from what is recorded of it, and says whether it comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
rate = 0.1
[steps.clean]
run = "sort data/raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric", model = "object" }
[steps.report]
run = "echo score,$score > report.csv"
catalog = { put = ["report.csv"] }
""",
    "data/raw.csv": "c\nb\na\n",
    "train.py": "def fit(rate):\n    rows = open('clean.csv').read().split()\n"
    "    return rate * len(rows), {'rows': rows}\n",
    ".gitignore": ".runnable\nclean.csv\nreport.csv\n__pycache__\nlarge\n",
}
REPRODUCED = {"clean": "reproduced", "train": "reproduced", "report": "reproduced"}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-j", "1", "--run-id", "first")
    return made


def reproduced(project: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    """What `reproduce --json` prints."""
    found: dict[str, Any] = json.loads(project.runnable("reproduce", *words, "--json", "-j", "1", code=code).out)
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """Step → its verdict."""
    return {name: step["verdict"] for name, step in found["steps"].items()}


@pytest.mark.promise
def test_it_comes_out_though_all_has_changed_since(project: Workspace) -> None:
    """Code, data and parameters are those of the run, whatever they are now; the workspace stays as it is."""
    project.write({"data/raw.csv": "x\n", "train.py": "def fit(rate):\n    return 0, None\n", "clean.csv": "mine\n"})
    project.write({"runnable.toml": FILES["runnable.toml"].replace("rate = 0.1", "rate = 7")})
    before = project.git("status", "--short")
    found = reproduced(project, "first")
    assert (found["verdict"], verdicts(found)) == ("reproduced", REPRODUCED)
    assert project.git("status", "--short") == before
    assert project.read("clean.csv") == "mine\n"
    again = project.log(found["kept_as"])
    assert again.reproduction is not None
    assert (again.reproduction.run_id, again.reproduction.verdict) == ("first", "reproduced")
    assert again.reproduction.identity == project.log("first").invocations[0].identity
    assert "reproduces   first: reproduced" in project.runnable("show", found["kept_as"]).out


def test_uncommitted_code_is_made_again(project: Workspace) -> None:
    """A dirty tree is rebuilt as it was, untracked files with it."""
    project.write({"train.py": "from new import fit\n", "new.py": FILES["train.py"]})
    project.runnable("run", "-j", "1", "--run-id", "dirty")
    project.git("checkout", "-q", "train.py")
    (project.folder / "new.py").unlink()
    assert reproduced(project, "dirty")["verdict"] == "reproduced"


def test_a_run_that_failed_fails_again(project: Workspace) -> None:
    """The same failure is reproduced; what never ran is no part of it."""
    project.write({"train.py": "def fit(rate):\n    raise ValueError(rate)\n"})
    project.runnable("run", "-j", "1", "--run-id", "bad", code=1)
    found = reproduced(project, "bad")
    assert verdicts(found) == {"clean": "reproduced", "train": "reproduced"}


def test_ignored_inputs_come_from_the_workspace_by_their_hash(project: Workspace) -> None:
    """Data outside of git is used where it is the same, and where not nothing is said to be comparable."""
    project.write({"large/data.csv": "1\n2\n"})
    project.write({"runnable.toml": FILES["runnable.toml"].replace("data/raw.csv", "large/data.csv")})
    project.runnable("run", "-j", "1", "--run-id", "large")
    assert reproduced(project, "large")["verdict"] == "reproduced"
    project.write({"large/data.csv": "1\n3\n"})
    found = reproduced(project, "large", code=4)
    assert found["verdict"] == "not comparable"
    assert "large/data.csv, which it read, is another file now" in found["steps"]["clean"]["reason"]
    assert verdicts(found)["train"] == "not comparable"
    assert "not comparable: `clean`" in project.runnable("reproduce", "large", code=4).err


def test_different_and_its_origin(project: Workspace) -> None:
    """A step that gives something else from the same is different; what follows from it says so."""
    project.write({"train.py": "import os\ndef fit(rate):\n    return int.from_bytes(os.urandom(4), 'big'), None\n"})
    project.runnable("run", "-j", "1", "--run-id", "random")
    found = reproduced(project, "random", code=1)
    assert verdicts(found) == {"clean": "reproduced", "train": "different", "report": "different"}
    assert found["steps"]["report"]["follows"] == "train"
    assert "the metric `score`" in found["steps"]["train"]["reason"]


def test_within_tolerance(project: Workspace) -> None:
    """Numbers that are near count as such where that is asked for, in metrics, values and files."""
    project.write(
        {"train.py": "import os\ndef fit(rate):\n    return 1 + int.from_bytes(os.urandom(2), 'big') * 1e-9, None\n"}
    )
    project.runnable("run", "-j", "1", "--run-id", "near")
    found = reproduced(project, "near", "--rtol", "0.01")
    assert verdicts(found) == {"clean": "reproduced", "train": "within tolerance", "report": "within tolerance"}
    assert (found["verdict"], found["rtol"]) == ("within tolerance", 0.01)
    assert reproduced(project, "near", "--atol", "1e-15", code=1)["verdict"] == "different"


def test_what_cannot_be_held_equal_is_said_first(project: Workspace) -> None:
    """Before anything runs: secrets, the network, mocks."""
    project.write({"train.py": "def fit(key):\n    return 1, None\n"})
    project.write({"runnable.toml": FILES["runnable.toml"].replace("rate = 0.1", 'key = ""')})
    project.environ.update(RUNNABLE_CI_SECRETS="KEY", KEY="hunter2-hunter2")
    project.runnable("run", "-j", "1", "--run-id", "secret", "--param", "key=hunter2-hunter2", "--mock", "clean")
    done = project.runnable("reproduce", "secret", "-j", "1", "--param", "key=x")
    said = done.err.split("run secret-again")[0]
    assert "not held equal: `train` was given secrets, which the run log does not have: key" in said
    assert "left out: `clean`: it was mocked; `--include clean` runs it" in said
    assert "run secret: reproduced; left out: `clean`" in done.out
    said = project.runnable("reproduce", "secret", "--include", "clean", "-j", "1", code=4).err
    assert "not held equal: `clean` was mocked" in said
    assert "hunter2" not in done.err + done.out


def test_without_a_repository(tmp_path: Path) -> None:
    """Code that is not recorded cannot be made again: an error, and nothing runs."""
    made = workspace(tmp_path, FILES, git=False)
    made.runnable("run", "--run-id", "first")
    assert "has no commit: not a git repository" in made.runnable("reproduce", "first", code=1).err


def test_the_recorded_packages(tmp_path: Path) -> None:
    """A virtual environment of the recorded versions, though another one is here now; both said."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": 'python = ".venv/bin/python"\n[steps.s]\npython = "m:f"\nreturns = ["version"]\n',
            "m.py": "import six\ndef f():\n    return six.__version__\n",
            ".gitignore": ".runnable\n.venv\n__pycache__\n",
        },
    )
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=made.folder, check=True)
    pip = [".venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "six==1.16.0"], cwd=made.folder, check=True)
    made.runnable("run", "--run-id", "first")
    subprocess.run([*pip, "six==1.17.0"], cwd=made.folder, check=True)
    found = reproduced(made, "first", code=3)
    assert found["verdict"] == "other hardware or packages"
    assert "six" in found["steps"]["s"]["reason"]
    assert any("six 1.16.0" in line for line in found["not_held"])
    assert reproduced(made, "first", "--environment", "recorded")["verdict"] == "reproduced"


@pytest.mark.parametrize("place", ["{outside}/bin/python", "../outside/bin/python"])
def test_an_environment_that_is_not_in_the_tree_is_left_alone(tmp_path: Path, place: str) -> None:
    """To replace its packages would change what is the user's own."""
    outside = tmp_path / "outside"
    (outside / "bin").mkdir(parents=True)
    (outside / "bin" / "python").symlink_to(sys.executable)
    named = f"python = {json.dumps(place.format(outside=outside))}\n"
    made = workspace(tmp_path, {**FILES, "runnable.toml": named + FILES["runnable.toml"]})
    made.runnable("run", "--run-id", "first")
    done = made.runnable("reproduce", "first", "--environment", "recorded", code=1)
    assert "`python` of the pipeline is not that of an environment in the project" in done.err
    assert [path.relative_to(outside).as_posix() for path in outside.rglob("*")] == ["bin", "bin/python"]


def test_a_reproduction_is_no_measure_of_others(project: Workspace) -> None:
    """What is made again is the newest run of a person; a branch and `latest-success` are never a reproduction."""
    project.runnable("reproduce", "latest", "-q", "-j", "1")
    assert "run first: reproduced" in project.runnable("reproduce", "latest", "-q", "-j", "1").out
    project.runnable("run", "-q", "-j", "1", "--run-id", "second")
    found = json.loads(project.runnable("diff", "--json").out)
    assert (found["a"]["run_id"], found["b"]["run_id"]) == ("first", "second")
    assert "run first-again-1: reproduced" in project.runnable("reproduce", "first-again-1", "-q", "-j", "1").out
