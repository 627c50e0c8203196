"""Tests of steps with a matrix, as a person runs them: which instances run, what they give, how they are resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cli import Done, Workspace, elsewhere, workspace
from registry_server import registry
from support import wait_until

from runnable_ci.runs.model import FAIL, SUCCESS, RunLog

IGNORED = ".runnable/\n__pycache__/\nout/\n"


def project_of(tmp_path: Path, pipeline: str, **files: str) -> Workspace:
    """Return a project with this pipeline and these files, a `__` in their names for a dot."""
    named = {name.replace("__", "."): text for name, text in files.items()}
    return workspace(tmp_path, {"runnable.toml": pipeline, ".gitignore": IGNORED, **named})


def ran(done: Done) -> list[str]:
    """Return the steps that ran, in an order of their own."""
    return sorted(
        line.partition(" | ")[0].strip() for line in done.err.splitlines() if " | ✓ " in line or " | ✗ " in line
    )


def values(log: RunLog) -> dict[str, Any]:
    """Return the run's values."""
    return {name: parameter.value for name, parameter in log.parameters.items()}


DYNAMIC = """
[steps.generate]
run = 'cat chunks.json >> "$RUNNABLE_OUTPUT"'
returns = { chunks = "json" }
[steps.process]
strategy = { matrix = { chunk = "${{ parameters.chunks }}" } }
python = "chunks:process"
returns = ["size", "text"]
[steps.collect]
python = "chunks:collect"
returns = ["total"]
"""
CHUNKS = """
import json
def process(chunk):
    return len(json.dumps(chunk)), chunk
def collect(size, text):
    return [sum(size), text]
"""


@pytest.mark.parametrize(
    "chunks",
    [[], ["a.b", "c/d", "e f", "", "7", 7, "é\\n'\"$x", None, [1, [2, {"a": []}]], {"k": "v"}], [1, 1, 2]],
    ids=["none", "strange", "twice"],
)
def test_a_list_of_an_earlier_step(tmp_path: Path, chunks: list[Any]) -> None:
    """Each value is passed as it is, and what the instances return is a list in the order of the matrix."""
    project = project_of(tmp_path, DYNAMIC, chunks__py=CHUNKS, chunks__json=f"chunks={json.dumps(chunks)}\n")
    project.runnable("run", "--run-id", "r")
    log = project.log("r")
    assert values(log)["text"] == chunks
    assert values(log)["total"] == [sum(len(json.dumps(chunk)) for chunk in chunks), chunks]
    distinct = {json.dumps(chunk) for chunk in chunks}
    assert len([name for name in log.steps if name.startswith("process.")]) == len(distinct)
    assert log.steps["process"].status == SUCCESS
    done = project.runnable("retry", "r")
    assert done.err.splitlines()[0] == f"run r: nothing to do, {2 + len(distinct)} steps done"


def test_the_log_is_as_the_reference_system_s(tmp_path: Path) -> None:
    """The document has the branches inside of their step, with the reference's names; what is read back is the same."""
    pipeline = """
[steps.quant]
strategy = { matrix = { sample = ["gut", "liver"] } }
run = 'echo "count=${#sample}" >> "$RUNNABLE_OUTPUT"'
returns = ["count"]
"""
    project = project_of(tmp_path, pipeline)
    project.runnable("run", "--run-id", "r")
    document = json.loads(project.runnable("show", "r", "--json").out)
    assert document["schema_version"] == "3"
    assert list(document["steps"]) == ["quant"]
    quant = document["steps"]["quant"]
    assert (quant["step_type"], quant["status"], quant["attempts"]) == ("map", "SUCCESS", [])
    assert list(quant["branches"]) == ["quant.gut", "quant.liver"]
    gut = quant["branches"]["quant.gut"]
    assert (gut["internal_name"], gut["status"], list(gut["steps"])) == ("quant.gut", "SUCCESS", ["quant.gut.quant"])
    step = gut["steps"]["quant.gut.quant"]
    assert (step["name"], step["internal_name"]) == ("quant", "quant.gut.quant")
    assert step["attempts"][0]["input_parameters"]["sample"]["value"] == "gut"
    assert step["attempts"][0]["output_parameters"]["count"]["reduced"] is False
    assert [document["parameters"]["count"][key] for key in ("value", "reduced")] == [[3, 5], True]
    assert list(project.log("r").steps) == ["quant", "quant.gut.quant", "quant.liver.quant"]


def test_a_new_value_adds_one_instance(tmp_path: Path) -> None:
    """It alone runs, and what collects; one that is gone is only left out, and comes back as it was."""
    pipeline = """
[steps.count]
strategy = { matrix = { file = "${{ files('data/*.txt') }}" } }
name = "${{ matrix.file }}"
run = 'wc -c < "$file" > "out/$(basename "$file")"'
catalog = { put = ["out/${{ matrix.file }}"] }
[steps.sum]
run = "cat out/*.txt"
catalog = { get = ["out/*.txt"] }
"""
    pipeline = pipeline.replace('put = ["out/${{ matrix.file }}"]', "put = []").replace('> "out/', '| tee "out/')
    project = project_of(tmp_path, pipeline)
    project.write({"data/a.txt": "1", "data/b.txt": "22", "out/x.txt": ""})
    project.runnable("run", "--run-id", "r", "--jobs", "1")  # what runs at the same time may have read the same
    project.write({"data/c.txt": "333"})
    assert ran(project.runnable("retry", "r")) == ["count (data/c.txt)", "sum"]
    (project.folder / "data/a.txt").unlink()
    done = project.runnable("retry", "r")
    assert "count (data/a.txt)" not in done.err
    assert "count (data/b.txt)" not in ran(done)
    project.write({"data/a.txt": "1"})
    assert "count (data/a.txt)" not in ran(project.runnable("retry", "r"))


FAILING = """
[steps.work]
strategy = { matrix = { n = [1, 2, 3, 4] }, max-parallel = 1, fail-fast = FAST }
run = 'echo "done=$n" >> "$RUNNABLE_OUTPUT"; [ "$n" != 2 ] || [ -e fixed ]'
returns = ["done"]
[steps.collect]
run = 'echo "$done"'
"""


def test_a_failed_instance_runs_alone_again(tmp_path: Path) -> None:
    """The others went on, and are reused; what collects waits for all."""
    project = project_of(tmp_path, FAILING.replace("FAST", "false"))
    done = project.runnable("run", "--run-id", "r", code=1)
    assert ran(done) == ["work (1)", "work (2)", "work (3)", "work (4)"]
    assert "run r: FAIL, failed: work (2)\n" in done.err
    log = project.log("r")
    assert (log.steps["work"].status, log.steps["work"].message) == (FAIL, "failed: work (2)")
    assert log.failed_steps() == ["work.2.work"]
    project.write({"fixed": ""})
    planned = project.runnable("retry", "r", "-n").out
    assert [line.split("  ")[0] for line in planned.splitlines() if " run " in line] == ["work (2)", "collect"]
    done = project.runnable("retry", "r")
    assert (ran(done), done.out) == (["collect", "work (2)"], "collect | [1, 2, 3, 4]\n")


def test_fail_fast_begins_no_other_instance(tmp_path: Path) -> None:
    """It is the default, as GitHub's: what has not begun is skipped by name, and runs in the retry."""
    project = project_of(tmp_path, FAILING.replace(", fail-fast = FAST", ""))
    done = project.runnable("run", "--run-id", "r", code=1)
    assert ran(done) == ["work (1)", "work (2)"]
    assert "work (3) | skip: `work (2)` failed, and `fail-fast` begins no other instance\n" in done.err
    project.write({"fixed": ""})
    assert ran(project.runnable("retry", "r")) == ["collect", "work (2)", "work (3)", "work (4)"]


def test_a_chain_follows_instance_by_instance(tmp_path: Path) -> None:
    """Steps that share a matrix: each instance sees the value of its own, and does not wait for the others."""
    pipeline = """
[steps.a]
strategy = { matrix = { n = [1, 2] }, fail-fast = false }
run = 'echo "x=$((n * 10))" >> "$RUNNABLE_OUTPUT"; [ "$n" = 1 ] || [ -e second ]'
returns = ["x"]
[steps.b]
strategy = { matrix = { n = [1, 2] }, fail-fast = false }
run = 'echo "y=$((x + n))" >> "$RUNNABLE_OUTPUT"; touch second'
returns = ["y"]
[steps.c]
run = 'echo "$x $y"'
"""
    project = project_of(tmp_path, pipeline)
    done = project.runnable("run", "--run-id", "r", "--jobs", "1", code=1)
    assert ran(done) == ["a (1)", "a (2)", "b (1)"]
    assert "b (2) | skip: `a (2)` failed\n" in done.err
    done = project.runnable("retry", "r")
    assert (ran(done), done.out) == (["a (2)", "b (2)", "c"], "c | [10, 20] [11, 22]\n")


CHAIN = """
[parameters]
sizes = [3, 4]
[steps.before]
run = "exit 0"
[steps.first]
if = "CONDITION"
run = "true"
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
[steps.second]
run = "echo $size"
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
[steps.third]
run = "true"
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
"""


def test_a_chain_whose_first_step_is_left_out(tmp_path: Path) -> None:
    """What merely follows it runs, for each value: no step is passed over in silence."""
    project = project_of(tmp_path, CHAIN.replace("CONDITION", "1 > 2"))
    project.runnable("run", "--dry-run")
    assert ran(project.runnable("run")) == ["before", "second (3)", "second (4)", "third (3)", "third (4)"]
    assert "second (3) | reuse" in " ".join(project.runnable("retry", "latest").err.split())


def test_a_chain_whose_first_step_was_skipped(tmp_path: Path) -> None:
    """Nothing of it runs, as what came before has failed."""
    project = project_of(tmp_path, CHAIN.replace('if = "CONDITION"\n', "").replace("exit 0", "exit 3"))
    done = project.runnable("run", code=1)
    assert ran(done) == ["before"]
    assert [line.split(" | ")[1] for line in done.err.splitlines() if line.startswith(("second", "third"))] == [
        "skip: `before` failed",
        "skip: `before` failed",
    ]


def test_at_most_so_many_at_a_time(tmp_path: Path) -> None:
    """No more instances than `max-parallel` says are there at the same moment, and all run."""
    pipeline = """
[steps.a]
strategy = { matrix = { n = [1, 2, 3, 4, 5, 6] }, max-parallel = 2 }
run = 'mkdir -p here; touch here/$n; ls here | wc -l >> counts; sleep 0.1; rm here/$n'
"""
    project = project_of(tmp_path, pipeline)
    project.runnable("run", "--jobs", "6")
    counts = [int(line) for line in project.read("counts").split()]
    assert len(counts) == 6
    assert max(counts) == 2


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ("strategy = { matrix = { n = 3 } }", "[steps.a.strategy] the axis `n` is a number, not a list", "n = ["),
        ("strategy = { matrix = {} }", "[steps.a.strategy] `matrix` has no axis", "sample = ["),
        (
            "strategy = { matrix = { n = [1, 2], exclude = [{ m = 1 }] } }",
            "[steps.a.strategy] `exclude` has the unknown axis `m`",
            "the axes are: n",
        ),
        (
            'strategy = { matrix = { n = [1, 2] } }\ncatalog = { put = ["out/model.bin"] }',
            "[steps.a.catalog] put: `out/model.bin` is the same for each `n`: the instances would replace each other's "
            "files",
            "out/${{ matrix.n }}-model.bin",
        ),
        ("strategy = { matrix = { PATH = [1] } }", "the parameter name `PATH` is reserved", "rename"),
        ('name = "x"', "[steps.a] `name` needs `strategy`", "instances of a matrix"),
        ('strategy = { matrix = { n = [1] } }\nreduce = "m:f"', "[steps.a] `reduce` has nothing to reduce", "returns"),
        ("strategy = { matrix = { n = [1] }, max-parallel = 0 }", "max-parallel", ""),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, table: str, message: str, hint: str) -> None:
    """With the table, the key and the way out."""
    project = project_of(tmp_path, f'[steps.a]\nrun = "touch ran"\n{table}\n')
    done = project.runnable("run", code=2)
    assert message in done.err
    assert hint in done.err or "PATH" in table
    assert not (project.folder / "ran").exists()


def test_a_value_that_is_no_list_fails_the_step(tmp_path: Path) -> None:
    """Where only an earlier step shows it: the run ends with the reason, and can be resumed."""
    project = project_of(tmp_path, DYNAMIC, chunks__py=CHUNKS, chunks__json="chunks=7\n")
    done = project.runnable("run", "--run-id", "r", code=1)
    message = "the axis `chunk` is a number, not a list"
    assert message in done.err
    assert message in project.log("r").steps["process"].message
    project.write({"chunks.json": "chunks=[7]\n"})
    assert ran(project.runnable("retry", "r")) == ["collect", "generate", "process (7)"]


def test_objects_and_a_reducer(tmp_path: Path) -> None:
    """Objects come as a list; a function of the user's makes one value of the lists, and is a step itself."""
    pipeline = """
[steps.fit]
strategy = { matrix = { depth = [1, 2, 3] } }
python = "m:fit"
returns = { model = "object", score = "metric" }
[steps.best]
python = "m:best"
returns = { best = "metric" }
[steps.square]
strategy = { matrix = { n = [1, 2, 3] } }
python = "m:square"
returns = ["total"]
reduce = "m:add"
"""
    code = """
class Model:
    def __init__(self, depth): self.depth = depth
def fit(depth): return Model(depth), depth / 10
def best(model, score): return max(m.depth for m in model) + sum(score)
def square(n): return n * n
def add(total): return sum(total)
"""
    project = project_of(tmp_path, pipeline, m__py=code)
    project.runnable("run", "--run-id", "r")
    log = project.log("r")
    assert log.metrics() == {"best": pytest.approx(3.6), "score": [0.1, 0.2, 0.3]}
    assert values(log)["total"] == 14
    assert [attempt.status for attempt in log.steps["square"].attempts] == [SUCCESS]
    assert project.runnable("retry", "r").err.startswith("run r: nothing to do")
    project.write({"m.py": code.replace("return sum(total)", "return sum(total) + 1")})
    assert ran(project.runnable("retry", "r")) == ["square"]
    assert values(project.log("r"))["total"] == 15


def test_steps_of_another_file_for_each_value(tmp_path: Path) -> None:
    """They are part of the run: nested in its log, resumed where they failed, alone, and given together as lists."""
    branch = """
[parameters]
scale = 10
[steps.first]
run = 'echo "x=$((n * scale))" >> "$RUNNABLE_OUTPUT"'
returns = ["x"]
[steps.second]
run = 'echo "y=$((x + 1))" >> "$RUNNABLE_OUTPUT"; [ "$n" != 2 ] || [ -e fixed ]'
returns = ["y"]
"""
    pipeline = """
[steps.each]
uses = "./branch.toml"
strategy = { matrix = { n = [1, 2] }, fail-fast = false }
[steps.alone]
needs = []
uses = "branch.toml"
returns = []
[steps.last]
needs = ["each"]
run = 'echo "$x $y"'
[parameters]
n = 5
"""
    project = project_of(tmp_path, pipeline.replace("returns = []\n", ""), branch__toml=branch)
    done = project.runnable("run", "--run-id", "r", code=2)
    assert "is also returned by step" in done.err
    project.write(
        {"runnable.toml": pipeline.replace('[steps.alone]\nneeds = []\nuses = "branch.toml"\nreturns = []\n', "")}
    )
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"fixed": ""})
    done = project.runnable("retry", "r")
    assert (ran(done), done.out) == (["each (2) / second", "last"], "last | [10, 20] [11, 21]\n")
    assert "each.2.second" in project.log("r").steps


def test_instances_are_named_as_they_are_shown(tmp_path: Path) -> None:
    """By their label: in `show`, `logs` and `retry --from`."""
    project = project_of(tmp_path, FAILING.replace("FAST", "false"), fixed="")
    project.runnable("run", "--run-id", "r")
    shown = project.runnable("show", "r").out
    assert "work (3)  SUCCESS  1" in shown
    assert project.runnable("logs", "r", "collect").out == "[1, 2, 3, 4]\n"
    assert project.runnable("show", "r", "work (3)").out.startswith("work (3).1  SUCCESS")
    assert ran(project.runnable("retry", "r", "--from", "work (3)")) == ["collect", "work (3)"]
    done = project.runnable("retry", "r", "--from", "work (9)", code=2)
    assert "has no such step" in done.err


def test_instances_of_one_label_are_told_apart(tmp_path: Path) -> None:
    """Each can be named, and files that they would both put are found, though `name` is the same for all."""
    steps = """
[steps.m]
strategy = { matrix = { s = [1, "1"] } }
name = "same"
run = "mkdir -p out"
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r")
    shown = project.runnable("show", "r").out
    assert "m (same, s=1)    SUCCESS" in shown
    assert 'm (same, s="1")  SUCCESS' in shown
    assert ran(project.runnable("retry", "r", "--from", 'm (same, s="1")')) == ['m (same, s="1")']
    project.write({"runnable.toml": f'{steps}catalog.put = ["out/${{{{ matrix.s }}}}"]\n'})
    done = project.runnable("run", code=2)
    assert 'the instances same, s=1 and same, s="1" both put `out/1`' in done.err


def test_values_of_an_instance_in_each_text(tmp_path: Path) -> None:
    """In `env`, `working-directory`, `reads` and `with`; what comes after all instances has none of them."""
    project = project_of(
        tmp_path,
        """
[steps.show]
strategy = { matrix = { n = [1, 2] } }
working-directory = "w${{ matrix.n }}"
env = { NAME = "n${{ matrix.n }}", PYTHONPATH = ".." }
reads = ["w${{ matrix.n }}/**"]
with = { twice = "${{ matrix.n }}${{ matrix.n }}" }
python = "m:show"
returns = ["shown"]
reduce = "m:joined"
[steps.last]
run = 'test "$shown" = "w1 n1 11, w2 n2 22"'
""",
        m__py="import os\ndef show(twice):\n"
        "    return ' '.join([os.path.basename(os.getcwd()), os.environ['NAME'], twice])\n"
        "def joined(shown):\n    return ', '.join(shown)\n",
        **{"w1/a": "", "w2/a": ""},
    )
    project.runnable("run")


def test_killed_and_continued_elsewhere(tmp_path: Path) -> None:
    """A killed run is resumed from a registry, in another clone: the instances that had ended are not run again."""
    pipeline = """
[steps.work]
strategy = { matrix = { n = [1, 2, 3] }, max-parallel = 1 }
run = 'mkdir -p out; echo "$n" > out/$n; if [ "$n" = 3 ] && [ ! -e quick ]; then touch waiting; sleep 60; fi'
catalog = { put = ["out/${{ matrix.n }}"] }
[steps.sum]
run = "cat out/*"
catalog = { get = ["out/*"] }
"""
    project = project_of(tmp_path, pipeline)
    process = project.start("run", "--run-id", "r")
    wait_until((project.folder / "waiting").exists, "the third instance runs")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert project.runnable("show", "r").out.count("interrupted: the process that ran it was killed") >= 1
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.write({"quick": ""})
        done = other.runnable("retry", f"{repository}:r")
    assert (ran(done), done.out) == (["sum", "work (3)"], "sum  | 1\nsum  | 2\nsum  | 3\n")
    assert [step.status for step in other.log("r").steps.values()] == [SUCCESS] * 5


def test_what_a_value_made_that_is_gone_is_not_found(tmp_path: Path) -> None:
    """By what collects the files; and it is there again with the value."""
    pipeline = """
[steps.make]
strategy = { matrix = { n = VALUES } }
run = 'mkdir -p out; echo "$n" > out/$n.txt'
catalog = { put = ["out/${{ matrix.n }}.txt"] }
[steps.sum]
run = "cat out/*.txt"
"""
    project = project_of(tmp_path, pipeline.replace("VALUES", "[1, 2]"))
    assert project.runnable("run", "--run-id", "r").out == "sum  | 1\nsum  | 2\n"
    project.write({"runnable.toml": pipeline.replace("VALUES", "[2, 3]")})
    assert project.runnable("retry", "r").out == "sum  | 2\nsum  | 3\n"
    assert project.runnable("run", "--run-id", "other").out == "sum  | 2\nsum  | 3\n"
    project.write({"runnable.toml": pipeline.replace("VALUES", "[1, 2]")})
    done = project.runnable("retry", "r")
    assert (ran(done), done.out) == (["sum"], "sum  | 1\nsum  | 2\n")


def test_a_collector_of_files_runs_again_for_a_value_that_is_gone(tmp_path: Path) -> None:
    """Also where it says what it gets, and none of its instances runs; a new run finds none of them either."""
    pipeline = """
[steps.make]
strategy = { matrix = { n = VALUES } }
run = 'mkdir -p out; echo "$n" > out/$n.txt'
catalog = { put = ["out/${{ matrix.n }}.txt"] }
[steps.all]
run = "cat out/*.txt | tee all.txt"
catalog = { get = ["out/*.txt"], put = ["all.txt"] }
"""
    project = project_of(tmp_path, pipeline.replace("VALUES", '["a", "b"]'))
    project.runnable("run", "--run-id", "r")
    project.write({"runnable.toml": pipeline.replace("VALUES", '["a"]')})
    done = project.runnable("retry", "r")
    assert (ran(done), done.out) == (["all"], "all  | a\n")
    assert [one.label for one in project.log("r").steps["make"].instances] == ["a"]
    assert project.runnable("run").out == "all  | a\n"


def test_one_more_value_in_the_list_of_a_step(tmp_path: Path) -> None:
    """The step runs again, and the instances of the values that are the same are not: the list is what it passes."""
    pipeline = """
[steps.list]
run = 'cat names >> "$RUNNABLE_OUTPUT"'
returns = { names = "json" }
[steps.count]
strategy = { matrix = { n = "${{ parameters.names }}" } }
run = 'echo "c=${#n}" >> "$RUNNABLE_OUTPUT"'
returns = ["c"]
"""
    project = project_of(tmp_path, pipeline, names='names=["a", "bb"]\n')
    project.runnable("run", "--run-id", "r")
    project.write({"names": 'names=["bb", "ccc", "a"]\n'})
    assert ran(project.runnable("retry", "r")) == ["count (ccc)", "list"]
    assert values(project.log("r"))["c"] == [2, 3, 1]
    assert ran(project.runnable("retry", "r", "--from", "list")) == ["count (a)", "count (bb)", "count (ccc)", "list"]


def test_a_loop_that_does_not_come_to_its_end(tmp_path: Path) -> None:
    """It says so, here and in `show`, and a retry does not take it for done; each run begins without its files."""
    pipeline = """
[parameters]
n = 0
[steps.grow]
loop = { until = "parameters.n >= 3", max = MAX }
run = 'echo "$(cat rows 2>/dev/null | wc -l)"; echo row >> rows; echo "n=$((n + 1))" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
catalog = { put = ["rows"] }
"""
    project = project_of(tmp_path, pipeline.replace("MAX", "5"))
    for number in range(2):
        lines = project.runnable("run", "--run-id", f"r{number}").out.splitlines()
        assert [line.split()[-1] for line in lines] == [*"012"]
    problem = "`parameters.n >= 3` was not true after 2 rounds"
    project.write({"runnable.toml": pipeline.replace("MAX", "2")})
    assert f"grow | ✗ {problem}\n" in project.runnable("retry", "r1", code=1).err
    assert f"\ngrow: {problem}\n" in project.runnable("show", "r1").out
    project.write({"runnable.toml": pipeline.replace("MAX", "5")})
    project.runnable("retry", "r1")
    assert project.log("r1").status == SUCCESS


def test_objects_of_reused_instances_come_along(tmp_path: Path) -> None:
    """In another clone with one more value: what collects gets the objects of all instances."""
    pipeline = """
[steps.fit]
strategy = { matrix = { d = VALUES } }
python = "lib:fit"
returns = { model = "object" }
[steps.join]
python = "lib:join"
returns = ["depths"]
"""
    code = "def fit(d): return {'d': d}\ndef join(model): return [m['d'] for m in model]\n"
    project = project_of(tmp_path, pipeline.replace("VALUES", "[1, 2]"), lib__py=code)
    project.runnable("run", "--run-id", "r")
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.write({"runnable.toml": pipeline.replace("VALUES", "[1, 2, 3]")})
        assert ran(other.runnable("retry", f"{repository}:r")) == ["fit (3)", "join"]
    assert values(other.log("r"))["depths"] == [1, 2, 3]


LONG = "fit_each_of_the_models_that_there_are"


def test_people_see_labels_never_internal_names(tmp_path: Path) -> None:
    """In the list of files, in notes, and before the lines of a step, where a long name keeps what distinguishes it."""
    steps = f"""
[steps.{LONG}]
strategy = {{ matrix = {{ s = [1, 2] }} }}
run = 'mkdir -p out; echo $s > out/$s.txt; echo "n=$s" >> $RUNNABLE_OUTPUT'
catalog.put = ["out/${{{{ matrix.s }}}}.txt"]
returns = ["n"]
"""
    project = project_of(tmp_path, steps)
    first = project.runnable("run", "--run-id", "r")
    assert ran(first) == ["fit_each_of…here_are (1)", "fit_each_of…here_are (2)"]
    files = project.runnable("catalog", "r").out
    again = project.runnable("run", "--run-id", "s", "--param", "n=3").err
    assert f"parameter n is overwritten by the return value of step `{LONG}`\n" in again
    assert f"set aside 2 files that `{LONG} (1)`, `{LONG} (2)` made earlier" in again
    for number in (1, 2):
        assert f"  {LONG} ({number})  " in files
    assert f"{LONG}." not in files + again + first.err
    got = project.runnable("catalog", "r", "--get", "out/2.txt", "--step", f"{LONG} (2)", "--to", "two").out
    assert got == "two\n"
    none = project.runnable("catalog", "r", "--get", "out/2.txt", "--step", f"{LONG} (3)", code=2).err
    assert f"did you mean `{LONG} (" in none


@pytest.mark.parametrize("names", [["x" * 30 + "a" + "y" * 30, "x" * 30 + "b" + "y" * 30], ["b" * 24, "b" * 25]])
def test_lines_of_two_steps_are_never_marked_alike(tmp_path: Path, names: list[str]) -> None:
    """However long their names are, and wherever they differ."""
    project = project_of(tmp_path, "".join(f"[steps.{name}]\nrun = 'true'\n" for name in names))
    assert len(set(ran(project.runnable("run")))) == 2


def test_an_instance_is_not_run_alone(tmp_path: Path) -> None:
    """It is said what runs the whole step, and what re-runs the one; a file of such a name is still a pipeline."""
    matrix = "[steps.fit]\nstrategy = { matrix = { s = [1, 2] } }\nrun = 'true'\n"
    project = project_of(tmp_path, matrix + "[steps.plain]\nrun = 'true'\n")
    for words in (["fit (2)"], ["--until", "fit (2)"]):
        said = project.runnable("run", *words, code=2).err
        assert "`fit (2)` is a part of the step `fit`, which runs as a whole" in said
        assert "`runnable-ci retry RUN --from 'fit (2)'`" in said
    assert "has no step `fti (2)`" in project.runnable("run", "fti (2)", code=2).err
    assert "has no step `plain (2)`" in project.runnable("run", "plain (2)", code=2).err
    project.write({"fit (2)": project.read("runnable.toml")})
    assert ran(project.runnable("run", "fit (2)")) == ["fit (1)", "fit (2)", "plain"]


@pytest.mark.promise
def test_no_instance_is_named_by_a_secret(tmp_path: Path) -> None:
    """A value that is known to be one is refused by the name of its axis, also where only the log has it, masked."""
    pipeline = """
secrets = ["ACCESS"]
[steps.list]
run = 'echo "logins=[\\"$ACCESS\\", \\"plain\\"]" >> "$RUNNABLE_OUTPUT"'
returns = { logins = "json" }
[steps.use]
strategy = { matrix = { login = "${{ parameters.logins }}" } }
run = "true"
"""
    project = project_of(tmp_path, pipeline)
    done = project.runnable("run", "--run-id", "r", code=1, ACCESS="hunter2hunter2")
    message = "a value of the axis `login` is a secret, and instances are named by their values"
    assert message in done.err
    assert "`logins` is, or has, a secret" in project.runnable("retry", "r", code=2, ACCESS="hunter2hunter2").err
    project.write({"runnable.toml": '[steps.use]\nstrategy = { matrix = { api_token = ["x"] } }\nrun = "true"\n'})
    assert "the axis `api_token` is a secret" in project.runnable("run", "-n", code=2).err
    files = [path for path in project.store.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes() or "hunter2" in path.name]
