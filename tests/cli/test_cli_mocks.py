"""Tests of mocked steps: nothing is run, or something else, and that is never taken for the step's own result."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace
from registry_server import registry
from test_cli_parts import BRANCHES

from runnable_ci.runs.model import FAIL, SUCCESS

PIPELINE = """
[steps.load]
run = 'mkdir -p out; cp data.csv out/a; echo rows=5 >> "$RUNNABLE_OUTPUT"; echo loading'
returns = ["rows"]
catalog = { put = ["out/**"] }
[steps.fit]
python = "work:fit"
returns = { model = "object" }
[steps.report]
run = 'cat out/a; echo "rows $rows"; echo "score=$rows" >> "$RUNNABLE_OUTPUT"; [ ! -e conf/broken ]'
returns = { score = "metric" }
"""
WORK = """
def fit(rows):
    print("fitting", rows)
    return {rows}
def show(model):
    print("model", model)
    return model
def fake(rows):
    return "fake"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A chain of a shell step, a python step, and another shell step."""
    files = {
        "runnable.toml": PIPELINE,
        "work.py": WORK,
        "data.csv": "a\n",
        "conf/x": "",
        ".gitignore": "out/\n__pycache__/\n",
    }
    return workspace(tmp_path, files)


def test_a_mock_gives_what_the_newest_run_has(tmp_path: Path, project: Workspace) -> None:
    """Values, objects and files of a real run are there, nothing is run, and log and listings say that it is a mock."""
    project.runnable("run", "--run-id", "real")
    project.write({"data.csv": "b\n", "out/a": "edited\n"})
    planned = project.runnable("run", "--mock", "load", "--mock", "fit", "-n")
    assert planned.err == "note: mocked by what run real has: `fit`, `load`\n"
    assert planned.out.startswith("load    run    mock: first attempt\nfit     run    mock: first attempt\n")
    done = project.runnable("run", "--mock", "load", "--mock", "fit", "--run-id", "mocked")
    assert done.out == "report | a\nreport | rows 5\n"
    assert done.err.endswith("run mocked: SUCCESS, score = 5; mocked: `load`, `fit`\n")
    log = project.log("mocked")
    assert [(step.mock, step.attempts[0].mock) for step in log.steps.values()] == [(True, True)] * 2 + [(False, False)]
    assert log.steps["load"].attempts[0].taken_from == "real/load.1"
    assert [entry.made_by for entry in log.steps["load"].put_entries()] == ["real/load.1"]
    assert log.steps["fit"].attempts[0].output_parameters["model"].data_hash
    assert "SUCCESS (mock)" in project.runnable("show", "mocked").out
    head, _, row = project.runnable("runs").out.splitlines()
    assert row[head.index("MOCKED") :].startswith("load,fit ")
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "mocked", "--to", repository)
        head, row = project.runnable("runs", "--from", repository).out.splitlines()
        assert row[head.index("MOCKED") :].startswith("load,fit ")
    project.runnable("catalog", "mocked", "--get", "out/a", "--to", "copy")
    assert project.read("copy") == "a\n"


def test_all_steps_are_mocked_without_any_run(project: Workspace) -> None:
    """Each succeeds and gives nothing, which is said; a later mock does not take that for a result."""
    done = project.runnable("run", "--mock", "all", "--run-id", "one")
    assert "note: mocked, and no run here has a result, so that nothing is returned or put: `fit`, `load`" in done.err
    assert done.out == ""
    log = project.log("one")
    assert [(step.status, step.mock, step.data_catalog) for step in log.steps.values()] == [(SUCCESS, True, [])] * 3
    assert "no run here has a result" in project.runnable("run", "--mock", "all").err
    assert "no run here has a result of `load`, `fit`" in project.runnable("run", "report", code=2).err


def test_a_retry_runs_what_was_mocked(project: Workspace) -> None:
    """Unless it mocks the same, as the hint after a failure does; then the mock is no reason to run anything again."""
    project.runnable("run", "--run-id", "real")
    project.write({"conf/broken": ""})
    failed = project.runnable("run", "--mock", "load", "--patch", "fit=work:fake", "--run-id", "m", code=1)
    hint = "runnable-ci retry m --mock load --patch fit=work:fake\n"
    assert failed.err.endswith(f"hint: {hint}")
    plan = project.runnable("retry", "m", "-n").out
    assert [line.split(maxsplit=2)[1:] for line in plan.splitlines()] == [
        ["run", "it was mocked"],
        ["run", "it was mocked"],
        ["run", "attempt 1 failed: exit code 1"],
    ]
    plan = project.runnable(*hint.split()[1:], "-n").out
    assert [line.split(maxsplit=2)[1] for line in plan.splitlines()] == ["reuse", "reuse", "run"]
    (project.folder / "conf/broken").unlink()
    project.runnable(*hint.split()[1:])
    done = project.runnable("retry", "m")
    assert "load   | loading\n" in done.out
    log = project.log("m")
    assert [step.mock for step in log.steps.values()] == [False] * 3
    assert [attempt.mock for attempt in log.steps["fit"].attempts] == [True, False]
    assert [attempt.status for attempt in log.steps["report"].attempts][:2] == [FAIL, SUCCESS]


def test_a_patch_is_run_instead(project: Workspace) -> None:
    """A function or a command, with the step's inputs and returns; what was made from it is no result to take."""
    project.runnable("run", "--run-id", "real")
    patches = ["--patch", "fit=work:fake", "--patch", 'report=echo instead; echo score=1 >> "$RUNNABLE_OUTPUT"']
    done = project.runnable("run", *patches, "--run-id", "patched")
    assert "report | instead\n" in done.out
    assert "score = 1; mocked: `fit`, `report`" in done.err
    log = project.log("patched")
    assert log.steps["fit"].attempts[0].definition["python"] == "work:fake"
    assert log.steps["fit"].attempts[0].output_parameters["model"].object_type == "str"
    assert project.runnable("run", "report", "-n").err == "note: `load`, `fit` taken from run real\n"
    assert project.runnable("run", "--mock", "report").err.count("mocked by what run real has") == 1


def test_a_mocked_step_is_one_of_those_that_run(project: Workspace) -> None:
    """`run report --mock fit` takes `load` from the earlier run; steps that are not in the run cannot be mocked."""
    project.runnable("run", "--run-id", "real")
    done = project.runnable("run", "report", "--mock", "fit", "--from-run", "real", "--run-id", "part")
    assert "`load` taken from run real" in done.err
    assert [step.mock for step in project.log("part").steps.values()] == [False, True, False]
    refused = project.runnable("run", "--until", "fit", "--mock", "report", code=2).err
    assert refused == "error: --mock report: there is no such step\nhint: the steps of this run are: load, fit\n"


def test_branches_are_mocked(tmp_path: Path) -> None:
    """Each instance by what it gave itself, a loop by its last round; a patch is run for each of them."""
    project = workspace(tmp_path, {"runnable.toml": BRANCHES, "conf/x": ""})
    project.runnable("run", "--run-id", "whole")
    project.write({"runnable.toml": BRANCHES.replace("[1, 2]", "[2, 3]")})
    done = project.runnable("run", "--mock", "quant", "--mock", "tune", "--run-id", "mocked")
    assert "quant (3) | note: mocked, and no run here has a result of this branch\n" in done.err
    assert done.err.endswith("run mocked: SUCCESS; mocked: `quant`, `tune`\n")
    log = project.log("mocked")
    assert log.parameters["k"].value == 3
    given = {key: step.attempts[0].taken_from for key, step in log.steps.items() if step.attempts and step.mock}
    assert given == {
        "quant.2.quant": "whole/quant.2.quant.1",
        "quant.3.quant": "",
        next(key for key in log.steps if key.startswith("tune.")): "whole/tune.3.tune.1",
    }
    patch = 'quant=echo "n=7" >> "$RUNNABLE_OUTPUT"'
    assert project.runnable("run", "--patch", patch).out == "sum   | n [7, 7] k 3\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--mock", "fti"], "--mock fti: there is no such step\nhint: did you mean `fit`?"),
        (["--patch", "fti=true"], "--patch fti=true: there is no such step\nhint: did you mean `fit`?"),
        (["--patch", "fit"], "--patch fit: expected STEP=module:function or STEP=command"),
        (["--patch", "load= "], "--patch load= : expected STEP=module:function or STEP=command"),
        (["--patch", "fit=work:fkae"], "--patch fit=work:fkae: work.py has no function `fkae`\nhint: did you mean"),
        (["--patch", "fit=true"], "--patch fit: a command cannot return `model`, which is an object"),
        (["--patch", "load=true", "--patch", "load=false"], "--patch: `load` is patched twice"),
        (["--patch", "load=true", "--mock", "load"], "`load` is given to --mock and --patch"),
    ],
)
def test_what_cannot_be_mocked(project: Workspace, words: list[str], problem: str) -> None:
    """One clear error before anything runs, by a retry too."""
    assert project.runnable("run", *words, code=2).err.startswith(f"error: {problem}")
    assert not (project.store / "runs").exists()
