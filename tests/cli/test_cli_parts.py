"""Tests of runs of some steps: what runs, what is taken from an earlier run, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry
from support import wait_until

from runnable_ci.runs.model import FAIL, SUCCESS

PIPELINE = """
[parameters]
depth = 3
[steps.load]
run = 'mkdir -p out; cp data.csv out/clean.csv; echo rows=5 >> "$RUNNABLE_OUTPUT"'
returns = ["rows"]
catalog = { get = ["data.csv"], put = ["out/**"] }
[steps.train]
run = 'echo "model of $rows rows, depth $depth" > model.txt; [ ! -e broken ]'
catalog = { get = ["out/clean.csv"], put = ["model.txt"] }
[steps.report]
run = 'cat model.txt; echo score=7 >> "$RUNNABLE_OUTPUT"'
returns = { score = "metric" }
[steps.other]
needs = ["load"]
run = "echo other"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A chain of three steps with one beside it."""
    files = {"runnable.toml": PIPELINE, "data.csv": "a\n", ".gitignore": "out/\nmodel.txt\n"}
    return workspace(tmp_path, files)


def test_only_the_selected_steps_run(project: Workspace) -> None:
    """What they need is taken from the newest run: values and files are there, and the log says from where."""
    project.runnable("run", "--run-id", "whole")
    (project.folder / "model.txt").unlink()
    planned = project.runnable("run", "report", "-n")
    assert [line.split()[:2] for line in planned.out.splitlines()] == [
        ["load", "reuse"],
        ["train", "reuse"],
        ["report", "run"],
    ]
    assert planned.err == "note: `load`, `train` taken from run whole\n"
    done = project.runnable("run", "report", "--run-id", "part")
    assert done.err.startswith("run part: project, 1 step; `load`, `train` taken from run whole\n")
    assert done.out == "report | model of 5 rows, depth 3\n"
    log = project.log("part")
    assert (log.status, list(log.steps)) == (SUCCESS, ["load", "train", "report"])
    assert [step.attempts[0].taken_from for step in log.steps.values()] == ["whole/load.1", "whole/train.1", ""]
    assert log.invocations[0].decisions["train"].reason == "unchanged since attempt 1 of run whole"
    assert "reuse: unchanged since attempt 1 of run whole" in project.runnable("show", "part").out


def test_the_new_run_is_whole_without_the_earlier_one(tmp_path: Path, project: Workspace) -> None:
    """Once that is deleted, and in another clone, its files are there and it can be resumed."""
    project.runnable("run", "--run-id", "whole")
    project.write({"broken": ""})
    project.runnable("run", "train", "--run-id", "part", "-p", "depth=9", code=1)
    assert project.runnable("gc", "--keep", "1").out == "whole\n"
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "part", "--to", repository)
        other = elsewhere(project, tmp_path)
        done = other.runnable("retry", f"{repository}:part")
        other.runnable("pull", "part")
    assert "train | ✓" in done.err
    assert "report" not in done.err  # it was not selected
    log = other.log("part")
    assert [attempt.status for attempt in log.steps["train"].attempts] == [FAIL, SUCCESS]
    assert [len(step.attempts) for step in log.steps.values()] == [1, 2]
    assert other.read("model.txt") == "model of 5 rows, depth 9\n"
    other.runnable("catalog", "part", "--get", "out/clean.csv", "--to", "copy.csv")
    assert other.read("copy.csv") == "a\n"


def test_a_run_of_others_is_taken_where_it_is_named(tmp_path: Path, project: Workspace) -> None:
    """Of what was pulled only in part the rest is fetched, before anything runs; whose results these are is said."""
    project.runnable("run", "--run-id", "whole")
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "whole", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{repository}:whole", "--only", "log")
        assert "no run here has a result of `load`, `train`" in other.runnable("run", "report", code=2).err
        reference = f"{repository}:whole"
        refused = other.runnable("run", "report", "--from-run", reference, code=2).err
        assert refused.endswith(f"hint: first: runnable-ci pull {reference}\n")
        done = other.runnable("run", "report", "--from-run", "whole", "--run-id", "part")
    assert "note: written by A on main" in done.err
    assert done.out == "report | model of 5 rows, depth 3\n"
    other.runnable("gc", "--keep", "1")
    assert other.runnable("logs", "part", "report").out == "model of 5 rows, depth 3\n"
    other.runnable("catalog", "part", "--get", "out/clean.csv", "--to", "copy.csv")
    assert other.read("copy.csv") == "a\n"
    assert "nothing to do" in other.runnable("retry", "part").err


def test_a_killed_run_of_some_steps_is_resumed(project: Workspace) -> None:
    """What it took is in its journal, and its retry runs what was selected only."""
    project.runnable("run", "--run-id", "whole")
    project.write({"runnable.toml": PIPELINE.replace("[ ! -e broken ]", "touch begun.txt; [ -e go ] || sleep 60")})
    with project.start("run", "train", "--run-id", "part") as running:
        wait_until((project.folder / "begun.txt").exists, "the step runs")
        running.kill()
    project.write({"go": ""})
    planned = project.runnable("retry", "part", "-n").out
    assert [line.split()[:2] for line in planned.splitlines()] == [["load", "reuse"], ["train", "run"]]
    project.runnable("retry", "part")
    log = project.log("part")
    assert [attempt.outcome for attempt in log.steps["train"].attempts] == ["interrupted", "succeeded"]
    assert [attempt.taken_from for attempt in log.steps["load"].attempts] == ["whole/load.1"]


def test_what_is_lost_cannot_be_taken(project: Workspace) -> None:
    """A content that the store has lost is named before a run begins, and the earlier run is left as it is."""
    project.runnable("run", "--run-id", "whole")
    [blob] = [it for it in (project.store / "blobs/sha256").iterdir() if it.read_bytes() == b"a\n"]
    blob.unlink()
    lost = project.runnable("run", "train", code=1).err
    assert lost.startswith("error: catalog/out/clean.csv of run `whole`: not in the store\n")
    assert project.runnable("runs").out.count("\n") == 2


def test_a_secret_that_a_step_returned_is_not_taken(project: Workspace) -> None:
    """The log does not have it: the step that returns it must run too."""
    pipeline = """
        secrets = ["token"]
        [steps.login]
        run = 'echo "token=$(tr a-z A-Z < key.txt)" >> "$RUNNABLE_OUTPUT"'
        returns = ["token"]
        [steps.use]
        run = 'echo "${#token}"'
    """
    project.write({"runnable.toml": pipeline, "key.txt": "correcthorsebattery"})
    project.runnable("run", "--run-id", "whole")
    refused = project.runnable("run", "use", code=2).err
    assert refused == (
        "error: step `use` takes `token`, which `login` returned: it is a secret, and not in the run log\n"
        "hint: to run it too: runnable-ci run use login\n"
    )


def test_until_runs_a_step_and_all_above_it(project: Workspace) -> None:
    """Nothing is taken from anywhere, and what comes after is no part of the run."""
    done = project.runnable("run", "--until", "train", "--run-id", "part")
    assert done.err.startswith("run part: project, 2 steps\n")
    assert list(project.log("part").steps) == ["load", "train"]
    assert project.runnable("retry", "part").err.startswith("run part: nothing to do, 2 steps done\n")
    both = project.runnable("run", "--until", "train", "--until", "other", "-n").out
    assert [line.split()[0] for line in both.splitlines()] == ["load", "train", "other"]


def test_a_run_to_take_from_is_named(project: Workspace) -> None:
    """Else it is the newest that has the results; one whose results are not those of now is refused by the reason."""
    project.runnable("run", "--run-id", "deep", "-p", "depth=9")
    project.runnable("run", "--run-id", "flat")
    assert "taken from run flat" in project.runnable("run", "report", "-n").err
    done = project.runnable("run", "report", "--from-run", "deep", "-p", "depth=9")
    assert done.out == "report | model of 5 rows, depth 9\n"
    refused = project.runnable("run", "report", "--from-run", "deep", "-n", code=2)
    assert refused.err == (
        "error: step `train` was not selected, and its result cannot be taken from run `deep`: "
        "parameter depth changed: 9 → 3\n"
        "hint: to run it too: runnable-ci run report --from-run deep -n train\n"
    )
    words = ["--accept", "train", "--reason", "as deep as it gets", "--from-run", "deep"]
    done = project.runnable("run", "report", "--run-id", "accepted", *words)
    assert done.out == "report | model of 5 rows, depth 9\n"
    assert project.log("accepted").invocations[0].decisions["train"].accepted_reason == "as deep as it gets"
    assert "nothing to do" in project.runnable("retry", "accepted").err


def test_what_changed_is_not_taken_by_a_retry_either(project: Workspace) -> None:
    """A retry of some steps repeats others only where it is asked to."""
    project.runnable("run", "--run-id", "whole")
    project.runnable("run", "report", "--run-id", "part")
    project.write({"data.csv": "b\n"})
    for command in (["run", "report"], ["retry", "part"], ["retry", "part", "-n"]):
        refused = project.runnable(*command, code=2).err
        assert "step `load` was not selected, and " in refused
        assert refused.partition(": ")[2].partition("\n")[0].endswith(": input data.csv changed")
    assert project.runnable("retry", "part", code=2).err.endswith(
        "hint: to run it too: runnable-ci retry part --from load\n"
    )
    project.runnable("retry", "part", "--from", "load")
    assert [len(step.attempts) for step in project.log("part").steps.values()] == [2, 2, 2]
    assert project.read("out/clean.csv") == "b\n"


def test_without_a_result_nothing_runs(project: Workspace) -> None:
    """No run has one, or not the run that is named; the hint is a command that runs all that is needed."""
    refused = project.runnable("run", "train", "-p", "depth=2", code=2).err
    assert refused == (
        "error: no run here has a result of `load`, which the steps to run need\n"
        "hint: to run what they need too: runnable-ci run train -p depth=2 --until train\n"
    )
    planned = project.runnable("run", "train", "-p", "depth=2", "--until", "train", "-n").out
    assert [line.split()[:2] for line in planned.splitlines()] == [["load", "run"], ["train", "run"]]
    project.write({"broken": ""})
    project.runnable("run", "--run-id", "failed", code=1)
    assert project.runnable("run", "other").out == "other | other\n"
    refused = project.runnable("run", "report", "--from-run", "failed", code=2).err
    assert refused.startswith("error: run `failed` has no result of `train`, which the steps to run need\n")
    assert len(project.runnable("runs").out.splitlines()) == 3


def test_a_step_that_its_condition_skips(tmp_path: Path) -> None:
    """It has no result to take, and needs none; where the condition holds now, it must run."""
    pipeline = """
        [parameters]
        toss = "tails"
        [steps.a]
        run = 'echo "x=1" >> "$RUNNABLE_OUTPUT"'
        returns = ["x"]
        [steps.heads]
        if = "parameters.toss == 'heads'"
        run = "true"
        [steps.end]
        run = 'echo "x $x"'
    """
    project = workspace(tmp_path, {"runnable.toml": pipeline})
    project.runnable("run", "--run-id", "whole")
    assert project.runnable("run", "end").out == "end   | x 1\n"
    refused = project.runnable("run", "a", "end", "--from-run", "whole", "-p", "toss=heads", code=2).err
    assert refused.startswith("error: step `heads` was not selected, and run `whole` has no result of it\n")


def test_words_are_a_pipeline_or_steps(project: Workspace) -> None:
    """A path is a pipeline, a word that is none is a step; a folder without a pipeline may have a step's name."""
    project.write({"load/note": "", "sub/runnable.toml": '[steps.load]\nrun = "echo sub"', "x.toml": PIPELINE})
    project.runnable("run", "load")
    assert project.runnable("run", "sub").out == "load | sub\n"
    assert list(project.log("latest").steps) == ["load"]
    project.runnable("run", "x.toml", "load", "--run-id", "x")
    assert project.log("x").run_config["pipeline_file"] == "x.toml"
    project.runnable("run", "-f", "x.toml", "load", "other", "--run-id", "y")
    assert list(project.log("y").steps) == ["load", "other"]
    assert project.runnable("run", "trian", code=2).err == (
        "error: runnable.toml has no step `trian`\nhint: did you mean `train`?\n"
    )
    assert "error: there is no train\n" in project.runnable("run", "./train", code=2).err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["load", "tarin"], "runnable.toml has no step `tarin`"),
        (["--until", "reprot"], "--until: runnable.toml has no step `reprot`"),
        (["--from-run", "x"], "--from-run is for a run of some steps, which takes results of an earlier one"),
        (["--accept", "load", "--reason", "x"], "--accept is for a run of some steps"),
        (["report", "--from-run", "nothing"], "no run"),
    ],
)
def test_what_cannot_be_asked_for(project: Workspace, words: list[str], problem: str) -> None:
    """One clear error before anything runs."""
    done = project.runnable("run", *words, code=2)
    assert done.err.startswith(f"error: {problem}")
    assert not (project.store / "runs").exists() or not list((project.store / "runs").iterdir())


BRANCHES = """
[steps.list]
run = 'echo "chunks=[1, 2]" >> "$RUNNABLE_OUTPUT"'
returns = ["chunks"]
[steps.quant]
strategy = { matrix = { chunk = "${{ parameters.chunks }}" } }
run = 'echo "n=$((chunk * 10))" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
[steps.tune]
loop = { until = "parameters.k == 3", max = 5 }
run = 'echo "k=$((${k:-0} + 1))" >> "$RUNNABLE_OUTPUT"'
returns = ["k"]
[steps.sum]
run = 'echo "n $n k $k"; [ ! -e conf/broken ]'
"""


def test_the_branches_of_steps_are_taken(tmp_path: Path) -> None:
    """Instances of a matrix and rounds of a loop, by a run of some steps, its retry, and a run of some of its steps."""
    project = workspace(tmp_path, {"runnable.toml": BRANCHES, "conf/x": ""})
    project.runnable("run", "--run-id", "whole")
    project.write({"conf/broken": ""})
    assert project.runnable("run", "sum", "--run-id", "part", code=1).out == "sum   | n [10, 20] k 3\n"
    (project.folder / "conf/broken").unlink()
    assert "run part: 1 step to run, 6 reused" in project.runnable("retry", "part").err
    whole, part = project.log("whole"), project.log("part")
    assert list(part.steps) == list(whole.steps)
    assert part.steps["quant.2.quant"].attempts[0].taken_from == "whole/quant.2.quant.1"
    assert part.steps["quant"].instances == whole.steps["quant"].instances
    done = project.runnable("run", "tune", "--from-run", "part", "--run-id", "again")
    assert "`list`, `quant` taken from run part" in done.err
    assert project.log("again").steps["quant.1.quant"].attempts[0].taken_from == "whole/quant.1.quant.1"
    project.write({"runnable.toml": BRANCHES.replace("* 10", "* 100")})
    refused = project.runnable("run", "sum", code=2).err
    assert refused.startswith("error: step `quant (1)` was not selected, and its result cannot be taken from run ")
    assert refused.endswith("hint: to run it too: runnable-ci run sum quant\n")
