"""Tests of the expressions that make branches, and of what branches are given: on real runs, and before any."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace


def project_of(folder: Path, pipeline: str, **files: str) -> Workspace:
    """Return a project with this pipeline and these files, a `__` in their names for a dot."""
    named = {name.replace("__", "."): text for name, text in files.items()}
    return workspace(folder, {"runnable.toml": pipeline, ".gitignore": ".runnable/\n__pycache__/\no/\n", **named})


def loop(until: str) -> str:
    """Return the key of a loop."""
    return f'loop = {{ until = "{until}", max = 3 }}'


def matrix(written: str) -> str:
    """Return the key of a strategy."""
    return f"strategy = {{ matrix = {written} }}"


@pytest.mark.parametrize(
    ("key", "message", "hint"),
    [
        (loop("parameters.err <"), "[steps.b.loop] until: a value is missing at its end", ""),
        (loop("nope < 1"), "until: there is no context `nope`", "parameters"),
        (loop("system('x')"), "until: there is no function `system`", "contains"),
        (loop("matrix.x == 1"), "until: there is no context `matrix`", ""),
        (loop("parameters.other < 1"), "until: there is no parameter `other`", "[parameters] other = "),
        (loop("parameters.eror < 1"), "until: there is no parameter `eror`", "did you mean `error`?"),
        (loop("parameters.later < 1"), "`later` is returned by step `last`, which is not before it", "`last`"),
        (loop("steps.nope.outcome == 1"), "until: there is no step `nope`", ""),
        (loop("${{ parameters.error }} < 1"), "until: beside an expression there is text", "all of it in one"),
        (matrix('{ n = "${{ parameters.ns" }'), "[steps.b.strategy] matrix.n: `${{` is not closed", ""),
        (matrix('{ n = "${{ range(3) }}" }'), "matrix.n: there is no function `range`", "files"),
        (matrix('{ n = "${{ inputs.n }}" }'), "matrix.n: there is no context `inputs`", "they are parameters here"),
        (matrix('{ n = ["a", "${{ matrix.n }}"] }'), "matrix.n: there is no context `matrix`", ""),
        (matrix('{ n = "${{ parameters.sizes }}" }'), "matrix.n: there is no parameter `sizes`", "[parameters]"),
        (matrix('{ n = "${{ parameters.error }}" }'), "matrix.n: there is no parameter `error`", ""),
        (matrix('{ n = "${{ parameters.later }}" }'), "which is not before it", "list `last` in `needs`"),
        (matrix('"${{ steps.nope.outputs.all }}"'), "matrix: there is no step `nope`", ""),
        (matrix('{ n = [1], include = [{ m = "${{ parameters.mm }}" }] }'), "matrix.include: there is no para", ""),
        (matrix('{ n = [1], exclude = "${{ parameters.mm }}" }'), "matrix.exclude: there is no parameter `mm`", ""),
        (matrix('{ n = "${{ parameters.model }}" }'), "matrix.n: `model` is an object, which has no text", ""),
        (matrix("{ n = [1] }") + "\nname = '${{ matrix.m }}'", "name: there is no axis `m`", "the axes are: n"),
    ],
)
def test_what_makes_branches_is_checked_before_anything_runs(tmp_path: Path, key: str, message: str, hint: str) -> None:
    """As a condition is: what does not parse, and what there is not."""
    steps = (
        "[steps.load]\npython = 'f:f'\nreturns = { model = 'object' }\n"
        f"[steps.b]\nrun = 'touch ran'\nneeds = ['load']\nreturns = ['error']\n{key}\n"
        "[steps.last]\nneeds = ['b']\nrun = 'true'\nreturns = ['later']\n"
    )
    project = project_of(tmp_path, steps, f__py="def f():\n    return 1\n")
    for command in ("check", "run"):
        done = project.runnable(command, code=2)
        assert message in done.err
        assert hint in done.err
        assert done.err.count("error:") == 1
    assert not (project.folder / "ran").exists()


def test_what_there_is_may_make_branches(tmp_path: Path) -> None:
    """Parameters, results of steps before, and of a round; the axes of a matrix around a loop; and files."""
    steps = """
[parameters]
goal = 3
names = ["a", "b"]
[steps.count]
run = 'echo "sizes=[1, 2]" >> "$RUNNABLE_OUTPUT"'
returns = { sizes = "json" }
[steps.improve]
strategy = { matrix = { name = "${{ parameters.names }}", size = "${{ steps.count.outputs.sizes }}" } }
loop = { until = "parameters.n >= parameters.goal || steps.improve.outputs.n > matrix.size", max = 5 }
run = 'echo "n=$((${n:-0} + 1))" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
[steps.each]
strategy = { matrix = { file = "${{ files('*.csv') }}", include = [{ more = "${{ needs.improve.result }}" }] } }
run = 'echo "each $file $more"'
"""
    project = project_of(tmp_path, steps, a__csv="", b__csv="")
    done = project.runnable("run", "--run-id", "r")
    assert project.log("r").parameters["n"].value == [2, 3, 2, 3]
    assert [line.partition("each ")[2] for line in sorted(done.out.splitlines()) if "each " in line] == [
        "(a.csv, success) | each a.csv success",
        "(b.csv, success) | each b.csv success",
    ]


def test_an_end_of_a_loop_without_a_value_fails_the_step(tmp_path: Path) -> None:
    """With why, once a round has returned it; the log says so too."""
    steps = """
[steps.improve]
loop = { until = "fromJSON(parameters.n).done", max = 5 }
run = 'echo "n=oops" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
"""
    project = project_of(tmp_path, steps)
    done = project.runnable("run", "--run-id", "r", code=1)
    assert "until: fromJSON: 'oops' is not JSON" in done.err
    assert "until: fromJSON" in project.log("r").steps["improve"].message


OBJECTS = """
[steps.fit]
strategy = { matrix = { d = [3, 5, 7] } }
python = "m:fit"
returns = { model = "object" }
[steps.best]
python = "m:show"
with = { best = "${{ parameters.model[parameters.at] }}" }
returns = ["depth"]
[parameters]
at = 1
"""
FIT = """
import sys
class Model:
    def __init__(self, d): self.d = d
def fit(d=4): return Model(d)
def show(best): return best and best.d
"""


def test_one_of_several_objects(tmp_path: Path) -> None:
    """An item of a list of objects is that object, whichever an expression says; null behind the end of the list."""
    project = project_of(tmp_path, OBJECTS, m__py=FIT)
    project.runnable("run", "--run-id", "r")
    assert project.log("r").parameters["depth"].value == 5
    assert project.log("r").steps["best"].attempts[-1].input_parameters["best"].object_type == "m.Model"
    for at, depth in ((2, 7), (3, None)):
        project.runnable("retry", "r", "--param", f"at={at}")
        assert project.log("r").parameters["depth"].value == depth


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ('with = { best = "${{ parameters.model[0] }}" }', 1),
        ('with = { best = "${{ parameters.model.d }}" }', 2),
        ("with = { best = \"${{ contains(parameters.model, 'x') }}\" }", 2),
        ('with = { best = "${{ parameters[parameters.which] }}" }', 1),
        ('strategy = { matrix = { best = "${{ parameters[parameters.which] }}" } }', 1),
    ],
)
def test_an_object_is_no_value_of_an_expression(tmp_path: Path, key: str, code: int) -> None:
    """However it is looked up, it is an error, and never its name, nor nothing."""
    steps = (
        "[parameters]\nwhich = 'model'\n"
        "[steps.fit]\npython = 'm:fit'\nreturns = { model = 'object' }\n"
        f"[steps.use]\npython = 'm:show'\n{key}\n"
    )
    project = project_of(tmp_path, steps, m__py=FIT)
    assert "`model` is an object, which has no text" in project.runnable("run", code=code).err


def test_a_list_of_objects_is_no_axis(tmp_path: Path) -> None:
    """It is one error, before anything runs."""
    project = project_of(
        tmp_path, f'{OBJECTS}[steps.use]\nstrategy.matrix.m = "${{{{ parameters.model }}}}"\nrun = "true"\n', m__py=FIT
    )
    assert "matrix.m: `model` is an object, which has no text" in project.runnable("check", code=2).err


PART = """
[parameters]
s = "x"
[steps.one]
run = 'mkdir -p o; echo "$s" | tee "o/$s.x"'
catalog.put = ["o/${{ parameters.s }}.x"]
"""


def test_arguments_of_a_file_by_instance(tmp_path: Path) -> None:
    """`with` of a step that uses a file has the axes; a loop in it does not bind them twice."""
    steps = """
[parameters]
base = "b"
[steps.each]
uses = "./part.toml"
strategy.matrix.t = ["k", "l"]
with = { s = "${{ parameters.base }}-${{ matrix.t }}" }
[steps.again]
needs = []
uses = "./loop.toml"
strategy.matrix.t = [1, 2]
with = { s = "${{ format('<{0}{1}>', parameters.base, matrix.t) }}" }
loop = { until = "parameters.n >= matrix.t", max = 3 }
"""
    part = '[parameters]\ns = ""\n[steps.two]\nrun = \'echo "$s"; echo "n=$((${n:-0} + 1))" >> $RUNNABLE_OUTPUT\'\n'
    project = project_of(tmp_path, steps, part__toml=PART, loop__toml=f'{part}returns = ["n"]\n')
    done = project.runnable("run", "--run-id", "r")
    assert sorted(line.partition(" | ")[2] for line in done.out.splitlines()) == ["<b1>", "<b2>", "<b2>", "b-k", "b-l"]
    assert [one.values for one in project.log("r").steps["each"].instances] == [{"t": "k"}, {"t": "l"}]
    assert "nothing to do" in project.runnable("retry", "r").err
    project.write({"runnable.toml": steps.replace("}-${", "}+${")})
    done = project.runnable("retry", "r")
    assert sorted(line.partition(" | ")[2] for line in done.out.splitlines()) == ["b+k", "b+l"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${{ matrix.u }}", "s: there is no axis `u`"),
        ("${{ steps.nope.outputs.s }}", "s: there is no step `nope`"),
        ("${{ fromJSON(parameters.text) }}", "s: fromJSON: '{' is not JSON"),
        ("${{ fromJSON(matrix.t) }}", "s: fromJSON: 'k' is not JSON"),
    ],
)
def test_an_argument_of_a_file_without_a_value(tmp_path: Path, value: str, message: str) -> None:
    """The step fails with that, and does not run as if it had not been given."""
    steps = (
        "[parameters]\ntext = '{'\n"
        f"[steps.each]\nuses = './part.toml'\nstrategy.matrix.t = ['k', 'l']\nwith = {{ s = \"{value}\" }}\n"
    )
    project = project_of(tmp_path, steps, part__toml=PART)
    done = project.runnable("run", code=2)
    assert message in done.err
    assert "runnable.toml:6" in done.err
    assert not (project.folder / "o").exists()


def test_paths_by_values_of_the_file_are_apart(tmp_path: Path) -> None:
    """Instances whose paths have values of their own run; those with the same path are refused, or fail by name."""
    steps = '[steps.each]\nuses = "./part.toml"\nstrategy.matrix.s = ["a", "b"]\n'
    project = project_of(tmp_path, steps, part__toml=PART)
    project.runnable("run")
    assert sorted(path.name for path in (project.folder / "o").iterdir()) == ["a.x", "b.x"]
    apart = steps.replace("matrix.s", "matrix.t")
    project.write({"runnable.toml": apart + 'with = { s = "same" }\n'})
    assert "the instances a and b both put `o/same.x`" in project.runnable("run", code=2).err
    project.write({"runnable.toml": apart})
    done = project.runnable("run", "--run-id", "r", code=1)
    assert "each | ✗ the instances a and b both put o/x.x" in done.err
    assert "both put o/x.x" in project.log("r").steps["each"].message


def test_a_path_of_a_file_of_an_axis(tmp_path: Path) -> None:
    """A value with a slash is a part of a path like any other, for those who take the file too."""
    steps = """
[steps.up]
strategy.matrix.p = "${{ files('data/*.txt') }}"
run = 'tr a-z A-Z < "$p" > "$p.up"'
catalog = { get = ["${{ matrix.p }}"], put = ["${{ matrix.p }}.up"] }
[steps.all]
run = "cat data/*.up"
catalog.get = ["data/a.txt.up", "data/b.txt.up"]
"""
    project = project_of(tmp_path, steps, **{"data/a.txt": "one\n", "data/b.txt": "two\n"})
    project.runnable("check")
    done = project.runnable("run", "--run-id", "r")
    assert [line.partition("| ")[2] for line in done.out.splitlines()] == ["ONE", "TWO"]
    assert "nothing to do" in project.runnable("retry", "r").err


@pytest.mark.parametrize(
    ("put", "value", "message"),
    [
        ("o/${{ matrix.p }}/x", "../../b", "the instance ../../b: put: a path outside the workspace"),
        ("${{ matrix.p }}.x", "/etc/b", "the instance /etc/b: put: a path outside the workspace"),
        ("o/${{ matrix.p }}", "", 'the instance p="": put: ` matrix.p ` is empty in'),
        ("${{ matrix.p }}/x", ".git", 'the instance .git: put: ".git/x" is never stored'),
    ],
)
def test_an_axis_value_that_no_path_can_have(tmp_path: Path, put: str, value: str, message: str) -> None:
    """It is one error that names the instance, before any of them runs."""
    steps = f'[steps.a]\nstrategy.matrix.p = ["ok", "{value}"]\nrun = "touch ran"\ncatalog.put = ["{put}"]\n'
    project = project_of(tmp_path, steps)
    done = project.runnable("run", code=2)
    assert message.replace("` matrix.p `", "`matrix.p`") in done.err
    assert done.err.count("error:") == 1
    assert not (project.folder / "ran").exists()


@pytest.mark.parametrize("value", ["parameters.m", "steps.up.outputs.m", "needs.up.outputs.m"])
def test_an_argument_that_an_instance_returns_which_is_followed(tmp_path: Path, value: str) -> None:
    """It has no value when the instances begin: an error, in place of nothing, that says how the file has it."""
    key = 'uses = "./part.toml"\nstrategy.matrix.t = [1, 2]\n'
    steps = f'[steps.up]\n{key}[steps.on]\n{key}with = {{ s = "${{{{ {value} }}}}" }}\n'
    part = "[parameters]\ns = ''\n[steps.one]\nrun = 'echo m=$t >> $RUNNABLE_OUTPUT'\nreturns = ['m']\n"
    done = project_of(tmp_path, steps, part__toml=part).runnable("check", code=2)
    assert "s: it follows `up` instance by instance, which is not over by then" in done.err
    assert "the steps of the file see what it returns by that name" in done.err
