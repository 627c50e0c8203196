"""Tests of the Python door, in a process of its own as a notebook would use it."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli import Workspace, workspace

import runnable_ci
from runnable_ci.runs import reader
from runnable_ci.store.local import Layout

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "runnable_ci"
MORE = ("errors.py", "util/text.py", "util/shell_command.py")
READING = sorted([*PACKAGE.glob("api/*.py"), *PACKAGE.glob("runs/listing/*.py"), *map(PACKAGE.joinpath, MORE)])
"""What the project's own interpreter imports."""

STEPS = """
[parameters]
rate = 0.5
[steps.train]
python = "work:train"
returns = { model = "object", score = "metric" }
[steps.report]
run = "echo out; echo text > report.txt; echo err >&2; mkdir -p out; echo a > out/a.txt"
catalog = { put = ["report.txt", "out"] }
[steps.fails]
run = "echo lost; exit 1"
"""
NOTEBOOK = """
import json, sys
import runnable_ci

run = runnable_ci.open_run(*sys.argv[1:])
assert not {"work", "pydantic", "typer"} & sys.modules.keys()
print(json.dumps({
    "run": [run.run_id, run.status],
    "metrics": run.metrics,
    "parameters": run.parameters,
    "objects": run.objects,
    "files": run.files,
    "read": run.read("report.txt").decode(),
    "saved": run.save("out/a.txt", "copy.txt").read_text(),
    "logs": sorted(run.logs("report").split()),
    "lost": run.logs("fails"),
    "quiet": run.logs("train"),
    "steps": [step["status"] for step in run.log["steps"].values()],
    "object": run.load_object("model"),
}))
for ask in (lambda: run.read("reprt.txt"), lambda: run.logs("trian"), lambda: run.load_object("score"),
            lambda: runnable_ci.open_run("nobody")):
    try:
        ask()
    except runnable_ci.errors.RunNotFoundError as e:
        print(str(e).replace(chr(10), "; "))
"""


def notebook(project: Workspace, code: str, *arguments: str, at: str = ".") -> list[str]:
    """The lines that a Python process prints which runs in a project."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project.folder / at,
        env=project.environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_open_run(tmp_path: Path) -> None:
    """A run can be read from anywhere: metrics, parameters, files, output, and an object when it is asked for."""
    work = "def train(rate):\n    return {'rate': rate}, 0.75\n"
    project = workspace(tmp_path, {"runnable.toml": STEPS, "work.py": work, "below/a.txt": ""})
    project.runnable("run", "--run-id", "r", code=1)
    first, *errors = notebook(project, NOTEBOOK, at="below")
    assert json.loads(first) == {
        "run": ["r", "FAIL"],
        "metrics": {"score": 0.75},
        "parameters": {"rate": 0.5, "score": 0.75},
        "objects": {"model": "dict"},
        "files": ["out/a.txt", "report.txt"],
        "read": "text\n",
        "saved": "a\n",
        "logs": ["err", "out"],
        "lost": "lost\n",
        "quiet": "",
        "steps": ["SUCCESS", "SUCCESS", "FAIL"],
        "object": {"rate": 0.5},
    }
    assert errors == [
        "error: run r has no file `reprt.txt`; hint: did you mean `report.txt`?",
        "error: run r has no step `trian`; hint: did you mean `train`?",
        "error: run r has no object `score`",
        f"error: no run `nobody` in {project.store}; hint: `runnable-ci runs` lists them",
    ]
    assert json.loads(notebook(project, NOTEBOOK, "latest", str(project.folder), at="..")[0])["run"] == ["r", "FAIL"]


def test_tampered_object(tmp_path: Path) -> None:
    """A changed pickle is refused before a byte of it is unpickled."""
    steps = "[steps.a]\npython = 'work:a'\nreturns = { model = 'object' }\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": "def a():\n    return {1}\n"})
    project.runnable("run")
    blob = project.store / "blobs" / "sha256" / project.log().parameters["model"].data_hash
    size = blob.stat().st_size
    blob.chmod(0o644)
    blob.write_bytes(b"cos\nsystem\n(S'touch gone'\ntR.".ljust(size)[:size])
    code = """
import runnable_ci
try:
    runnable_ci.open_run().load_object("model")
except runnable_ci.errors.BlobCorruptError as e:
    print("refused")
"""
    assert notebook(project, code) == ["refused"]


EVERYTHING = """
[parameters]
organs = ["gut", "liver"]
count = 0
table = { rows = ROWS }
[steps.quant]
python = "work:quant"
strategy.matrix.organ = ["gut", "liver/left"]
returns = { model = "object", score = "metric", "note" = "json" }
[steps.tries]
run = "test -e second || { touch second; exit 1; }; echo again"
attempts = 2
resources = { cpus = [1, 2], memory = "10M" }
[steps.rounds]
run = "echo count=$((count + 1)) >> $RUNNABLE_OUTPUT"
returns = ["count"]
loop = { until = "parameters.count >= 3", max = 5 }
[steps.files]
run = "mkdir -p many && for i in $(seq 40); do echo $i > many/$i; done; ln -s many/1 first; echo r2: 0.5 > m.yaml"
catalog = { put = ["many", "first"] }
metrics = ["m.yaml"]
[steps.skipped]
run = "true"
if = "parameters.organs == 'none'"
[steps.fails]
run = "echo lost >&2; exit 1"
needs = ["files"]
[steps.after]
run = "true"
needs = ["fails"]
""".replace("ROWS", json.dumps([*range(400)]))
WORK = "def quant(organ, table):\n    return {organ}, len(organ), {'rows': table['rows'] * 2}\n"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run with branches, objects, large values, packed files, a link, a skip, tries and a failure; tried twice."""
    project = workspace(tmp_path_factory.mktemp("everything"), {"runnable.toml": EVERYTHING, "work.py": WORK})
    project.runnable("run", "--run-id", "r", "--tag", "nightly", code=1)
    project.runnable("retry", "r", code=1)
    project.runnable("describe", "r", "in words")
    return project


def same(folder: Path, run_id: str = "r") -> dict[str, Any]:
    """The log of a run as both readers have it."""
    layout = Layout(folder / ".runnable")
    known = reader.load(layout, run_id).model_dump(mode="json")
    found = runnable_ci.open_run(run_id, folder).log
    assert found == known
    assert list(found["steps"]) == list(known["steps"])
    rows = [asdict(summary) for summary in reader.summaries(layout)]
    listed = runnable_ci.list_runs(folder)
    assert [[*row.items()] for row in listed] == [[*row.items()] for row in rows]
    return found


def test_it_reads_what_the_program_reads(everything: Workspace) -> None:
    """All fields of a sealed run, and its row."""
    log = same(everything.folder)
    assert log["steps"]["quant.gut.quant"]["attempts"][0]["input_parameters"]["table"]["value"]["rows"][399] == 399
    resources = {name: [one["resources"] for one in step["attempts"]] for name, step in log["steps"].items()}
    memory = 10 << 20
    assert resources["tries"] == [{"cpus": n, "memory": memory, "gpus": 0} for n in (1, 2)]
    assert resources["files"] == [None]


def test_it_reads_a_journal_as_the_program_does(everything: Workspace, tmp_path: Path) -> None:
    """Of a run that was never sealed, however far it had come when it was killed."""
    shutil.copytree(everything.store, tmp_path / ".runnable", symlinks=True)
    (tmp_path / ".runnable" / "index.json").unlink()
    journal = tmp_path / ".runnable" / "runs" / "r" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 40
    for number in range(len(lines), 0, -1):
        journal.write_bytes(b"".join(lines[:number]) + b'{"check":"torn')
        same(tmp_path)
    with open(journal.with_name("lock"), "wb") as lock:  # as the process that writes it does
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = same(tmp_path)
        assert (log["status"], runnable_ci.open_run("r", tmp_path).status) == ("PROCESSING", "PROCESSING")
        assert repr(runnable_ci.list_runs(tmp_path)) == "<1 run, newest: r RUNNING>"


def test_a_damaged_journal_is_refused(everything: Workspace, tmp_path: Path) -> None:
    """A line that was changed, as the program refuses it; its row says so."""
    shutil.copytree(everything.store, tmp_path / ".runnable", symlinks=True)
    (tmp_path / ".runnable" / "index.json").unlink()
    journal = tmp_path / ".runnable" / "runs" / "r" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"exit_code":1', b'"exit_code":0', 1))
    with pytest.raises(runnable_ci.errors.RunLogError, match=r"journal\.jsonl, line \d+: damaged"):
        runnable_ci.open_run("r", tmp_path)
    assert runnable_ci.list_runs(tmp_path)[0]["status"] == "DAMAGED"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"manifests":[{"annotations":[1]}]}', b'{"manifests":[7]}'])
def test_a_damaged_index_is_refused(content: bytes, tmp_path: Path) -> None:
    """It is said which file it is."""
    (tmp_path / ".runnable").mkdir()
    (tmp_path / ".runnable" / "index.json").write_bytes(content)
    with pytest.raises(runnable_ci.errors.StoreError, match=r"index\.json is damaged"):
        runnable_ci.list_runs(tmp_path)


def test_no_store_of_an_unknown_author_is_read(everything: Workspace, tmp_path: Path) -> None:
    """One that came with a clone, and one that is a link."""
    copied = workspace(tmp_path, {"a.txt": ""})
    shutil.copytree(everything.store, copied.store, symlinks=True)
    copied.git("add", "-f", ".runnable/index.json")
    with pytest.raises(runnable_ci.errors.StoreError, match="is tracked by git"):
        runnable_ci.list_runs(copied.folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".runnable").symlink_to(everything.store)
    with pytest.raises(runnable_ci.errors.StoreError, match="is a link"):
        runnable_ci.open_run("r", tmp_path / "other")


def test_files_links_objects_and_output(everything: Workspace, tmp_path: Path) -> None:
    """Contents in packs, through a link, of instances; a changed one is refused."""
    run = runnable_ci.open_run("r", everything.folder)
    assert (run.read("first"), run.read("many/40")) == (b"1\n", b"40\n")
    assert run.load_object("model") == [{"gut"}, {"liver/left"}]
    assert (run.logs("tries"), run.logs("fails")) == ("again\n", "lost\n")
    assert run.metrics == {"score": [3, 10], "m.r2": 0.5}
    shutil.copytree(everything.store, tmp_path / ".runnable", symlinks=True)
    for pack in run.log["packs"]:
        file = tmp_path / ".runnable" / "blobs" / "sha256" / pack
        file.chmod(0o644)
        file.write_bytes(file.read_bytes().replace(b"40\n", b"41\n"))
    copied = runnable_ci.open_run("r", tmp_path)
    with pytest.raises(runnable_ci.errors.BlobCorruptError, match="does not match its digest"):
        copied.read("many/40")
    with pytest.raises(runnable_ci.errors.BlobCorruptError):
        copied.save("many/40", tmp_path / "40")
    assert [path.name for path in tmp_path.iterdir()] == [".runnable"]


EMITS = """
[parameters]
n = 1
[steps.a]
run = "echo m=$n >> $RUNNABLE_OUTPUT"
returns = { m = "metric" }
"""


def test_words_for_runs(tmp_path: Path) -> None:
    """`latest`, `latest-success` and a branch are what they are on the command line: no experiments."""
    project = workspace(tmp_path, {"runnable.toml": EMITS})
    project.runnable("run", "--run-id", "one")
    project.runnable("run", "--run-id", "two", "--param", "n=2")
    project.runnable("why", "one", "two", "--metric", "m")
    project.runnable("reproduce", "one")
    project.write({"runnable.toml": "[steps.a]\nrun = 'exit 1'\n"})
    project.runnable("run", "--run-id", "fails", code=1)
    for word, run_id in {"latest": "fails", "latest-success": "two", "main": "fails"}.items():
        assert runnable_ci.open_run(word, project.folder).run_id == run_id
        compared = json.loads(project.runnable("diff", "one", word, "--json").out)
        assert compared["b"]["run_id"] == run_id
    with pytest.raises(runnable_ci.errors.RunNotFoundError, match="did you mean `latest-success`"):
        runnable_ci.open_run("latest-sucess", project.folder)


def test_pandas_in_one_line(everything: Workspace) -> None:
    """A column for each field, parameter and metric, named as `runs --csv` names it."""
    frame = pd.json_normalize(runnable_ci.list_runs(everything.folder))
    assert {"run_id", "seconds", "parameters.organs", "metrics.m.r2"} <= {*frame.columns}
    assert frame["metrics.m.r2"].mean() == 0.5
    steps = pd.DataFrame(runnable_ci.open_run("r", everything.folder).steps)
    assert steps.set_index("label").loc["tries"]["attempts"] == 2
    assert steps.set_index("label").loc["tries"]["resources"]["cpus"] == 2


def test_what_a_notebook_shows(everything: Workspace, tmp_path: Path) -> None:
    """Short, and a table in which what a run says is text."""
    run = runnable_ci.open_run("r", everything.folder)
    assert re.fullmatch(
        r"<run r: FAIL, [0-9.]+ s, main [0-9a-f]{7}( dirty)?, m.r2 = 0.5, score = \[3, 10\]>", repr(run)
    )
    assert "<td>quant (gut)</td><td>SUCCESS</td>" in run._repr_html_()
    hostile = {"runnable.toml": "[steps.a]\nrun = 'true'\n"}
    project = workspace(tmp_path, hostile)
    project.runnable("run", "--run-id", "x", "--param", "p=<script>alert(1)</script>")
    shown = runnable_ci.list_runs(project.folder)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown + runnable_ci.open_run("x", project.folder)._repr_html_()


def test_the_project_s_own_interpreter(everything: Workspace, tmp_path: Path) -> None:
    """The documented command gives it what reads runs, and nothing else; the command line says what it lacks."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"^(python3 -m pip install --no-deps .*)$", text, re.MULTILINE)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "own"], check=True)
    environ = {**os.environ, "PATH": f"{tmp_path}/own/bin:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", documented], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [tmp_path / "own/bin/python", "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True
    )
    assert {line.partition("==")[0] for line in listed.stdout.split()} <= {"pip", "setuptools", "runnable-ci"}
    code = "import runnable_ci; print(len(runnable_ci.list_runs()), runnable_ci.open_run('r').read('first'))"
    own = subprocess.run(
        [tmp_path / "own/bin/python", "-c", code], cwd=everything.folder, capture_output=True, text=True
    )
    assert (own.stdout, own.stderr) == ("1 b'1\\n'\n", "")
    command = subprocess.run([tmp_path / "own/bin/runnable-ci", "runs"], capture_output=True, text=True)
    assert command.returncode == 1
    assert re.match(
        r"error: the command needs \w+, which .*/own/bin/python\S* does not have; `import runnable_ci`", command.stderr
    )


@pytest.mark.parametrize(
    "path",
    READING,
    ids=lambda path: path.name,
)
def test_old_interpreters_can_parse_it(path: Path) -> None:
    """Python 3.8 at the least, as steps need."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
