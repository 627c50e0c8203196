"""Tests of conditions, bound arguments and texts with expressions, on real runs: what runs, and why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

TOSS = """
[parameters]
toss = "heads"

[steps.load]
run = "echo n=3 >> $RUNNABLE_OUTPUT; echo data > data.csv"
returns = ["n"]
catalog.put = ["data.csv"]

[steps.heads]
if = "parameters.toss == 'HEADS'"
run = "echo h=1 >> $RUNNABLE_OUTPUT; echo x > heads.txt"
returns = ["h"]
catalog.put = ["heads.txt"]

[steps.tails]
if = "${{ parameters.toss == 'tails' }}"
needs = ["load"]
run = "echo t=2 >> $RUNNABLE_OUTPUT"
returns = ["t"]

[steps.value]
needs = ["tails"]
parameters = ["t"]
run = "echo $t"

[steps.file]
needs = ["heads"]
catalog.get = ["heads.*"]
run = "cat heads.txt"

[steps.either]
needs = ["heads", "tails"]
with = { side = "${{ parameters.h || parameters.t }}" }
run = "echo side is $side"

[steps.merely]
needs = ["value", "file"]
run = "echo merely"
"""


def project_of(folder: Path, steps: str, **files: str) -> Workspace:
    """Return a workspace with a pipeline of these steps, in a repository."""
    return workspace(folder, {"runnable.toml": steps, ".gitignore": ".runnable\n", **files})


def recorded(project: Workspace, run: str = "r") -> dict[str, Any]:
    """The log of a run."""
    return project.log(run).model_dump()


def decisions(project: Workspace, run: str = "r") -> dict[str, tuple[str, str]]:
    """What the last invocation of a run did with each step, and why."""
    found = recorded(project, run)["invocations"][-1]["decisions"]
    return {step: (one["action"], one["reason"]) for step, one in found.items()}


def actions(project: Workspace, run: str = "r") -> dict[str, str]:
    """What the last invocation of a run did with each step."""
    return {step: action for step, (action, _) in decisions(project, run).items()}


def test_a_branch_is_taken_and_the_other_is_skipped(tmp_path: Path) -> None:
    """What merely follows a skipped step runs; what takes a value or file that only it makes is skipped, with why."""
    project = project_of(tmp_path, TOSS)
    planned = project.runnable("run", "-n").out
    done = project.runnable("run", "--run-id", "r")
    assert decisions(project) | {"load": ""} == {
        "load": "",
        "heads": ("run", "first attempt"),
        "tails": ("skip", "the condition parameters.toss == 'tails' is false"),
        "value": ("skip", "`tails`, which returns `t`, was skipped"),
        "file": ("run", "first attempt"),
        "either": ("run", "first attempt"),
        "merely": ("run", "first attempt"),
    }
    assert "side is 1" in done.out
    assert {line.split()[0]: line.split()[1] for line in planned.splitlines()} == actions(project)
    assert recorded(project)["status"] == "SUCCESS"


def test_a_condition_is_evaluated_anew_on_a_retry(tmp_path: Path) -> None:
    """A changed parameter takes the other branch in the same run, and only what that changes runs."""
    project = project_of(tmp_path, TOSS)
    project.runnable("run", "--run-id", "r")
    assert "nothing to do" in project.runnable("retry", "r").err
    project.runnable("retry", "r", "--param", "toss=tails")
    assert actions(project) == {
        "load": "reuse",
        "heads": "skip",
        "tails": "run",
        "value": "run",
        "file": "skip",
        "either": "run",
        "merely": "run",
    }
    assert decisions(project)["file"][1] == "`heads`, which puts `heads.*`, was skipped"
    assert recorded(project)["steps"]["either"]["attempts"][-1]["input_parameters"]["side"]["value"] == 2


FAILING = """
[steps.build]
run = "exit ${CODE-0}"

[steps.report]
run = "echo all is well"

[steps.alarm]
needs = ["report"]
if = "failure()"
with = { built = "${{ steps.build.outcome }}", reported = "${{ needs.report.result }}" }
run = "echo built $built reported $reported"

[steps.clean]
needs = ["alarm"]
if = "always()"
run = "echo cleaned"

[steps.after]
needs = ["clean"]
run = "echo after"
"""


def test_a_failure_is_followed_by_what_waits_for_it(tmp_path: Path) -> None:
    """`failure()` and `always()` look at all steps before; the run has failed nevertheless, and what waits for success
    does not run though the step right before it succeeded.
    """
    project = project_of(tmp_path, FAILING.replace("exit ${CODE-0}", "exit 4"))
    done = project.runnable("run", "--run-id", "r", code=1)
    assert "built failure reported skipped" in done.out
    assert decisions(project)["report"] == ("skip", "`build` failed")
    assert decisions(project)["after"] == ("skip", "`build` failed")
    assert actions(project) == {"build": "run", "report": "skip", "alarm": "run", "clean": "run", "after": "skip"}
    assert recorded(project)["message"] == "failed: build"
    project.write({"runnable.toml": FAILING})
    planned = project.runnable("retry", "r", "-n").out
    assert "alarm   skip   the condition failure() is false" in planned
    assert "clean   run    `report` runs first, reused if that changes nothing" in planned
    done = project.runnable("retry", "r")
    assert actions(project) == {"build": "run", "report": "run", "alarm": "skip", "clean": "run", "after": "run"}
    assert recorded(project)["status"] == "SUCCESS"


def test_a_failure_that_is_allowed_is_seen_as_one_and_counts_as_success(tmp_path: Path) -> None:
    """`outcome` is before `continue-on-error`, `conclusion` and `needs.x.result` after it."""
    project = project_of(
        tmp_path,
        "[steps.lint]\nrun = 'exit 1'\ncontinue-on-error = true\n"
        "[steps.next]\nif = \"success() && steps.lint.outcome == 'failure'\"\n"
        "with = { seen = \"${{ format('{0} {1}', steps.lint.conclusion, needs.lint.result) }}\" }\n"
        "run = 'echo $seen'\n[steps.never]\nif = 'failure()'\nrun = 'exit 1'\n",
    )
    done = project.runnable("run")
    assert "success success" in done.out


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("true", True),
        ("${{ false }}", False),
        ("steps.a.outputs.n > 2", True),
        ("needs.a.outputs.n == '3'", True),
        ("contains(fromJSON('[\"x\", 3]'), steps.a.outputs.n)", True),
        ("contains(needs.*.result, 'failure')", False),
        ("!cancelled()", True),
        ("env.MODE == 'FAST' && startsWith(parameters.name, 'AB')", True),
        ("parameters.score > 0.5", True),
        ("parameters.nested.depth == 2", True),
        ("parameters.list[1] == 'b'", True),
    ],
)
def test_what_a_condition_sees(tmp_path: Path, condition: str, runs: bool) -> None:
    """Parameters and returns with their types, the steps before, and the variables that the file sets."""
    steps = (
        'env = { MODE = "fast" }\n[parameters]\nname = "abc"\nlist = ["a", "b"]\nnested = { depth = 2 }\n'
        "[steps.a]\nrun = 'echo n=3 >> $RUNNABLE_OUTPUT; echo score=0.75 >> $RUNNABLE_OUTPUT'\n"
        "returns = { n = 'json', score = 'metric' }\n"
        f"[steps.b]\nif = {json.dumps(condition)}\nrun = 'true'\n"
    )
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r")
    assert actions(project)["b"] == ("run" if runs else "skip")


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ('if = "parameters.toss = 1"', "if: an operator is missing at `= 1`", "`==` compares"),
        ('if = ""', "if: it is empty", "such as"),
        ('if = "parameters.tos == 1"', "if: there is no parameter `tos`", "did you mean `toss`?"),
        ('if = "parameters.later == 1"', "returned by step `last`, which is not before it", "list `last` in `needs`"),
        ('if = "steps.lod.outcome == 1"', "if: there is no step `lod`", "did you mean `load`?"),
        ('if = "steps.last.outcome == 1"', "step `last`, which is not before it", "list `last` in `needs`"),
        ('if = "steps.load.result == 1"', "a step has no `result`", "outcome, conclusion, outputs"),
        ('if = "steps.load.outputs.m == 1"', "step `load` does not return `m`", "it returns: n, model"),
        ('if = "needs.last.result == 1"', "the step does not need `last`", "it needs: load"),
        ('if = "env.HOME == 1"', "`env` has no `HOME`", ""),
        ('if = "sucess()"', "there is no function `sucess`", "did you mean `success`?"),
        ('if = "github.ref == 1"', "there is no context `github`", "GITHUB_SHA"),
        ('if = "${{ a }} == 1"', "beside an expression there is text, which is always true", "all of it in one"),
        ('if = "parameters.model == 1"', "`model` is an object, which has no text", "with = {"),
        ('env = { A = "${{ parameters.toss" }', "`${{` is not closed", "}}"),
        ('env = { A = "${{ secrets.KEY }}" }', "there is no context `secrets`", "list its name in `secrets`"),
        ('env = { A = "${{ success() }}" }', "there is no function `success`", ""),
        ('env = { A = "1", B = "${{ env.B }}" }', "`B` has an expression itself", ""),
        ('catalog = { put = ["${{ parameters.tos }}.csv"] }', "put: there is no parameter `tos`", "`toss`"),
        ('with = { "a b" = 1 }', '"a b" is not a valid parameter name', ""),
        ('with = { PATH = "x" }', "the parameter name `PATH` is reserved", ""),
        ('with = { A = "x" }\nenv = { A = "y" }', "`A` is also set by `env`", "rename one"),
        ('with = { a = ["${{ parameters.model }}"] }', "`model` is an object", ""),
        ("attempts = { max = 0 }", "[steps.b.attempts] max: must be at least 1, not 0", "write max = 3"),
        ('attempts = { on = ["timeot"] }', "on: a try does not end by", "did you mean `timeout`?"),
        ("attempts = true", "attempts", ""),
    ],
)
def test_what_is_wrong_is_one_error_before_anything_runs(tmp_path: Path, keys: str, message: str, hint: str) -> None:
    """A condition, an expression or a key that cannot be right is found by `check` and by `run`, with what would be."""
    steps = (
        "[parameters]\ntoss = 'heads'\n"
        "[steps.load]\npython = 'f:f'\nreturns = { n = 'json', model = 'object' }\n"
        f"[steps.b]\nrun = 'touch ran'\nneeds = ['load']\n{keys}\n"
        "[steps.last]\nneeds = ['b']\nrun = 'true'\nreturns = ['later']\n"
    )
    project = project_of(tmp_path, steps, **{"f.py": "def f():\n    return 1, 2\n"})
    for command in ("check", "run"):
        done = project.runnable(command, code=2)
        assert message in done.err
        assert hint in done.err
        assert "runnable.toml:" in done.err
        assert done.err.count("error:") == 1
    assert not (project.folder / "ran").exists()


FUNCTIONS = """
def split(data, share):
    return data[: int(len(data) * share)], data[int(len(data) * share) :]

def fit(rows, depth=1):
    return {"rows": rows, "depth": depth}

class Model:
    def __init__(self, rows):
        self.rows = rows

def make(rows):
    return Model(rows)

def count(model, name):
    return f"{name}: {len(model.rows)}"
"""
KEDRO = """
[parameters]
companies = [1, 2, 3, 4]
model_options = { share = 0.75, depth = 3 }

[steps.split]
python = "nodes:split"
with = { data = "${{ parameters.companies }}", share = "${{ parameters.model_options.share }}" }
returns = ["train", "test"]

[steps.fit-train]
python = "nodes:fit"
with = { rows = "${{ parameters.train }}", depth = "${{ parameters.model_options.depth }}" }
returns = ["first"]

[steps.fit-test]
needs = ["split"]
python = "nodes:fit"
with = { rows = "${{ steps.split.outputs.test }}" }
returns = ["second"]

[steps.make]
needs = ["split"]
python = "nodes:make"
with.rows = "${{ parameters.train }}"
returns = { made = "object" }

[steps.count]
python = "nodes:count"
with = { model = "${{ parameters.made }}", name = "rows of ${{ parameters.companies[0] }}" }
returns = ["text"]
"""


def values(project: Workspace, run: str = "r") -> dict[str, Any]:
    """The values that the steps of a run returned."""
    return {name: one["value"] for name, one in recorded(project, run)["parameters"].items()}


def test_one_function_in_several_steps(tmp_path: Path) -> None:
    """`with` binds arguments to values of any type, also an object and a part of a table."""
    project = project_of(tmp_path, KEDRO, **{"nodes.py": FUNCTIONS})
    project.runnable("run", "--run-id", "r")
    found = values(project)
    assert found["first"] == {"rows": [1, 2, 3], "depth": 3}
    assert found["second"] == {"rows": [4], "depth": 1}
    assert found["text"] == "rows of 1: 3"
    taken = recorded(project)["steps"]["count"]["attempts"][0]
    assert taken["consumed"].keys() == {"model", "name"}
    assert taken["input_parameters"]["model"]["kind"] == "object"


def test_a_bound_value_that_changes_reruns_what_takes_it(tmp_path: Path) -> None:
    """Only the steps whose arguments have other values run again, whatever the parameters are called."""
    project = project_of(tmp_path, KEDRO, **{"nodes.py": FUNCTIONS})
    project.runnable("run", "--run-id", "r")
    project.runnable("retry", "r", "--param", "model_options.depth=4")
    assert actions(project) == {
        "split": "reuse",
        "fit-train": "run",
        "fit-test": "reuse",
        "make": "reuse",
        "count": "reuse",
    }
    assert decisions(project)["fit-train"][1] == "parameter depth changed: 3 → 4"
    renamed = KEDRO.replace("companies", "firms")
    project.write({"runnable.toml": renamed})
    assert "unchanged" in project.runnable("retry", "r", "-n", "--param", "firms=[1, 2, 3, 4]").out


def test_an_argument_that_nothing_gives(tmp_path: Path) -> None:
    """An argument that `with` binds is not looked for among the parameters; one that it does not is."""
    steps = '[steps.a]\npython = "nodes:fit"\nwith = { depth = 2 }\n'
    project = project_of(tmp_path, steps, **{"nodes.py": FUNCTIONS})
    assert "`nodes:fit` needs `rows`" in project.runnable("run", code=2).err
    project.write({"runnable.toml": steps.replace("depth = 2", "rows = [2]")})
    project.runnable("run")


def test_values_in_texts(tmp_path: Path) -> None:
    """Variables, paths and the working directory have values in them; a value in a glob means itself."""
    steps = (
        '[parameters]\nname = "a [1]*"\nfolder = "sub/deep"\n'
        '[steps.make]\nrun = \'echo m=7 >> $RUNNABLE_OUTPUT; mkdir -p out; echo 1 > "out/$name.txt"; '
        "touch out/a1x.txt'\n"
        'returns = ["m"]\ncatalog.put = ["out/${{ parameters.name }}.txt", "out/a1*.txt"]\n'
        '[steps.use]\nrun = \'echo $PLACE $(pwd); cat > result.json <<< "{\\"v\\": $M}"\'\n'
        'env = { PLACE = "in ${{ parameters.folder }}", M = "${{ steps.make.outputs.m }}" }\n'
        'working-directory = "${{ parameters.folder }}"\ncatalog.get = ["out/${{ parameters.name }}.txt"]\n'
        'metrics = ["${{ parameters.folder }}/result.json"]\n'
    )
    project = project_of(tmp_path, steps, **{"sub/deep/keep": ""})
    done = project.runnable("run", "--run-id", "r")
    assert f"in sub/deep {project.folder}/sub/deep" in done.out
    log = recorded(project)["steps"]["use"]
    assert [entry["name"] for entry in log["data_catalog"]] == ["out/a [1]*.txt", "sub/deep/result.json"]
    assert log["attempts"][0]["file_metrics"] == {"result": {"v": 7}}
    assert log["attempts"][0]["definition"]["env"] == {"PLACE": "in sub/deep", "M": "7"}
    assert "nothing to do" in project.runnable("retry", "r").err


MATRIX = """
[parameters]
samples = ["a", "b", "c"]
without = "b"

[steps.prep]
run = "echo n=5 >> $RUNNABLE_OUTPUT"
returns = ["n"]

[steps.quant]
strategy = { matrix = { sample = "${{ parameters.samples }}" } }
if = "matrix.sample != parameters.without"
with = { s = "${{ matrix.sample }}-${{ steps.prep.outputs.n }}" }
env = { SAMPLE = "${{ matrix.sample }}" }
run = "mkdir -p out; echo $s $SAMPLE > out/$sample.txt; echo text=$s >> $RUNNABLE_OUTPUT"
returns = ["text"]
catalog.put = ["out/${{ matrix.sample }}.txt"]

[steps.collect]
run = "cat out/*.txt; echo $how"
with.how = "${{ steps.quant.outcome }} ${{ join(steps.quant.outputs.text, '+') }}"
catalog.get = ["out/*.txt"]

[steps.never]
if = "parameters.without == 'all'"
strategy = { matrix = { x = [1, 2] } }
run = "exit 1"

[steps.part]
uses = "./branch.toml"
with = { depth = "${{ parameters.n }}", name = "x${{ parameters.without }}" }

[steps.after]
needs = ["never", "part"]
run = "echo after $r"
"""
BRANCH = """
[parameters]
depth = 1
name = "none"
[steps.one]
run = "echo one $depth $name; echo r=$depth >> $RUNNABLE_OUTPUT"
returns = ["r"]
[steps.two]
if = "steps.one.outputs.r > 3"
with = { q = "${{ needs.one.outputs.r }}" }
run = "echo two $q"
"""


def test_conditions_of_branches(tmp_path: Path) -> None:
    """An instance has its own condition and values; the steps of another file have what `with` gives them. A retry with
    other values finds what a fresh run would, and nothing that an instance made which is skipped now.
    """
    project = project_of(tmp_path, MATRIX, **{"branch.toml": BRANCH})
    done = project.runnable("run", "--run-id", "r")
    assert "a-5 a\ncollect   | c-5 c\ncollect   | success a-5++c-5" in done.out.replace("collect |", "collect   |")
    for text in ("one 5 xb", "two 5", "after 5"):
        assert text in done.out
    assert actions(project) | {"part": ""} == {
        "prep": "run",
        "quant": "run",
        "quant.a.quant": "run",
        "quant.b.quant": "skip",
        "quant.c.quant": "run",
        "collect": "run",
        "never": "skip",
        "part": "",
        "part.uses.one": "run",
        "part.uses.two": "run",
        "after": "run",
    }
    project.runnable("retry", "r", "--param", "without=c")
    changed = actions(project)
    assert (changed["quant.a.quant"], changed["quant.b.quant"], changed["quant.c.quant"]) == ("reuse", "run", "skip")
    assert changed["part.uses.two"] == "reuse"
    output = project.runnable("show", "r", "collect").out
    assert "success a-5+b-5+" in output
    assert "c-5 c" not in output.rpartition("a-5 a")[2]


def test_a_plan_of_what_is_not_known_yet(tmp_path: Path) -> None:
    """A condition on what a step returns that is to run first is said as it is, also in a run that failed before."""
    steps = "[steps.a]\nrun = 'test -e ok; echo n=1 >> $RUNNABLE_OUTPUT'\nreturns = ['n']\n"
    steps += "[steps.b]\nif = \"parameters.n == 1\"\nrun = 'echo b > b.txt'\ncatalog.put = ['b.txt']\n"
    project = project_of(tmp_path, steps)
    assert "b  run    if parameters.n == 1: `a` returns `n`" in project.runnable("run", "-n").out
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"ok": ""})
    assert "b  run    if parameters.n == 1: `a` returns `n`" in project.runnable("retry", "r", "-n").out
    project.runnable("retry", "r")
    assert actions(project) == {"a": "run", "b": "run"}
    assert "nothing to do" in project.runnable("retry", "r").err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", "a path outside the workspace"),
        ("", "`parameters.name` is empty"),
        ("..", "a path outside the workspace"),
    ],
)
def test_a_value_that_no_path_can_have(tmp_path: Path, name: str, message: str) -> None:
    """A value that would lead elsewhere fails the step before it begins, and is named."""
    steps = "[steps.a]\nrun = 'touch ran'\ncatalog.put = ['o/x${{ parameters.name }}y', 'o/${{ parameters.name }}/z']\n"
    project = project_of(tmp_path, f"[parameters]\nname = 'ok'\n{steps}")
    if name == "..":
        project.write(
            {"runnable.toml": f"[parameters]\nname = 'ok'\n{steps}".replace("'o/x${{ parameters.name }}y', ", "")}
        )
    done = project.runnable("run", "--param", f"name={name}", code=1)
    assert message in done.err + done.out
    assert not (project.folder / "ran").exists()


def test_a_failing_expression_fails_its_step(tmp_path: Path) -> None:
    """What cannot be evaluated when the step is about to run is that step's failure, with the reason."""
    steps = (
        "[steps.a]\nrun = 'echo text=no >> $RUNNABLE_OUTPUT'\nreturns = ['text']\n"
        "[steps.b]\nif = \"fromJSON(parameters.text).x == 1\"\nrun = 'touch ran'\n"
        "[steps.c]\nneeds = ['a']\nwith = { x = '${{ fromJSON(parameters.text) }}' }\nrun = 'touch ran'\n"
    )
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    for step in ("b", "c"):
        assert "fromJSON: 'no' is not JSON" in recorded(project)["steps"][step]["message"]
    assert not (project.folder / "ran").exists()


def test_a_secret_in_a_text_is_in_no_log(tmp_path: Path) -> None:
    """A secret reaches the step by another name, and is masked wherever it is recorded."""
    steps = (
        "secrets = ['api_key']\n[steps.a]\nrun = 'test $KEY-$other = hunter2value-hunter2value && echo got $KEY'\n"
        "env = { KEY = '${{ parameters.api_key }}' }\nwith = { other = '${{ parameters.api_key }}' }\n"
    )
    project = project_of(tmp_path, steps)
    done = project.runnable("run", "--run-id", "r", "--param", "api_key=hunter2value")
    assert "got ***" in done.out
    assert "hunter2value" not in json.dumps(recorded(project))
    shown = project.runnable("retry", "r", "--param", "api_key=hunter2value", "--from", "a").out
    assert "hunter2value" not in shown
