"""`explain` names where a run failed, which input differs from the last success, and how to resume."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from notebooks import notebook
from registry_server import registry

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
depth = 3
source = "data/raw.csv"
[steps.clean]
run = "bash clean.sh"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric" }
[steps.report]
run = "python report.py > report.txt"
catalog = { put = ["report.txt"] }
""",
    "data/raw.csv": "c,3\nb,2\na,1\n",
    "settings.json": '{"scale": 2}',
    "clean.sh": 'set -e\nsource lib.sh\nsort "$source" > clean.csv\ncheck clean.csv\n',
    "lib.sh": 'check() {\n  grep -q , "$1" || { echo "no commas in $1" >&2; return 3; }\n}\n',
    "train.py": "import json\nfrom scale import scale\n\n\ndef fit(depth):\n"
    "    rows = [line.split(',') for line in open('clean.csv').read().split()]\n"
    "    return scale(sum(int(row[1]) for row in rows), json.load(open('settings.json'))['scale']) / depth\n",
    "scale.py": "def scale(value, by):\n    return value * by\n",
    "report.py": "import os\nscore = float(os.environ['score'])\nprint('score', score)\nassert score > 0, score\n",
    "other.py": "raise ValueError('other')\n",
    ".gitignore": ".runnable\nclean.csv\nreport.txt\n__pycache__\n",
}


@dataclass(frozen=True)
class Failure:
    """A planted failure: what is changed, and what must be named."""

    step: str
    file: str
    line: int
    differs: str
    """What is said of the input that differs."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """File → a text in it, and what stands there instead."""
    options: tuple[str, ...] = ()
    first: str = ""
    """Another step, before it, that gives something else."""


FAILURES = {
    "a value": Failure("train", "train.py", 7, "`depth` 3 → 0", options=("--param", "depth=0")),
    "a module": Failure(
        "train", "scale.py", 2, "scale.py changed", {"scale.py": ("value * by", "value * by.real.missing")}
    ),
    "the function": Failure(
        "train", "train.py", 6, "train.py changed", {"train.py": ("open('clean.csv')", "open('cleen.csv')")}
    ),
    "data": Failure("train", "train.py", 7, "clean.csv changed", {"data/raw.csv": ("b,2", "b,two")}),
    "settings": Failure("train", "train.py", 7, "settings.json changed", {"settings.json": ("scale", "factor")}),
    "a script": Failure("clean", "clean.sh", 3, "clean.sh changed", {"clean.sh": ("sort ", "sorrt ")}),
    "a sourced script": Failure("clean", "lib.sh", 2, "lib.sh changed", {"lib.sh": ("grep ", "greep ")}),
    "a program": Failure("report", "report.py", 3, "report.py changed", {"report.py": ("score)", "scor)")}),
    "a value that a step made": Failure(
        "report",
        "report.py",
        4,
        "`score` 4 → -4",
        {"settings.json": ('"scale": 2', '"scale": -2')},
        first="train",
    ),
    "a definition": Failure(
        "report",
        "other.py",
        1,
        "its `run` python report.py > report.txt → ",
        {"runnable.toml": ("report.py", "other.py")},
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-j", "1", "--run-id", "good")
    return made


def explained(project: Workspace, *words: str) -> dict[str, Any]:
    """The document."""
    text = project.runnable("explain", *words, "--json").out
    assert len(text.encode()) <= 32 * 1024
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_ten_planted_failures(project: Workspace, failure: Failure) -> None:
    """Of each: the step, the file and line, and what differs from the last success."""
    for name, (old, new) in failure.files.items():
        project.replace(name, old, new)
    project.runnable("run", "-j", "1", "--run-id", "bad", *failure.options, code=1)
    document = explained(project)
    (found,) = document["failures"]
    assert (found["step"], found["file"]) == (failure.step, failure.file)
    assert found["line"] == failure.line
    assert any(one["says"].startswith(failure.differs) for one in found["differs"]), found["differs"]
    assert document["changed"]["since"]["run_id"] == "good"
    assert document["commands"]["resume"] == "runnable-ci retry bad"
    out = project.runnable("explain").out
    assert f"{failure.file}:{failure.line}" in out
    assert not re.search(r"\bin [AB]\b", out)  # nobody said which runs these are
    if failure.first:
        assert f"first difference: `{failure.first}` gives something else" in out
    else:
        assert f"`{failure.step}` succeeded in run good and failed in run bad" in out


def test_the_commands_work(project: Workspace) -> None:
    """Each is whole, and does what it says."""
    project.write({"scale.py": FILES["scale.py"].replace("by\n", "no\n")})
    project.runnable("run", "-j", "1", "--run-id", "bad", code=1)
    commands = explained(project)["commands"]
    project.write({"scale.py": FILES["scale.py"]})
    for what in ("output", "what changed", "plan of the resume", "resume"):
        program, *words = commands[what].split()
        assert program == "runnable-ci"
        project.runnable(*words)
    assert project.log("bad").status == "SUCCESS"


@pytest.mark.parametrize("name", ["bad", "REGISTRY:bad", "latest"])
def test_from_another_clone(project: Workspace, tmp_path: Path, name: str) -> None:
    """A published run says the same in another folder, of whatever registry it was asked; the commands work there."""
    project.write({"scale.py": FILES["scale.py"].replace("by\n", "no\n")})
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "good", "--to", repository)
        project.runnable("run", "-j", "1", "--run-id", "bad", "--to", repository, code=1)
        here = explained(project)
        other = elsewhere(project, tmp_path, "other")
        if "REGISTRY" not in name:
            other.environ["RUNNABLE_CI_REGISTRY"] = repository
        document = explained(other, name.replace("REGISTRY", repository))
        other.environ.pop("RUNNABLE_CI_REGISTRY", None)
        assert document["failures"] == here["failures"]
        assert document["changed"]["says"] == here["changed"]["says"]
        for what in ("output", "what changed", "plan of the resume", "resume"):
            other.runnable(*document["commands"][what].split()[1:])


def test_code_and_a_value_together(tmp_path: Path) -> None:
    """Beside changed code the value of a step before it is named, which may be why it failed."""
    steps = "[parameters]\nstart = 1\n[steps.one]\nrun = 'echo n=$start >> $RUNNABLE_OUTPUT'\nreturns = ['n']\n"
    made = workspace(
        tmp_path,
        {
            "runnable.toml": f"{steps}[steps.two]\npython = 'm:f'\n",
            "m.py": "def f(n):\n    assert n > 0, 'none'\n",
        },
    )
    made.runnable("run", "--run-id", "good")
    made.replace("m.py", "'none'", "'too few'")
    made.runnable("run", "--run-id", "bad", "--param", "start=0", code=1)
    document = explained(made)
    assert any("m.py changed, `n` 1 → 0" in line for line in document["changed"]["says"]), document["changed"]["says"]


def test_a_run_that_succeeded(project: Workspace) -> None:
    """There is nothing to explain, and it is said what changed since the one before."""
    project.runnable("run", "-j", "1", "--run-id", "second", "--param", "depth=2")
    document = explained(project)
    assert document["failures"] == []
    assert "resume" not in document["commands"]
    assert [one["says"] for one in document["changed"]["values"]] == ["`depth` 3 → 2"]


def test_a_program_that_does_not_say_where(project: Workspace) -> None:
    """Then the code that differs is named, without a line."""
    project.write({"clean.sh": FILES["clean.sh"].replace("sort", "sort --no-such")})
    project.runnable("run", "-j", "1", "--run-id", "bad", code=1)
    (found,) = explained(project)["failures"]
    assert (found["file"], found["line"]) == ("clean.sh", 0)


def test_a_program_that_raises(project: Workspace) -> None:
    """What its traceback says is the headline, not its exit code."""
    project.write({"report.py": "known = {}\nprint(known['jp'])\n"})
    project.runnable("run", "-j", "1", "--run-id", "bad", code=1)
    (found,) = explained(project)["failures"]
    assert (found["exception"], found["exit_code"]) == ("KeyError: 'jp'", 1)
    assert "`report` failed at report.py:2: KeyError: 'jp'\n" in project.runnable("explain").out


def test_a_notebook(tmp_path: Path) -> None:
    """Its cell is named, not the line of the file."""
    made = workspace(
        tmp_path,
        {"runnable.toml": '[steps.s]\nnotebook = "nb.ipynb"\n', "nb.ipynb": notebook("x = 1", "y = 2", "x / 0")},
    )
    made.runnable("run", code=1)
    assert "`s` failed at nb.ipynb, cell 3: ZeroDivisionError: " in made.runnable("explain").out


def test_a_parameter_is_set_back(project: Workspace) -> None:
    """Where nothing else differs, resuming with the value of the last success is suggested, and succeeds."""
    project.runnable("run", "-j", "1", "--run-id", "bad", "--param", "depth=0", code=1)
    resume = explained(project)["commands"]["resume as in run good"]
    assert resume == "runnable-ci retry bad --param depth=3"
    out = project.runnable("explain", "--json", RUNNABLE_CI_SECRETS="HERE", HERE="depth=3").out
    assert "resume as in run good" not in json.loads(out)["commands"]
    project.replace("scale.py", "by\n", "by + 1\n")
    project.runnable("run", "-j", "1", "--run-id", "both", "--param", "depth=0", code=1)
    assert [*explained(project)["commands"]] == ["resume", "plan of the resume", "output", "what changed"]
    project.runnable(*resume.split()[1:])
    assert project.log("bad").status == "SUCCESS"


def test_the_last_success_of_the_branch(project: Workspace) -> None:
    """It is preferred; one of another branch is said to be that."""
    project.git("checkout", "-q", "-b", "feat")
    project.runnable("run", "-j", "1", "--run-id", "other", "--param", "depth=2")
    project.git("checkout", "-q", "main")
    project.runnable("run", "-j", "1", "--run-id", "bad", "--param", "depth=0", code=1)
    assert explained(project)["changed"]["since"]["run_id"] == "good"
    assert "since run good, the last that succeeded:\n" in project.runnable("explain").out
    project.git("checkout", "-q", "-b", "third")
    project.runnable("run", "-j", "1", "--run-id", "third", "--param", "depth=0", code=1)
    assert "since run other, the last that succeeded, of another branch, feat:\n" in project.runnable("explain").out


def test_the_first_run_of_all(tmp_path: Path) -> None:
    """Nothing can be compared, and that is said; the place is named nevertheless."""
    made = workspace(
        tmp_path, {"runnable.toml": '[steps.s]\nrun = "python x.py"\n', "x.py": "import sys\nsys.exit(boom)\n"}
    )
    made.runnable("run", code=1)
    document = explained(made)
    (found,) = document["failures"]
    assert (found["file"], found["line"]) == ("x.py", 2)
    assert document["not_compared"] == "there is no earlier run that succeeded"


def test_it_stays_small(tmp_path: Path) -> None:
    """A matrix of failures, long values, and megabytes of output are cut to what fits."""
    steps = "".join(f'[steps.s{i}]\nneeds = []\nrun = "python x.py"\n' for i in range(60))
    parameters = "".join(f'p{i} = "{"v" * 500}"\n' for i in range(100))
    program = "import os\nfor i in range(3000): print('€' * 100)\nraise ValueError('x' * 100_000)\n"
    made = workspace(tmp_path, {"runnable.toml": f"[parameters]\n{parameters}{steps}", "x.py": program})
    made.runnable("run", "-q", code=1)
    document = explained(made)
    assert document["failures"]
    assert document["run"]["status"] == "FAIL"
    assert document["steps"]["failed"]["number"] == 60


def test_secrets_stay_out(project: Workspace) -> None:
    """Also one that is a secret only now."""
    project.write({"report.py": "raise SystemExit('key is hunter2-hunter2')\n"})
    project.runnable("run", "-j", "1", "--run-id", "bad", code=1)
    project.environ.update(RUNNABLE_CI_SECRETS="API_KEY", API_KEY="hunter2-hunter2")
    for words in (("explain", "--json"), ("explain",)):
        out = project.runnable(*words).out
        assert "hunter2" not in out
        assert "***" in out
