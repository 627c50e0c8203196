"""Each example is run as its reader would run it: a kind of step or of pipeline each, by `docs/examples.md`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli import Workspace, workspace
from podman import IMAGE, podman_with_image
from support import WAIT_S

import runnable_ci

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TABLE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
SHOWN_ELSEWHERE = {"iris/runnable.toml", "containers/step.toml"}
"""Those that have tests of their own."""


class Turn(NamedTuple):
    """A command on an example, and what it does."""

    words: str
    """Without the file, and the run's id."""
    ran: str = ""
    """The steps that it ran, by their names; those that failed have a `!`, those that were mocked a `~`."""
    says: str = ""
    """A line of it, or a part of one, on stdout or stderr."""
    code: int = 0
    metrics: Mapping[str, float] = {}
    files: str = ""
    """What the run's catalog has after it."""
    environ: Mapping[str, str] = {}
    change: tuple[str, str, str] | None = None
    """A file, and a text in it that is replaced by another one before."""


DOWN, UP = {"SERVICE": "down"}, {"SERVICE": "up"}
KINDS: dict[str, tuple[Turn, ...]] = {
    "tasks/stub.toml": (Turn("run", "fetch train report"),),
    "tasks/python.toml": (Turn("run", "greet", "hello world"),),
    "tasks/shell.toml": (Turn("run", "greet", "and this is stderr"),),
    "tasks/notebook.toml": (
        Turn("run", "greet", "hello you from a notebook", metrics={"length": 3}, files="executed/greet.ipynb"),
    ),
    "sequential/traversal.toml": (Turn("run", "python shell notebook later", files="executed/notebook.ipynb"),),
    "sequential/default-fail.toml": (Turn("run", "prepare train!", "report  | skip: `train` failed", code=1),),
    "parameters/static.toml": (
        Turn(
            "run --params-file parameters.yaml",
            "typed all_of_them namespace shell",
            environ={"RUNNABLE_PRM_envvar": "from env"},
        ),
    ),
    "parameters/python.toml": (Turn("run", "fit predict", "fitted with 6 leaves", metrics={"score": 0.5}),),
    "parameters/notebook.toml": (Turn("run", "fit predict", "fitted with 6 leaves", metrics={"score": 0.5}),),
    "parameters/static-notebook.toml": (Turn("run --params-file parameters.yaml", "notebook shell", "hello: 11"),),
    "parameters/shell.toml": (Turn("run -p depth=5", "fit predict", "10 leaves", metrics={"score": 0.5}),),
    "catalog/shell.toml": (Turn("run", "make remove use", "hello", files="data/data.txt df.csv"),),
    "catalog/python.toml": (Turn("run", "make remove use", "a,b", files="data/data.txt df.csv"),),
    "catalog/no-copy.toml": (
        Turn("run", "make use!", code=1, files="df.csv"),
        Turn("retry -p broken=false", "use", "1,2"),
    ),
    "catalog/on-fail.toml": (Turn("run", "make!", code=1, files="df.csv"),),
    "parallel/parallel.toml": (Turn("run --jobs 2", "left right join"),),
    "parallel/rollback.toml": (Turn("run", "one two three verify", "all three are there"),),
    "parallel/nesting.toml": (
        Turn(
            "run",
            " ".join(
                f"{side}.uses.{one}.uses.{step}"
                for side in ("left", "right")
                for one in ("one", "two")
                for step in ("stub", "shell")
            ),
            "left / one / shell | hello",
        ),
    ),
    "parallel/inner.toml": (Turn("run", "one.uses.stub one.uses.shell two.uses.stub two.uses.shell"),),
    "parallel/leaf.toml": (Turn("run", "stub shell"),),
    "map/branch.toml": (Turn("run", "python notebook shell read"),),
    "map/map.toml": (
        Turn(
            "run",
            "each.1.python each.1.notebook each.1.shell each.1.read "
            "each.2.python each.2.notebook each.2.shell each.2.read collect",
            "all: [10, 20]",
        ),
    ),
    "map/custom-reducer.toml": (
        Turn("run", "process.1.process process.3.process process.2.process process show", "largest: 30"),
    ),
    "map/dynamic.toml": (
        Turn(
            "run",
            "generate process.1.process process.2.process process.3.process process.4.process collect",
            "all: [10, 20, 30, 40], sum 100",
        ),
    ),
    "map/map-fail.toml": (
        Turn(
            "run",
            "process.1.process process.2.process! process.3.process",
            "ConnectionError: the service is down",
            code=1,
            environ=DOWN,
        ),
        Turn("retry", "process.2.process collect", "all: [10, 20, 30], sum 60", environ=UP),
    ),
    "loop/simple.toml": (Turn("run", "count.1.count count.2.count count.3.count show", "counted to 3"),),
    "loop/max-iterations.toml": (Turn("run", "count.1.count count.2.count count.3.count", code=1),),
    "parallel/conflict.toml": (Turn("run", says="`shared` is also returned by step `one`", code=2),),
    "parallel/branch-fail.toml": (Turn("run", "bad! good after_good", "join       | skip: `bad` failed", code=1),),
    "parallel/traversal.toml": (Turn("run", "left left_python right right_python join", "1 and two"),),
    "retry/simple.toml": (
        Turn("run", "check!", "ConnectionError", code=1, environ=DOWN),
        Turn("retry", "check", "checked 1", environ=UP),
    ),
    "retry/linear.toml": (
        Turn("run", "start increment check!", code=1, environ=DOWN),
        Turn("retry", "check finish", "finished with 2", environ=UP),
    ),
    "retry/code.toml": (
        Turn("run", "start divide!", "ZeroDivisionError", code=1),
        Turn("retry", "divide finish", "quotient 0.5", change=("checks.py", "ZERO = 0", "ZERO = 2")),
    ),
    "retry/parameters.toml": (
        Turn("run", "increment say limit!", code=1),
        Turn("retry -p limit=50", "limit", "42 of 50"),
        Turn("retry -p word=bye", "say limit", "bye"),
    ),
    "retry/attempts.toml": (Turn("run", "download use", "downloaded"),),
    "retry/map.toml": (
        Turn("run", "check.1.check check.2.check!", code=1, environ=DOWN),
        Turn("retry", "check.2.check finish", "check (1) | reuse", environ=UP),
    ),
    "retry/parallel.toml": (
        Turn("run", "bad! good", code=1, environ=DOWN),
        Turn("retry", "bad join", "joined", environ=UP),
    ),
    "mocking/mocks.toml": (
        Turn("run --mock all", "load~ train~ report~"),
        Turn("run", "load train report", "score 0.5", metrics={"score": 0.5}),
        Turn("run --mock train", "load train~ report", "score 0.5"),
        Turn("run --patch train=training:stub", "load train~ report", "score 0.005"),
        Turn("""run --patch 'load=echo rows=7 >> "$RUNNABLE_OUTPUT"'""", "load~ train report", "score 0.7"),
    ),
    "jobs/python.toml": (Turn("run", "work", "hello world"),),
    "jobs/shell.toml": (Turn("run", "work", "hello world"),),
    "jobs/parameters.toml": (Turn("run -p size=6", "work", "hello you", metrics={"ratio": 1.5}),),
    "jobs/catalog.toml": (Turn("run", "work", files="squares.csv"),),
    "jobs/catalog-no-copy.toml": (Turn("run", "work", files="squares.csv"),),
    "jobs/notebook.toml": (Turn("run", "greet", "hello world from a notebook", files="executed/greet.ipynb"),),
    "async/single.toml": (Turn("run", "fetch show", "hello you"),),
    "async/sequential.toml": (Turn("run", "fetch show", '["hello a", "hello b"]'),),
    "training/single.toml": (
        Turn("run -p fail_at=3", "train!", "out of memory in epoch 3", code=1),
        Turn("retry -p fail_at=0", "train", metrics={"loss": 0.0625}),
    ),
    "program/runnable.toml": (Turn("run", "load fit_0 fit_1 best", metrics={"error": 0.0}),),
    "ports/dvc/runnable.toml": (
        Turn(
            "run",
            "prepare featurize train!",
            "NameError",
            code=1,
            change=("src/train.py", "for label, *_", "for labe, *_"),
        ),
        Turn(
            "retry",
            "train evaluate",
            "prepare   | reuse: unchanged since attempt 1",
            metrics={"metrics.accuracy": 1.0},
            files="eval/metrics.json eval/plots/confusion.csv model.json",
            change=("src/train.py", "for labe, *_", "for label, *_"),
        ),
    ),
    "sequential/on-failure-fail.toml": (Turn("run", "train! notify", "report | skip: `train` failed", code=1),),
    "sequential/on-failure-succeed.toml": (Turn("run", "attempt! other_way", "another way"),),
    "sequential/conditional.toml": (
        Turn("run", "toss heads continue", "tails    | skip: the condition"),
        Turn("run -p coin=tails", "toss tails continue", "it is tails"),
    ),
    "sequential/conditional-returns.toml": (
        Turn("run", "heads verify", "found by heads"),
        Turn("run -p choice=tails", "tails verify", "found by tails"),
    ),
    "retry/conditional.toml": (
        Turn("run", "toss heads!", code=1, environ=DOWN),
        Turn("retry", "heads continue", "tails    | skip: the condition", environ=UP),
    ),
    "ports/kedro/runnable.toml": (
        Turn(
            "run --params-file parameters.yaml",
            "companies shuttles reviews preprocess_companies preprocess_shuttles create_model_input_table split_data "
            "train_model!",
            code=1,
            change=("nodes.py", "sum(xs) / len(xs)", "sum(xs) / len(ys)"),
        ),
        Turn(
            "retry",
            "train_model evaluate_model",
            "split_data               | reuse: unchanged since attempt 1",
            metrics={"metrics.r2_score": 0.9997},
            change=("nodes.py", "sum(xs) / len(ys)", "sum(xs) / len(xs)"),
        ),
    ),
    "parameters/static-fail.toml": (
        Turn("run --params-file parameters.yaml", "read! look", "look | hello: 11", code=1),
    ),
    "ports/snakemake/runnable.toml": (
        Turn(
            "run",
            "map.A.map map.B.map! map.C.map sort.A.sort sort.C.sort stats.A.stats stats.C.stats",
            code=1,
            change=("data/samples/B.txt", "TTGAC", "XXXXX"),
        ),
        Turn(
            "retry",
            "map.B.map sort.B.sort stats.B.stats call plot",
            "map (A) | reuse: unchanged since attempt 1",
            files="plots/quals.txt stats/B.txt logs/map/B.log",
            change=("data/samples/B.txt", "XXXXX", "TTGAC"),
        ),
    ),
    "ports/metaflow/runnable.toml": (
        Turn(
            "run",
            "start compute.Action.compute compute.Comedy.compute compute.Drama.compute compute.Sci-Fi.compute!",
            "ValueError",
            code=1,
            change=("movies.csv", "Sci-Fi,500", "Sci-Fi,n.a."),
        ),
        Turn(
            "retry",
            "start compute.Sci-Fi.compute join",
            "compute (Drama) | reuse: unchanged since attempt 1",
            metrics={"films": 8},
            change=("movies.csv", "Sci-Fi,n.a.", "Sci-Fi,500"),
        ),
    ),
    "training/distributed.toml": (Turn("run", "train", "rank 1 of 2", files="checkpoints/epoch-001.json"),),
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """All examples in one repository."""
    made = workspace(tmp_path_factory.mktemp("examples"), {".gitignore": "__pycache__\n.runnable\n"})
    ignored = shutil.ignore_patterns("__pycache__", ".runnable", ".*cache")
    shutil.copytree(EXAMPLES, made.folder, dirs_exist_ok=True, ignore=ignored)
    made.commit()
    return made


@pytest.mark.parametrize("path", KINDS)
def test_an_example(examples: Workspace, path: str) -> None:
    """It does what its first line says: the steps that run, their results and files, and what a retry repeats."""
    folder, _, file = path.rpartition("/")
    run_id, before = "", Counter[str]()
    for number, turn in enumerate(KINDS[path]):
        if turn.change:
            changed, old, new = turn.change
            text = examples.read(f"{folder}/{changed}")
            assert old in text
            examples.write({f"{folder}/{changed}": text.replace(old, new)})
        verb, *options = shlex.split(turn.words)
        if verb == "run":
            run_id, before = f"{path.replace('/', '.')}.{number}", Counter()
        words = [verb, file, "--run-id", run_id] if verb == "run" else [verb, run_id]
        done = examples.runnable(*words, *options, code=turn.code, at=folder, **turn.environ)
        assert turn.says in done.out + done.err
        if turn.code == 2:
            continue
        run = runnable_ci.open_run(run_id, examples.folder / folder)
        steps = [step for step in run.steps if step["attempts"] > before[step["name"]]]
        assert {*map(_shown, steps)} == {*turn.ran.split()}
        before = Counter({step["name"]: step["attempts"] for step in run.steps})
        kept = {entry["name"] for step in run.log["steps"].values() for entry in step["data_catalog"]}
        assert kept >= {*turn.files.split()}
        assert run.metrics.items() >= dict(turn.metrics).items()


def _shown(step: Mapping[str, Any]) -> str:
    """A step's name with how its last attempt ended."""
    failed = step["outcome"] not in ("succeeded", "")
    return f"{step['name']}{'!' * failed}{'~' * step['mock']}"


def test_an_example_in_a_container(examples: Workspace, tmp_path: Path) -> None:
    """A step runs in the image that it names; here, that is a small one with this name."""
    there = replace(examples, folder=examples.folder / "containers")
    with podman_with_image() as podman:
        podman("tag", IMAGE, "docker.io/library/busybox:1.36")
        words = ("run", "step.toml", "--run-id", "containers")
        with there.start(*words, **podman.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman") as running:
            out, err = running.communicate(timeout=4 * WAIT_S)  # an engine's first container is slow
    assert (running.returncode, b"key is value" in out) == (0, True), err
    log = runnable_ci.open_run("containers", there.folder).log
    used = log["steps"]["tool"]["attempts"][0]["code_identities"][1]
    assert used["code_identifier_url"] == "docker.io/library/busybox"


@pytest.mark.parametrize("source", ["dvc/dvc.yaml", "snakemake/Snakefile"])
def test_an_imported_pipeline_is_what_the_import_writes(examples: Workspace, source: str) -> None:
    """The pipeline file of a port is made by `init --from`, byte for byte."""
    folder, _, file = f"ports/{source}".rpartition("/")
    written = examples.folder / folder / "runnable.toml"
    before = written.read_bytes()
    written.unlink()
    examples.runnable("init", "--from", file, at=folder)
    assert written.read_bytes() == before


def test_a_sample_that_is_added(examples: Workspace, tmp_path: Path) -> None:
    """Imported again, a workflow with one more sample runs that sample, and what collects all of them."""
    there = workspace(tmp_path, {".gitignore": ".runnable\n"}, name="snakemake")
    shutil.copytree(EXAMPLES / "ports" / "snakemake", there.folder, dirs_exist_ok=True)
    there.runnable("run", "--run-id", "r")
    before = {name: len(step.attempts) for name, step in there.log("r").steps.items()}
    there.write({"data/samples/D.txt": "CATTT\nACGTT\n"})
    (there.folder / "runnable.toml").unlink()
    there.runnable("init", "--from", "Snakefile")
    there.runnable("retry", "r")
    steps = there.log("r").steps
    ran = {name for name, step in steps.items() if len(step.attempts) > before.get(name, 0)}
    assert ran == {"map.D.map", "sort.D.sort", "stats.D.stats", "call", "plot"}
    assert there.read("stats/D.txt") == "D 2\n"


def test_a_program_writes_the_file_that_is_there(examples: Workspace) -> None:
    """The pipeline file of the program is what it writes, byte for byte."""
    written = examples.folder / "program" / "runnable.toml"
    before = written.read_bytes()
    written.unlink()
    command = [sys.executable, "-c", "import pipeline; pipeline.pipeline.write()"]
    subprocess.run(command, cwd=written.parent, env=examples.environ, check=True)
    assert written.read_bytes() == before


def test_each_example_is_run_and_in_the_table() -> None:
    """There is no pipeline file that is not run here, and the documentation has each under its name, and no other."""
    there = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.toml")}
    assert there == KINDS.keys() | SHOWN_ELSEWHERE
    rows = [line.split("|")[1] for line in TABLE.splitlines() if line.startswith("| ") and "ports/" not in line]
    assert sum(len(re.findall(r"`[^`]+`", names)) for names in rows) == 65
    linked = set(re.findall(r"\]\(\.\./examples/([^)#]+)\)", TABLE))
    assert {path for path in linked if path.endswith(".toml")} == there
    assert [path for path in linked if not (EXAMPLES / path).exists()] == []
