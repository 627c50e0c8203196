"""What steps read is an input, by whichever way they read it; what nobody read is none. With real programs."""

from __future__ import annotations

import json
from pathlib import Path

from cli import Workspace, elsewhere, workspace
from registry_server import registry

UNCHANGED = "reuse unchanged since attempt 1"


def plan(project: Workspace, *arguments: str, run: str = "r") -> dict[str, str]:
    """Step → what a retry would do with it, and why."""
    lines = project.runnable("retry", run, "-n", *arguments).out.splitlines()
    return {name: " ".join(rest.split()) for name, rest in (line.split(maxsplit=1) for line in lines)}


def failed(tmp_path: Path, steps: str, files: dict[str, str]) -> Workspace:
    """A project whose last step has failed; the others have succeeded one by one."""
    ignored = ".gitignore"
    last = '[steps.last]\nneeds = []\nrun = "exit 9"\n'
    given = {ignored: "*.out\n__pycache__/\n", **files, "runnable.toml": f"{steps}\n{last}"}
    project = workspace(tmp_path, given)
    project.runnable("run", "--run-id", "r", "-j", "1", code=1)
    done = [name for name, step in project.log().steps.items() if step.status == "SUCCESS"]
    assert done == [name for name in project.log().steps if name != "last"]
    return project


KINDS = ("config", "template", "helper", "pool", "other")
PYTHON_STEPS = "".join(f'[steps.{name}]\nneeds = []\npython = "work:{name}"\n' for name in KINDS)
PYTHON_FILES = {
    "work.py": """
import json, multiprocessing, subprocess, sys
from pathlib import Path

def config():
    return json.load(open("settings/model.json"))["depth"]

def template():
    return Path("query.sql").read_text()

def helper():
    subprocess.run([sys.executable, "tools/convert.py"], check=True)

def pool():
    import in_pool
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        workers.map(in_pool.work, [1])

def other():
    return 1
""",
    "settings/model.json": '{"depth": 3}',
    "query.sql": "select 1",
    "tools/convert.py": "import tables\n",
    "tools/tables.py": "SIZE = 1\n",
    "in_pool.py": "def work(number):\n    import only_workers\n    return number\n",
    "only_workers.py": "VALUE = 1\n",
}


def test_what_python_steps_read_by_other_ways_than_import(tmp_path: Path) -> None:
    """Opened data, a template, a program that was started and what it imports, a module of a spawned pool's workers."""
    project = failed(tmp_path, PYTHON_STEPS, PYTHON_FILES)
    assert {name: reason for name, reason in plan(project).items() if name != "last"} == dict.fromkeys(KINDS, UNCHANGED)
    project.write(
        {
            "settings/model.json": '{"depth": 4}',
            "query.sql": "select 2",
            "tools/tables.py": "SIZE = 2\n",
            "only_workers.py": "VALUE = 2\n",
            "notes.md": "for nobody\n",
        }
    )
    project.commit()
    assert plan(project) == {
        "config": "run settings/model.json changed, which it read",
        "template": "run query.sql changed, which it read",
        "helper": "run tools/tables.py changed, which it read",
        "pool": "run only_workers.py changed, which it read",
        "other": UNCHANGED,
        "last": "run attempt 1 failed: exit code 9",
    }


WAYS = {
    "script": "python3 train.py",
    "module": "python3 -m pkg.train",
    "shell": "bash run.sh",
    "made": "make -s train",
    "two": "python3 main.py",
    "none": "echo nothing of it",
}
WAYS_FILES = {
    "train.py": "import os\nprint(os.environ['alpha'])\n",
    "pkg/__init__.py": "",
    "pkg/train.py": "from os import environ\nprint(environ['alpha'])\n",
    "run.sh": "exec python3 train.py\n",
    "Makefile": "train:\n\tpython3 train.py\n",
    "main.py": "import helper\nprint(helper.value())\n",
    "helper.py": "import os\ndef value():\n    return int(os.environ['alpha']) * 10\n",
}


def test_parameters_that_a_command_reads_indirectly(tmp_path: Path) -> None:
    """A parameter that a file of the command names is an input, however many programs lie between."""
    steps = "".join(f'[steps.{name}]\nneeds = []\nrun = "{command}"\n' for name, command in WAYS.items())
    project = failed(tmp_path, f"[parameters]\nalpha = 1\nbeta = 1\n{steps}", WAYS_FILES)
    attempts = {name: step.attempts[0] for name, step in project.log().steps.items()}
    assert all(sorted(attempt.input_parameters) == ["alpha", "beta"] for attempt in attempts.values())
    assert {name for name, attempt in attempts.items() if "alpha" in attempt.consumed} == WAYS.keys() - {"none"}
    changed = plan(project, "-p", "alpha=7")
    assert {name for name, reason in changed.items() if reason == "run parameter alpha changed: 1 → 7"} == {
        *(WAYS.keys() - {"none"})
    }
    assert {reason for name, reason in plan(project, "-p", "beta=7").items() if name != "last"} == {UNCHANGED}


DATA_STEPS = """
[steps.tracked]
needs = []
run = "cat tables/*.csv"
[steps.ignored]
needs = []
python = "work:ignored"
catalog = { get = ["raw/*.out"] }
[steps.beside]
needs = []
run = "cat README.md"
"""
DATA_FILES = {
    "tables/a.csv": "a\n",
    "tables/b.csv": "b\n",
    "README.md": "read me\n",
    "raw/x.out": "x\n",
    "raw/y.out": "y\n",
    "work.py": "from glob import glob\ndef ignored():\n    return [open(p).read() for p in glob('raw/*.out')]\n",
}


def test_an_input_that_is_gone_is_a_change(tmp_path: Path) -> None:
    """A file that is gone is named, tracked or ignored; what a clone lacks as a whole, since git ignores it, is not."""
    project = failed(tmp_path, DATA_STEPS, DATA_FILES)
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        assert not (other.folder / "raw").exists()
        assert plan(other, run=f"{repository}:r")["ignored"] == UNCHANGED
        other.write({"raw/x.out": "x\n"})
        assert plan(other)["ignored"] == "run input raw/y.out is gone"
        other.git("rm", "-q", "README.md")
        other.git("commit", "-qm", "gone")
        assert plan(other)["beside"] == "run README.md is gone, which it read"
    (project.folder / "tables" / "b.csv").unlink()
    (project.folder / "raw" / "y.out").unlink()
    assert plan(project) == {
        "tracked": "run tables/b.csv is gone, which it read",
        "ignored": "run input raw/y.out is gone",
        "beside": UNCHANGED,
        "last": "run attempt 1 failed: exit code 9",
    }


CHAIN = """
[steps.prepare]
run = "grep -v '^#' params.yaml > clean.out; cat sources.txt >> clean.out"
catalog = { put = ["clean.out"] }
[steps.featurize]
run = "wc -l < clean.out > features.out; echo featurize >> ran.out"
catalog = { get = ["clean.out"], put = ["features.out"] }
[steps.order]
needs = ["prepare"]
run = "echo order >> ran.out"
catalog = { get = [] }
[steps.train]
needs = ["featurize"]
python = "work:train"
"""


def test_early_cut_off(tmp_path: Path) -> None:
    """A step that runs again and gives the same stops there; a need that passes nothing is an order that re-runs."""
    files = {
        "params.yaml": "# first\nn: 1\n",
        "sources.txt": "s\n",
        "work.py": "def train():\n    return int(open('features.out').read())\n",
    }
    project = failed(tmp_path, CHAIN, files)
    (project.folder / "ran.out").unlink()
    project.write({"params.yaml": "# a comment\nn: 1\n", "README.md": "for nobody\n"})
    project.commit()
    assert plan(project)["prepare"] == "run params.yaml changed, which it read"
    project.runnable("retry", "r", "-j", "1", code=1)
    assert project.read("ran.out") == "order\n"
    decisions = project.log().invocations[-1].decisions
    assert [decisions[name].action for name in ("prepare", "featurize", "order", "train")] == [
        *("run", "reuse", "run", "reuse")
    ]


def test_a_commit_that_nobody_reads_is_not_mentioned(tmp_path: Path) -> None:
    """A change of the documentation re-runs no step, and there is not a word of it."""
    steps = '[steps.a]\nneeds = []\nrun = "sh make.sh"\n[steps.b]\nneeds = []\npython = "work:b"\n'
    files = {"make.sh": "cat in.txt\n", "in.txt": "1\n", "work.py": "def b():\n    return 1\n"}
    project = failed(tmp_path, steps, files | {"src/used.txt": ""})
    project.write({"README.md": "new\n", "docs/guide.md": "new\n", "src/unused.py": "x = 1\n"})
    project.commit()
    done = project.runnable("retry", "r", "--rerun-changed", "-j", "1", code=1)
    assert "README" not in done.err
    assert {name for name, step in project.log().steps.items() if len(step.attempts) > 1} == {"last"}


BESIDE = """
[steps.long]
needs = []
run = "until [ -e go.log ]; do sleep 0.01; done; cat data.txt"
[steps.make]
needs = []
run = "mkdir -p out/deep; for n in 1 2 3; do echo $n > out/deep/$n.csv; done"
catalog = { get = ["in/**"], put = ["out/**/*.csv"] }
[steps.after]
needs = ["make"]
run = "touch go.log"
catalog = { get = ["out/**/*.csv"] }
[steps.last]
needs = ["long", "after"]
run = "exit 9"
"""


def test_the_program_s_own_looks_are_no_reads(tmp_path: Path) -> None:
    """What it matches, hashes and compares for other steps while a long one runs is not read by that one."""
    files = {"runnable.toml": BESIDE, "data.txt": "1\n", "in/a.csv": "1\n", "in/deep/b.csv": "1\n"}
    project = workspace(tmp_path, files, git=False)
    project.runnable("run", "--run-id", "r", "-j", "3", code=1)
    read = json.loads(project.runnable("show", "r", "long", "--reads").out)
    assert (set(read["files"]), read.get("listings", {})) == ({"data.txt"}, {})
    project.write({"in/new.csv": "", "new.txt": "", "in/deep/b.csv": "2\n"})
    assert plan(project)["long"] == UNCHANGED


def test_a_file_that_no_import_finds_is_no_new_module(tmp_path: Path) -> None:
    """Beside the modules of a python step: a file without a suffix is none, a folder with a module is one."""
    project = failed(tmp_path, '[steps.a]\npython = "work:f"\n', {"work.py": "def f():\n    pass\n"})
    project.write({"LICENSE": "free\n"})
    assert plan(project)["a"] == UNCHANGED
    project.write({"json/tool.py": ""})
    assert plan(project)["a"].startswith("run json is new")


def test_a_retry_s_own_git_is_not_that_of_steps_beside(tmp_path: Path) -> None:
    """What steps read is compared while others run: these have not asked git, and are not looked at again for it."""
    steps = "".join(f'[steps.s{i}]\nneeds = []\npython = "work:f"\n' for i in range(4))
    project = failed(tmp_path, steps, {"work.py": "import time\ndef f():\n    time.sleep(0.3)\n"})
    project.write({"new.py": ""})
    project.runnable("retry", "r", "-j", "2", code=1)
    assert "git" not in project.runnable("show", "r").out.partition("READ")[2]


DIAMOND = """
[steps.long]
needs = []
run = "mkdir -p out/deep; cat data.txt | tee out.csv > out/deep/x.csv; until [ -e go.log ]; do sleep 0.01; done"
catalog = { put = ["out.csv", "out/**"] }
[steps.short]
needs = []
run = "until [ -s out/deep/x.csv ]; do sleep 0.01; done"
[steps.after]
needs = ["short"]
run = "sleep 0.1; touch go.log"
[steps.last]
needs = ["long", "after"]
run = ". ./lib.sh"
"""


def test_a_look_at_the_code_lists_no_folder_for_a_step_beside(tmp_path: Path) -> None:
    """git is asked what a running step's new files are before the next one starts: no step has listed a folder."""
    project = workspace(tmp_path, {"runnable.toml": DIAMOND, "data.txt": "1\n", ".gitignore": "*.log\n"})
    project.runnable("run", "--run-id", "r", "-j", "3", code=1)
    read = json.loads(project.runnable("show", "r", "long", "--reads").out)
    assert read["files"].keys() - {".gitignore"} == {"data.txt"}
    assert "listings" not in read
    project.write({"lib.sh": "true\n", "new/x": ""})
    assert {name for name, said in plan(project).items() if said != UNCHANGED} == {"last"}
