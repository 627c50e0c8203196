"""Tests of the commands that look at runs: runs, show, logs, catalog, and `latest` for each of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli import Workspace, terminal, workspace

from runnable_ci.runs.model import RunLog

STEPS = """
[parameters]
rate = 0.5
[steps.load]
run = "cat bytes.bin; cat bytes.bin >&2; printf 'end'"
catalog = { get = ["bytes.bin"] }
[steps.train]
run = "echo 1 > model.csv; mkdir -p out; echo $rate > out/a.csv; echo score=0.9 >> $RUNNABLE_OUTPUT"
returns = { score = "metric" }
catalog = { put = ["model.csv", "out"] }
[steps.tune]
run = "echo 2 > model.csv"
catalog = { put = ["model.csv"] }
[steps.keep]
python = "work:keep"
returns = { thing = "object" }
[steps.fails]
run = "exit 4"
"""
BYTES = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project with the runs `good` and, after it, `bad`."""
    made = workspace(
        tmp_path_factory.mktemp("looking"),
        {
            "runnable.toml": STEPS,
            "work.py": "def keep():\n    return {1}\n",
            ".gitignore": "*.csv\n*.bin\n__pycache__\n",
        },
    )
    (made.folder / "bytes.bin").write_bytes(BYTES)
    made.write({"good.toml": 'name = "good"\n[steps.only]\nrun = "echo fine"\n'})
    made.runnable("run", "good.toml", "--run-id", "good")
    made.runnable("run", "--run-id", "bad", "--quiet", code=1)
    return made


def document(store: Path, run: str) -> bytes:
    """The run log document in the artifact of a run, found as any OCI client would."""
    raw = subprocess.run(["skopeo", "inspect", "--raw", f"oci:{store}:{run}"], check=True, capture_output=True)
    layers = json.loads(raw.stdout)["layers"]
    (digest,) = (e["digest"] for e in layers if e["annotations"]["org.opencontainers.image.title"] == "run-log.json")
    return Path(store / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


def test_runs(project: Workspace) -> None:
    """The list has each run with status, commit, failed step and metrics, the newest last; as JSON for scripts."""
    commit = project.git("rev-parse", "HEAD")
    head, good, bad = project.runnable("runs").out.splitlines()
    assert head.split() == ["RUN", "STATUS", "AGE", "DURATION", "FAILED", "METRICS", "PIPELINE", "COMMIT"]
    assert good.startswith("good  SUCCESS  ")
    assert good.endswith(f"  {commit[:7]} dirty")
    assert bad.startswith("bad   FAIL     ")
    assert "  fails   score = 0.9  " in bad
    listed = json.loads(project.runnable("runs", "--json", "--store", str(project.folder), at="..").out)
    assert [(r["run_id"], r["status"], r["commit"], r["dirty"]) for r in listed] == [
        ("good", "SUCCESS", commit, True),
        ("bad", "FAIL", commit, True),
    ]
    assert (listed[1]["failed"], listed[1]["metrics"], listed[1]["attempts"]) == ("fails", {"score": 0.9}, 1)


def test_runs_of_an_experiment(tmp_path: Path) -> None:
    """Of the parameters those are shown that differ among the runs of one pipeline; the tag tells runs apart."""
    made = workspace(tmp_path, {"runnable.toml": '[parameters]\ndepth = 3\nlr = 0.1\n[steps.a]\nrun = "true"\n'})
    made.write({"other.toml": 'name = "other"\n[parameters]\nlr = 7\n[steps.a]\nrun = "true"\n'})
    made.runnable("run", "--run-id", "one", "--tag", "base")
    made.runnable("run", "--run-id", "two", "--param", "depth=5", "--param", "new=1")
    made.runnable("run", "other.toml", "--run-id", "three")
    head, one, two, three = made.runnable("runs").out.splitlines()
    at = head.index("PARAMETERS")
    assert [line[at:].split("  ")[0] for line in (one, two, three)] == ["depth = 3", "depth = 5, new = 1", ""]
    assert [line[head.index("TAG") :].split("  ")[0] for line in (one, two)] == ["base", ""]
    listed = json.loads(made.runnable("runs", "--json").out)
    assert [(run["tag"], run["parameters"]) for run in listed] == [
        ("base", {"depth": 3, "lr": 0.1}),
        ("", {"depth": 5, "lr": 0.1, "new": 1}),
        ("", {"lr": 7}),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_runs_on_a_terminal(project: Workspace, width: int) -> None:
    """No line is wider than the terminal, run ids are whole, and a status has its colour."""
    lines = terminal(project, "runs", columns=width).splitlines()
    assert [len(re.sub("\x1b.*?m", "", line)) <= width for line in lines] == [True] * 3
    assert lines[1].startswith("good  \x1b[32mSUCCESS\x1b[0m")
    assert lines[2].startswith("bad   \x1b[31mFAIL   \x1b[0m")
    assert ("METRICS" in lines[0]) == (width >= 60)


def test_show_names_the_job(tmp_path: Path) -> None:
    """A run in a job of GitHub says workflow, run, attempt, pull request, branch, actor and the page of it."""
    made = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    job = {
        "GITHUB_RUN_ID": "12",
        "GITHUB_RUN_NUMBER": "4",
        "GITHUB_RUN_ATTEMPT": "2",
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_HEAD_REF": "feature",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_WORKFLOW_REF": "o/r/.github/workflows/train.yml@refs/heads/main",
        "GITHUB_EVENT_NAME": "pull_request",
    }
    made.runnable("run", code=0, at=".", **job)
    shown = made.runnable("show", "latest").out
    page = "https://github.example/o/r/actions/runs/12"
    assert f"job          train.yml, run #4, attempt 2, pull request #7, pull_request: {page}\n" in shown
    assert "branch       feature\n" in shown
    assert re.search(r"commands     run by \S.* SUCCESS\n", shown)


def test_show(project: Workspace) -> None:
    """Show names code, steps with reasons, the failure, parameters and files; --json is the run log document itself."""
    shown = project.runnable("show", "latest").out
    for text in (
        *("bad  FAIL (failed: fails)", "changes      untracked: good.toml", "metrics      score = 0.9"),
        *("keep   SUCCESS  1", "run: first attempt", "fails, attempt 1: exit code 4"),
        *("rate       json    0.5", "thing      object  set", "score      metric  0.9"),
        *("bytes.bin  get    load   768 B", "out/a.csv  put    train  4 B"),
    ):
        assert text in shown
    printed = project.runnable("show", "bad", "--json").raw
    assert printed == document(project.store, "bad")
    log = RunLog.model_validate_json(printed)
    assert (log.run_id, log.schema_version) == ("bad", "1")
    assert log.model_extra == {}


def test_logs(project: Workspace) -> None:
    """The output of a step comes back byte by byte, both streams or one; that of all steps has their names."""
    assert project.runnable("logs", "latest", "load", "--stderr").raw == BYTES
    assert project.runnable("logs", "bad", "load", "--stdout").raw == BYTES + b"end"
    both = project.runnable("logs", "bad", "load").raw
    assert sorted(both) == sorted(BYTES + BYTES + b"end")
    everything = project.runnable("logs", "good").out
    assert everything == "only | fine\n"
    assert project.runnable("logs", "bad", "fails").raw == b""
    wrong = project.runnable("logs", "bad", "lod", code=2)
    assert wrong.err == "error: run bad has no step `lod`\nhint: did you mean `load`?\n"
    seventh = project.runnable("logs", "bad", "load", "--attempt", "7", code=2)
    assert seventh.err == "error: there is no attempt 7 of load in run bad\nhint: there is 1 attempt\n"


def test_catalog(project: Workspace) -> None:
    """Every version of every file is listed and can be written out; a file that is there is not replaced."""
    lines = [line.split() for line in project.runnable("catalog", "bad").out.splitlines()]
    assert [line[:4] for line in lines[1:]] == [
        ["bytes.bin", "get", "load", "1"],
        ["model.csv", "put", "train", "1"],
        ["out/a.csv", "put", "train", "1"],
        ["model.csv", "put", "tune", "1"],
        ["thing.pickle", "object", "keep", "1"],
    ]
    listed = json.loads(project.runnable("catalog", "bad", "--json").out)
    assert [(e["step"], e["name"], e["size"]) for e in listed][1] == ("train", "model.csv", 2)
    refused = project.runnable("catalog", "bad", "--get", "model.csv", code=2)
    assert refused.err == "error: model.csv exists\nhint: --force overwrites it, --to writes to another path\n"
    assert project.runnable("catalog", "latest", "--get", "model.csv", "--to", "last.csv").out == "last.csv\n"
    assert project.read("last.csv") == "2\n"
    project.runnable("catalog", "bad", "--get", "model.csv", "--step", "train", "--to", "last.csv", "--force")
    assert project.read("last.csv") == "1\n"
    (project.folder / "into").mkdir()
    assert project.runnable("catalog", "bad", "--get", "out/a.csv", "--to", "into").out == "into/a.csv\n"
    assert project.read("into/a.csv") == "0.5\n"
    wrong = project.runnable("catalog", "bad", "--get", "modl.csv", code=2)
    assert wrong.err == "error: run bad has no file `modl.csv`\nhint: did you mean `model.csv`?\n"
    other = project.runnable("catalog", "bad", "--get", "xyz", code=2)
    assert other.err.endswith("\nhint: `runnable-ci catalog bad` lists what it holds\n")
    assert project.runnable("catalog", "good").err == "run good has no files\n"


def test_unknown_run(project: Workspace) -> None:
    """An unknown run is an error with the closest name, and exit code 2; so is any run where there is none."""
    wrong = project.runnable("show", "goood", code=2)
    assert wrong.err == f"error: no run `goood` in {project.store}\nhint: did you mean `good`?\n"
    assert "did you mean `latest`?" in project.runnable("logs", "lates", code=2).err
    assert project.runnable("catalog", "../good", code=2).err.startswith("error: no run `../good`")
    assert "no runs in" in project.runnable("show", "latest", code=2, at="..").err
    assert "no runs in" in project.runnable("runs", at="..").err


def test_copied_store(project: Workspace, tmp_path: Path) -> None:
    """The newest run is the one that ended last, whatever times a copy of the store gave to its files."""
    shutil.copytree(project.store, tmp_path / ".runnable")
    os.utime(tmp_path / ".runnable/runs/good/journal.jsonl")
    listed = project.runnable("runs", "--store", str(tmp_path)).out.splitlines()
    assert [line.split()[0] for line in listed] == ["RUN", "good", "bad"]
    assert project.runnable("show", "latest", "--store", str(tmp_path)).out.startswith("run          bad  FAIL")


@pytest.mark.promise
def test_hostile_text(tmp_path: Path) -> None:
    """What a step says cannot move the cursor where we repeat it: in tables, plans, reasons and the closing line."""
    work = "def fails():\n    raise ValueError('\\x1b[2Jcleared\\x07\\nsecond line \\x9b31m')\n"
    project = workspace(tmp_path, {"runnable.toml": "[steps.fails]\npython = 'work:fails'\n", "work.py": work})
    ended = project.runnable("run", "--quiet", code=1)
    shown = project.runnable("show", "latest")
    assert "ValueError: ?[2Jcleared? second line ?31m" in shown.out
    planned = project.runnable("retry", "latest", "--dry-run")
    assert len(planned.out.splitlines()) == 1
    for text in (ended.err, shown.out, planned.out, project.runnable("retry", "latest", "--quiet", code=1).err):
        assert "cleared" in text
        assert "second line" in text
        assert not {"\x1b", "\x07", "\x9b"}.intersection(text)
