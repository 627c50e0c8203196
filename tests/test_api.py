"""Tests of the Python door, in a process of its own as a notebook would use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from cli import Workspace, workspace

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
assert "work" not in sys.modules and "pickle" not in vars(run)
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
    "steps": [step.status for step in run.log.steps.values()],
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
