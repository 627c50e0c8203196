"""Results of other runs take the place of steps where all that they were made from is equal, else it is said."""

from __future__ import annotations

import sqlite3
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cli import Workspace, workspace
from preloaded import runnable

from runnable_ci.util import files as util_files

FILES = {
    "runnable.toml": """
reuse = "any-run"
[parameters]
depth = 3
[steps.clean]
run = "sort data/raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric", model = "object" }
[steps.report]
run = "python report.py > report.txt"
catalog = { put = ["report.txt"] }
""",
    "data/raw.csv": "c\nb\na\n",
    "train.py": "from scale import scale\ndef fit(depth):\n    rows = open('clean.csv').read().split()\n"
    "    return scale(depth * len(rows)), {'rows': rows}\n",
    "scale.py": "def scale(value):\n    return value * 2\ndef other():\n    return 1\n",
    "report.py": "import os\nprint('score', os.environ['score'], open('data/raw.csv').read())\n",
    "requirements.txt": "# none\n",
    ".gitignore": ".runnable\nclean.csv\nreport.txt\n__pycache__\n",
}
ALL = ["clean", "train", "report"]


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "--run-id", "first")
    return made


def reused(project: Workspace, run: str = "latest") -> list[str]:
    """The steps whose results a run took of another one."""
    log = project.log(run)
    return [name for name, step in log.steps.items() if step.attempts[-1].taken_from]


def test_results_that_are_taken_reach_the_disk_together(tmp_path: Path) -> None:
    """A run that takes twenty waits for the disk as often as one that takes two."""
    counts = []
    for steps in (2, 20):
        lines = ['reuse = "any-run"']
        for number in range(steps):
            lines += [f"[steps.s{number}]", f'run = "cat in.txt > {number}.txt"', f'catalog.put = ["{number}.txt"]']
        files = {"runnable.toml": "\n".join(lines) + "\n", "in.txt": "in\n", ".gitignore": ".runnable\n[0-9]*.txt\n"}
        (folder := tmp_path / str(steps)).mkdir()
        made, counted = workspace(folder, files), tmp_path / f"counted{steps}"
        made.runnable("run", "-j", "1", "--run-id", "first")
        synced: list[int] = []

        def count(synced: list[int] = synced) -> None:
            to_disk = util_files._to_disk

            def counted_to_disk(descriptor: int) -> None:
                synced.append(descriptor)
                to_disk(descriptor)

            util_files._to_disk = counted_to_disk

        def tell(synced: list[int] = synced, counted: Path = counted) -> None:
            counted.write_text(str(len(synced)))

        words = ("run", "-j", "1", "--run-id", "second")
        code, said = runnable(made.folder, *words, environ=made.environ, prepare=count, finish=tell)
        assert code == 0, said
        assert len(reused(made, "second")) == steps
        counts.append(int(counted.read_text()))
    assert counts[0] == counts[1] > 0


@pytest.mark.promise
def test_nothing_is_computed_twice(project: Workspace) -> None:
    """All is taken, with its files, values, output and origin, and said before anything runs."""
    planned = project.runnable("run", "--dry-run").out
    assert planned.count("  reuse  run first, attempt 1, first made by A at ") == len(ALL)
    done = project.runnable("run", "--run-id", "second")
    assert "3 reused from run first, saved " in done.err
    assert (project.read("clean.csv"), project.read("report.txt")[:8]) == ("a\nb\nc\n", "score 18")
    log = project.log("second")
    last = log.steps["train"].attempts[-1]
    assert (last.taken_from, last.taken_by, log.metrics()) == ("first/train.1", "A", {"score": 18})
    assert log.invocations[-1].decisions["train"].taken_from == "first/train.1"
    assert "reused       3 reused from run first" in project.runnable("show", "second").out
    assert project.runnable("runs").out.splitlines()[0].split()[4] == "REUSED"
    # The third is of the second, and still says who was first; a retry has nothing to do.
    project.runnable("run", "--run-id", "third")
    assert project.log("third").steps["clean"].attempts[-1].taken_from == "first/clean.1"
    assert "nothing to do, 3 steps done" in project.runnable("retry", "third").err


@pytest.mark.promise
def test_what_is_reused_is_whole_without_the_run_it_is_from(project: Workspace, tmp_path: Path) -> None:
    """The run that took it keeps all of it, also when the other one is removed."""
    project.runnable("run", "--run-id", "second")
    project.runnable("gc", "--keep", "1")
    project.runnable("catalog", "second", "--get", "clean.csv", "--to", "copy.csv")
    assert project.read("copy.csv") == "a\nb\nc\n"
    assert "nothing to do" in project.runnable("retry", "second").err


def test_a_secret_in_a_command_is_no_proof(tmp_path: Path) -> None:
    """A mask equals every other mask."""
    files = {
        "runnable.toml": 'reuse = "any-run"\n[steps.load]\n'
        'run = "cat data.txt > out.txt; echo s3cr3t-t0ken-value > /dev/null"\n'
        'catalog = { put = ["out.txt"] }\n',
        "data.txt": "1\n",
        ".gitignore": ".runnable\nout.txt\n",
    }
    project = workspace(tmp_path, files)
    project.environ["API_TOKEN"] = "s3cr3t-t0ken-value"
    project.runnable("run", "--run-id", "a")
    assert "not that of run a: its definition has a secret in it" in project.runnable("run", "--run-id", "b").err


def _data(project: Workspace) -> None:
    project.write({"data/raw.csv": "d\nc\nb\na\n"})


def _definition(project: Workspace) -> None:
    project.replace("runnable.toml", "sort data", "sort -u data")


def _code(project: Workspace) -> None:
    project.replace("scale.py", "value * 2", "value * 3")


def _unused_code(project: Workspace) -> None:
    project.replace("scale.py", "return 1", "return 2")


def _parameter(project: Workspace) -> None:
    project.replace("runnable.toml", "depth = 3", "depth = 4")


def _lock_file(project: Workspace) -> None:
    project.write({"requirements.txt": "# one\n"})


def _other_file(project: Workspace) -> None:
    project.write({"README.md": "hello\n", "data/other.csv": "1\n"})


@pytest.mark.parametrize(
    ("edit", "left", "said"),
    [
        (_data, ALL, {"clean": "data/raw.csv changed, which it read", "train": "clean.csv changed, which it read"}),
        (_definition, ["clean"], {"clean": "its `run` changed"}),
        (
            _code,
            ["train", "report"],
            {"train": "scale.py changed, which it read", "report": "parameter score changed"},
        ),
        (_unused_code, [], {}),
        (_parameter, ["train", "report"], {"train": "parameter depth changed: 3 → 4"}),
        (_lock_file, ["clean", "report"], {"clean": "requirements.txt was changed"}),
        (_other_file, [], {}),
    ],
)
@pytest.mark.promise
def test_the_first_difference_is_said(
    project: Workspace, edit: Callable[[Workspace], None], left: list[str], said: Mapping[str, str]
) -> None:
    """A step runs if anything that it was made from differs; what follows is reused if it receives the same."""
    edit(project)
    err = project.runnable("run", "--run-id", "second").err
    ran = [name for name in ALL if name not in reused(project, "second")]
    assert ran == left
    for step, reason in said.items():
        assert f"{step:6} | not that of run first: {reason}" in err


def test_what_cannot_be_proved_runs(tmp_path: Path) -> None:
    """Each step has one thing that speaks against it, and says it; beside another one it might have read more."""
    files = {
        "runnable.toml": """
reuse = "any-run"
[steps.effect]
run = "cat data.txt > /dev/null"
[steps.source]
run = "date +%N > time.txt"
catalog = { put = ["time.txt"] }
[steps.stray]
run = "cat data.txt > a.txt; cp data.txt b.txt"
catalog = { put = ["a.txt"] }
[steps.git]
run = "git rev-parse HEAD > head.txt; cat data.txt >> head.txt"
catalog = { put = ["head.txt"] }
[steps.network]
needs = []
python = "network:ask"
returns = ["answer"]
[steps.builds]
run = "cat data.txt >> all.txt"
catalog = { put = ["all.txt"], persist = true }
[steps.own]
run = "cat data.txt > own.txt"
reuse = "this-run"
catalog = { put = ["own.txt"] }
""",
        "data.txt": "1\n",
        "network.py": "import socket\ndef ask():\n    open('data.txt').read()\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n        s.connect(('192.0.2.1', 9))\n"
        "    return 1\n",
        ".gitignore": ".runnable\n*.txt\n!data.txt\n__pycache__\n",
    }
    project = workspace(tmp_path, files)
    project.runnable("run", "-j", "1", "--run-id", "first")
    err = project.runnable("run", "-j", "1", "--run-id", "second").err
    assert reused(project, "second") == []
    for step, reason in {
        "effect": "it has neither `put` nor `returns`",
        "source": "it reads no data of the workspace, and takes no value",
        "stray": "it also wrote b.txt, which its `put` does not name",
        "git": "it asked git, which may answer differently",
        "network": "it connected to 192.0.2.1:9",
        "builds": "it builds on what it made before (`persist`)",
    }.items():
        assert f"{step:7} | not that of run first: {reason}" in err
    assert "own     | unlike" not in err
    # With an age it is the person who says so.
    text = project.read("runnable.toml")
    for step in ("effect", "source", "network"):
        text = text.replace(f"[steps.{step}]\n", f'[steps.{step}]\nmax-age = "1h"\n')
    project.write({"runnable.toml": text})
    project.runnable("run", "-j", "1", "--run-id", "third")
    assert reused(project, "third") == ["effect", "source", "network"]


def test_a_command_that_names_its_data_beside_another_one(tmp_path: Path) -> None:
    """Of two commands at once nobody sees which one read a file; the one that names it is taken to read data."""
    steps = "".join(
        f'[steps.{name}]\nneeds = []\nrun = "sleep 0.7; {run}; sleep 0.7"\ncatalog = {{ put = ["{name}.txt"] }}\n'
        for name, run in {"one": "cat data/a.csv > one.txt", "two": "date +%N > two.txt"}.items()
    )
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "data/a.csv": "1\n", ".gitignore": ".runnable\n*.txt\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "-j", "2", "--run-id", "first")
    err = project.runnable("run", "-j", "2", "--run-id", "second").err
    assert reused(project) == ["one"]
    assert "two | not that of run first: whether it reads data of the workspace is not known" in err


def test_an_age(project: Workspace) -> None:
    """An older result is not reused; a wrong age is an error."""
    project.replace("runnable.toml", "[steps.clean]\n", '[steps.clean]\nmax-age = "1m"\n')
    assert "clean" in project.runnable("run", "--dry-run").out
    for text in ("1", "1y", "24 h", "0h", "-1h"):
        bad = project.read("runnable.toml").replace('"1m"', f'"{text}"')
        project.write({"bad.toml": bad})
        assert "must be such as `30m`, `24h` or `7d`, or `forever`" in project.runnable("run", "bad.toml", code=2).err


@pytest.mark.promise
def test_a_deploy_is_done_once_a_run(tmp_path: Path) -> None:
    """By default only a retry of the run itself reuses; `never` is done at each retry."""
    files = {
        "runnable.toml": '[steps.deploy]\nrun = "cat data.txt >> deployed; echo > put.txt"\n'
        'catalog = { put = ["put.txt"] }\n'
        '[steps.always]\nreuse = "never"\nrun = "echo x >> always"\n[steps.last]\nrun = "test -e go"\n',
        "data.txt": "1\n",
        ".gitignore": ".runnable\ndeployed\nput.txt\nalways\ngo\n",
    }
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "first", code=1)
    project.write({"go": ""})
    project.runnable("retry", "first")
    assert (project.read("deployed"), project.read("always")) == ("1\n", "x\nx\n")
    project.runnable("run")
    assert project.read("deployed") == "1\n1\n"


@pytest.mark.promise
def test_a_person_says_which_run(project: Workspace) -> None:
    """`--reuse RUN` is for all steps of which the file says nothing, `never` for none."""
    project.replace("runnable.toml", 'reuse = "any-run"\n', "")
    project.replace("runnable.toml", "[steps.report]\n", '[steps.report]\nreuse = "this-run"\n')
    project.runnable("run", "--run-id", "second")
    assert reused(project, "second") == []
    project.runnable("run", "--run-id", "third", "--reuse", "first")
    assert reused(project, "third") == ["clean", "train"]
    project.replace("runnable.toml", "[parameters]", 'reuse = "any-run"\n[parameters]')
    project.runnable("run", "--run-id", "fourth", "--reuse", "never")
    assert reused(project, "fourth") == []


def test_a_matrix_is_reused_instance_by_instance(tmp_path: Path) -> None:
    """One more value runs one instance, and what collects."""
    files = {
        "runnable.toml": """
reuse = "any-run"
[steps.each]
strategy = { matrix = { n = [1, 2, 3] } }
run = "cat data.txt; echo size=$((n * 2)) >> $RUNNABLE_OUTPUT"
returns = ["size"]
[steps.sum]
run = "echo total=$size >> $RUNNABLE_OUTPUT"
returns = ["total"]
""",
        "data.txt": "1\n",
    }
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "first")
    assert "4 reused from run first" in project.runnable("run", "--run-id", "second").err
    project.replace("runnable.toml", "[1, 2, 3]", "[0, 1, 2, 3]")
    assert "3 reused from " in project.runnable("run", "--run-id", "third").err
    assert project.log("third").steps["sum"].attempts[-1].output_parameters["total"].value == [0, 2, 4, 6]


@pytest.mark.promise
def test_a_variable_that_counts(project: Workspace) -> None:
    """One that a step's command names, or `env-read`, or that is known to change results; its value is never shown."""
    project.replace("runnable.toml", "[steps.report]\n", '[steps.report]\nenv-read = ["STYLE"]\n')
    project.runnable("run", "--run-id", "second", STYLE="plain-value")
    project.runnable("run", "--run-id", "third", STYLE="plain-value")
    assert reused(project, "third") == ALL
    err = project.runnable("run", "--run-id", "fourth", STYLE="other-value").err
    assert "report | not that of run third: STYLE differs" in err
    err = project.runnable("run", "--run-id", "fifth", STYLE="other-value", PYTHONHASHSEED="1").err
    assert "PYTHONHASHSEED differs" in err
    assert "-value" not in err


@pytest.mark.promise
def test_a_secret_is_compared_by_a_key_alone(tmp_path: Path) -> None:
    """Without the person's key a step that uses a secret runs; with it equal secrets are known as equal."""
    files = {
        "runnable.toml": 'reuse = "any-run"\n[steps.load]\nrun = "cat data.txt > out.txt; test $API_TOKEN"\n'
        'catalog = { put = ["out.txt"] }\n',
        "data.txt": "1\n",
        ".gitignore": ".runnable\nout.txt\n",
    }
    project = workspace(tmp_path, files)
    project.environ["API_TOKEN"] = "s3cr3t-t0ken-value"
    project.runnable("run", "--run-id", "a")
    err = project.runnable("run", "--run-id", "b").err
    assert "not that of run a: API_TOKEN is secret, and there is no reuse key" in err
    project.environ["RUNNABLE_CI_REUSE_KEY"] = "k3y-of-mine-12345"
    project.runnable("run", "--run-id", "c")
    project.runnable("run", "--run-id", "d")
    assert reused(project, "d") == ["load"]
    err = project.runnable("run", "--run-id", "e", API_TOKEN="another-t0ken-value").err
    assert "API_TOKEN differs" in err
    for file in (project.store / "runs").rglob("*"):
        if file.is_file():
            assert b"t0ken-value" not in file.read_bytes()
            assert b"k3y-of-mine" not in file.read_bytes()


@pytest.mark.parametrize(
    ("edit", "said"), [(_other_file, "3 of 3 steps could be reused from run first: "), (_data, "")]
)
def test_what_could_have_been_reused_is_said(
    tmp_path: Path, edit: Callable[[Workspace], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key, and with more than some seconds to spare; nothing is said of what would have run anyway."""
    pipeline = FILES["runnable.toml"].replace('reuse = "any-run"\n', "")
    project = workspace(tmp_path, {**FILES, "runnable.toml": pipeline})
    project.runnable("run", "--run-id", "first")
    edit(project)
    monkeypatch.setattr("runnable_ci.engine.closing._WORTH_S", 0.0)
    monkeypatch.setattr("runnable_ci.engine.reuse.suggestion.WORTH_S", 0.001)
    code, output = runnable(project.folder, "run", "--run-id", "second", environ=project.environ)
    assert code == 0
    assert ("could be reused" in output) == bool(said)
    assert said in output


def test_a_plan_says_what_would_be_refused_anyway(project: Workspace) -> None:
    """Whatever the steps before it give: it is not said that the step may be reused."""
    project.replace("runnable.toml", "report.py > report.txt", "report.py > report.txt; touch stray.txt")
    project.runnable("run", "--run-id", "second")
    _code(project)
    refused = "not that of run second: it also wrote stray.txt, which its `put` does not name"
    assert f"report  run    first attempt; {refused}" in project.runnable("run", "-n").out


@pytest.mark.promise
def test_a_plan_shows_what_is_taken_of_others(project: Workspace) -> None:
    """Of a new run, some of its steps and a retry alike: from where, or the first difference, or that it is later."""
    taken = "run first, attempt 1, first made by A at "
    _code(project)
    lines = project.runnable("run", "-n").out.splitlines()
    assert lines[0].startswith(f"clean   reuse  {taken}")
    assert lines[1] == "train   run    first attempt; not that of run first: scale.py changed, which it read"
    assert lines[2] == "report  run    first attempt; reused if another run got the same from the steps before it"
    # One that failed is retried: what another run made since is found, and the rest is this run's own.
    project.write({"report.py": "raise SystemExit(1)\n", "scale.py": FILES["scale.py"]})
    project.runnable("run", "--run-id", "second", "-j", "1", code=1)
    project.write({"report.py": FILES["report.py"]})
    planned = project.runnable("retry", "second", "-n").out
    assert f"report  reuse  {taken}" in planned
    assert planned.count("  reuse  unchanged since attempt 1") == 2
    assert project.log("second").invocation == 1
    project.runnable("retry", "second", "-j", "1")
    assert reused(project, "second") == ALL
    assert f"report  reuse  {taken}" in project.runnable("run", "report", "-n").out
    project.replace("report.py", "'score'", "'score:'")
    planned = project.runnable("retry", "second", "-n", "--from", "report").out
    assert "report  run    " in planned
    assert "not that of run" not in planned, "what a person asks for is not looked for"


def _as_pth(packages: Path, linked: Path) -> None:
    (packages / "linked.pth").write_text(f"{linked}\n")


def _as_editable(packages: Path, linked: Path) -> None:
    info = packages / "linked-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: linked\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(f'{{"dir_info": {{"editable": true}}, "url": "{linked.as_uri()}"}}')


@pytest.mark.parametrize("link", [_as_pth, _as_editable, None])
@pytest.mark.promise
def test_code_that_nobody_compares_is_no_proof(tmp_path: Path, link: Callable[[Path, Path], None] | None) -> None:
    """A command's python that imports from elsewhere too may find anything there; from the repository it is seen."""
    files = {
        "runnable.toml": 'reuse = "any-run"\n[steps.load]\nrun = "../env/bin/python go.py > out.txt"\n'
        'catalog = { put = ["out.txt"] }\n',
        "go.py": "import linked\nprint(linked.VALUE, open('data.txt').read())\n",
        "data.txt": "1\n",
        "lib/linked.py": "VALUE = 1\n",
        ".gitignore": ".runnable\nout.txt\n__pycache__\n",
    }
    project = workspace(tmp_path, files)
    venv.create(tmp_path / "env")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "linked.py").write_text("VALUE = 1\n")
    project.environ["PYTHONPATH"] = "lib" if link is not _as_pth else ""
    if link:
        link(next((tmp_path / "env" / "lib").glob("python*/site-packages")), elsewhere)
    project.runnable("run", "--run-id", "a")
    err = project.runnable("run", "--run-id", "b").err
    assert (f"its python imports from {elsewhere} too, where nothing is compared" in err) == bool(link)
    assert reused(project, "b") == ([] if link else ["load"])
    project.environ["PYTHONPATH"] = str(elsewhere)
    project.runnable("run", "--run-id", "c")
    (elsewhere / "linked.py").write_text("VALUE = 2\n")
    project.runnable("run", "--run-id", "d")
    assert reused(project, "d") == []
    assert project.read("out.txt").startswith("2")


NOT_PROVED = {
    "another machine by a command": (
        {"run": "cat in.txt > out.txt; curl -s http://data.example.org/x >> out.txt || true"},
        "it may connect to other machines (`http://data.example.org`)",
    ),
    "a program that connects": (
        {"run": "cat in.txt > out.txt; git  fetch . || true"},
        "it may connect to other machines",
    ),
    "nothing but a product that lay there": (
        {"run": "date +%s%N > out.txt", "lies": "yes"},
        "it reads no data of the workspace, and takes no value",
    ),
}


@pytest.mark.parametrize("case", NOT_PROVED)
def test_equal_inputs_that_prove_nothing(tmp_path: Path, case: str) -> None:
    """A command that may ask other machines, or has no input at all, is not taken without `max-age`."""
    given, reason = NOT_PROVED[case]
    steps = f"[steps.a]\nrun = '{given['run']}'\ncatalog = {{ put = [\"out.txt\"] }}\n"
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "in.txt": "a\n", ".gitignore": ".runnable\n"}
    project = workspace(tmp_path, {**files, **({"out.txt": "old\n"} if "lies" in given else {})})
    project.runnable("run", "-j", "1", "--run-id", "first")
    done = project.runnable("run", "-j", "1", "--run-id", "second")
    assert reason in done.err
    assert reused(project) == []


def test_a_command_on_loopback_is_taken(tmp_path: Path) -> None:
    """An address of this machine is no other machine."""
    steps = "[steps.a]\nrun = 'cat in.txt > out.txt; echo http://127.0.0.1:1/x'\ncatalog = { put = [\"out.txt\"] }\n"
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "in.txt": "a\n", ".gitignore": ".runnable\nout.txt\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "-j", "1", "--run-id", "first")
    project.runnable("run", "-j", "1", "--run-id", "second")
    assert reused(project) == ["a"]


OPENED_IN_C = {
    "sqlite": "import sqlite3\ndef f():\n    base = sqlite3.connect('file:data/x.db?mode=ro', uri=True)\n"
    "    return base.execute('select count(*) from t').fetchone()[0]\n",
    "a folder's descriptor": "import os\ndef f():\n    folder = os.open('data', os.O_RDONLY)\n"
    "    file = os.open('x.db', os.O_RDONLY, dir_fd=folder)\n    return len(os.read(file, 10**6))\n",
}


@pytest.mark.parametrize("code", OPENED_IN_C.values(), ids=OPENED_IN_C)
def test_files_that_python_does_not_tell_of(tmp_path: Path, code: str) -> None:
    """A database that a library opens, a path from another folder: another content is another result."""
    steps = '[steps.a]\npython = "work:f"\ncatalog = { get = ["in.txt"] }\nreturns = ["n"]\n'
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "in.txt": "a\n", "work.py": code, "data/.keep": ""}
    project = workspace(tmp_path, {**files, ".gitignore": ".runnable\n__pycache__\n"})
    with sqlite3.connect(project.folder / "data" / "x.db") as base:
        base.execute("create table t (x)")
    base.close()
    project.runnable("run", "-j", "1", "--run-id", "first")
    project.runnable("run", "-j", "1", "--run-id", "same")
    assert reused(project) == ["a"]
    with sqlite3.connect(project.folder / "data" / "x.db") as base:
        base.executemany("insert into t values (?)", [("x" * 1000,)] * 50)
    base.close()
    project.runnable("run", "-j", "1", "--run-id", "other")
    assert reused(project) == []
    assert "data/x.db changed" in project.runnable("show", "other").out


def test_a_file_outside_however_a_command_names_it(tmp_path: Path) -> None:
    """`~`, a variable and a wildcard are what the shell makes of them."""
    outside = tmp_path / "home" / "mine"
    words = {"tilde": "~/mine/a", "home": "$HOME/mine/a", "star": '"$HOME"/mine/*'}
    steps = "".join(
        f"[steps.{name}]\nrun = 'cat in.txt {word} > {name}.txt'\ncatalog = {{ put = [\"{name}.txt\"] }}\n"
        for name, word in words.items()
    )
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "in.txt": "a\n"}
    ignored = "".join(f"{name}.txt\n" for name in words)
    project = workspace(tmp_path, {**files, ".gitignore": f".runnable\n{ignored}"})
    outside.mkdir()
    (outside / "a").write_text("1\n")
    project.runnable("run", "-j", "1", "--run-id", "first")
    project.runnable("run", "-j", "1", "--run-id", "same")
    assert reused(project) == ["tilde", "home", "star"]
    (outside / "a").write_text("2\n")
    project.runnable("run", "-j", "1", "--run-id", "other")
    assert reused(project) == []


def test_a_checkpoint_is_no_product(tmp_path: Path) -> None:
    """A training with a checkpoint is reused like any other step."""
    steps = (
        "[steps.a]\nrun = 'mkdir -p ckpt; cat in.txt > ckpt/e; cat in.txt > out.txt'\ncheckpoint = [\"ckpt/**\"]\n"
        'catalog = { put = ["out.txt"] }\n'
    )
    files = {"runnable.toml": f'reuse = "any-run"\n{steps}', "in.txt": "a\n"}
    project = workspace(tmp_path, {**files, ".gitignore": ".runnable\nout.txt\nckpt\n"})
    project.runnable("run", "-j", "1", "--run-id", "first")
    project.runnable("run", "-j", "1", "--run-id", "second")
    assert reused(project) == ["a"]


def test_the_nearest_of_several_is_named(project: Workspace) -> None:
    """Of two runs the one with the same values, though another one is newer."""
    project.runnable("run", "-j", "1", "--run-id", "newer", "--param", "depth=9")
    project.replace("scale.py", "* 2", "* 3")
    err = project.runnable("run", "-j", "1", "--run-id", "third").err
    assert "not that of run first: scale.py changed" in err
