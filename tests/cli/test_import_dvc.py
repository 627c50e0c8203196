"""Tests of `runnable-ci init --from dvc.yaml`: the pipeline of each is checked, and most are run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

from runnable_ci.cli.importers.dvc import import_dvc

CHAIN = """
vars:
  - settings.yaml
  - greeting: hello world
stages:
  evaluate:
    cmd: python3 count.py build/upper.txt > scores.json
    deps: [count.py, build/upper.txt]
    metrics: [scores.json: {cache: false}]
  upper:
    desc: Louder
    cmd:
      - mkdir -p build
      - tr a-z A-Z < raw.txt > build/upper.txt
    deps: [raw.txt]
    outs: [build]
  write:
    cmd: for i in $(seq ${loops.count}); do echo "${greeting} '${i}' \\${i} $i"; done > raw.txt
    params: [loops.count, other.yaml: [a.b]]
    outs: [raw.txt: {persist: true, remote: mine}]
    frozen: true
plots: [raw.txt]
"""
FILES = {
    "dvc.yaml": CHAIN,
    "settings.yaml": "i: it's\n",
    "params.yaml": "loops: {count: 2}\n",
    "other.yaml": "a: {b: 1}\n",
    "count.py": 'import sys, json\nprint(json.dumps({"characters": len(open(sys.argv[1]).read())}))\n',
}


def imported(project: Workspace) -> dict[str, Any]:
    """The table of the pipeline file that is written of the folder's dvc.yaml, which `check` takes."""
    project.runnable("init", "--from", "dvc.yaml")
    project.runnable("check")
    return tomllib.loads(project.read("runnable.toml"))


def test_stages_become_steps_that_run(tmp_path: Path) -> None:
    """Order by files, scripts with the values, files, metrics; and what has no counterpart is said where it belongs."""
    project = workspace(tmp_path, FILES)
    table = imported(project)
    steps = table["steps"]
    assert {name: step["needs"] for name, step in steps.items()} == {
        "evaluate": ["upper"],
        "upper": ["write"],
        "write": [],
    }
    assert table["parameters"] == {"loops_count": 2, "greeting": "hello world", "value_i": "it's"}
    assert steps["write"]["catalog"] == {
        "get": ["other.yaml", "params.yaml"],
        "put": ["raw.txt"],
        "persist": True,
    }
    assert steps["evaluate"]["metrics"] == ["scores.json"]
    text = project.read("runnable.toml")
    assert "# Louder\n[steps.upper]" in text
    for said in ("plots are files", "params: of other.yaml, DVC compares a.b", "frozen:"):
        assert text.count(said) == 1
    project.runnable("run")
    assert project.read("raw.txt") == "hello world 'it's' 1 1\nhello world 'it's' 2 2\n"
    assert project.log().metrics() == {"scores.characters": 46}
    project.runnable("run", "-p", "loops_count=1")
    assert project.log().metrics() == {"scores.characters": 23}


def test_paths_of_a_stage_s_folder(tmp_path: Path) -> None:
    """`wdir` is where the command runs and where its paths begin; what lies above the pipeline is an input only."""
    text = """
  "make it@all":
    wdir: sub/deep
    cmd: cat ../in.txt > out.txt
    deps: [../in.txt, ../../../above.txt, "https://example.org/x"]
    outs: [out.txt]
    params: [n]
    plots: [p.csv: {x: a}]
"""
    project = workspace(tmp_path, {"dvc.yaml": f"stages:{text}", "sub/in.txt": "", "sub/deep/params.yaml": "n: 1"})
    (project.folder.parent / "above.txt").touch()
    (step,) = imported(project)["steps"].items()
    assert step == (
        "make_it_all",
        {
            "needs": [],
            "run": "cat ../in.txt > out.txt",
            "working-directory": "sub/deep",
            "catalog": {
                "get": ["sub/in.txt", "../above.txt", "sub/deep/params.yaml"],
                "put": ["sub/deep/out.txt", "sub/deep/p.csv"],
            },
        },
    )
    assert "# In DVC the stage is called make it@all.\n# deps: https://example.org/x is outside" in project.read(
        "runnable.toml"
    )


def test_metrics_at_the_top_belong_to_the_stage_that_writes_them(tmp_path: Path) -> None:
    """Those of a folder of a stage too; two files of one name, and what nobody writes, are comments."""
    text = """
stages:
  a: {cmd: "true", outs: [eval: much], metrics: [one/m.json, two/m.json, m.txt]}
metrics: [eval/all.json, other.json]
"""
    project = workspace(tmp_path, {"dvc.yaml": text})
    assert imported(project)["steps"]["a"] == {
        "needs": [],
        "run": "true",
        "catalog": {"put": ["eval", "one/m.json", "m.txt"]},
        "metrics": ["two/m.json", "eval/all.json"],
    }
    written = project.read("runnable.toml")
    for path in ("one/m.json", "m.txt", "other.json"):
        assert f"# metrics: the numbers of {path} are not read" in written


@pytest.mark.parametrize(
    ("stage", "instances"),
    [
        ("foreach: [a, b]\n    do: ", {"item": ["a", "b"]}),
        ("foreach: ${names}\n    do: ", {"item": ["c", 1]}),
        ("matrix: {x: [1, 2], y: [true]}\n    ", {"x": [1, 2], "y": [True]}),
        (
            "foreach: {uk: {lr: 0.1}, us: {lr: 0.2}}\n    do: ",
            {"include": [{"key": "uk", "lr": 0.1}, {"key": "us", "lr": 0.2}]},
        ),
        ("foreach: [{a: 1, b: {c: 2}}]\n    do: ", {"a": [1], "b_c": [2]}),
    ],
)
def test_foreach_and_matrix(tmp_path: Path, stage: str, instances: dict[str, Any]) -> None:
    """Each form is a matrix with the same instances in the same order."""
    axis = next(iter(instances["include"][0] if "include" in instances else instances))
    inner = f'{{cmd: "echo ${{{axis if axis in ("item", "key") else f"item.{axis}"}}} > o", outs: [o]}}'
    inner = inner if "do" in stage else inner.strip("{}").replace(", outs: [o]", "\n    outs: [o]")
    (tmp_path / "dvc.yaml").write_text(f"vars: [{{names: [c, 1]}}]\nstages:\n  s:\n    {stage}{inner}\n")
    step = import_dvc(tmp_path / "dvc.yaml").table["steps"]["s"]
    assert step["strategy"] == {"matrix": instances}
    assert step["run"] == f"echo ${axis} > o"


def test_what_an_instance_makes_is_what_another_stage_reads(tmp_path: Path) -> None:
    """A path with an axis in it is one for each instance: who reads one of them needs the stage."""
    (tmp_path / "dvc.yaml").write_text("""
stages:
  last: {cmd: "cat m/a.txt", deps: [m/a.txt]}
  other: {cmd: "true", deps: [m/c.txt]}
  each:
    foreach: [a, b]
    do: {cmd: "echo '${item}' > m/${item}.txt", outs: ["m/${item}.txt"], metrics: ["m/${item}.json"]}
""")
    imported = import_dvc(tmp_path / "dvc.yaml")
    steps = imported.table["steps"]
    assert [steps[name]["needs"] for name in ("last", "other", "each")] == [["each"], [], []]
    assert steps["each"]["run"] == "echo ''\"$item\"'' > m/$item.txt"
    assert steps["each"]["catalog"] == {"put": ["m/${{ matrix.item }}.txt", "m/${{ matrix.item }}.json"]}


def test_foreach_runs_and_grows(tmp_path: Path) -> None:
    """Each item is an instance with its own files; one that is added later runs alone, and what collects."""
    text = """
stages:
  each:
    foreach: ${regions}
    do: {cmd: "mkdir -p out; cat in/${key}.txt > out/${key}.txt; echo 'n: ${item.n}' >> out/${key}.txt",
         deps: ["in/${key}.txt"], outs: ["out/${key}.txt"]}
  all: {cmd: "cat out/*.txt > all.txt", deps: [out], outs: [all.txt]}
"""
    project = workspace(
        tmp_path,
        {"dvc.yaml": text, "params.yaml": "regions: {uk: {n: 1}, us: {n: 2}}\n", "in/uk.txt": "", "in/us.txt": ""},
    )
    imported(project)
    project.runnable("run", "--run-id", "r")
    assert project.read("all.txt") == "n: 1\nn: 2\n"
    before = set(project.log("r").steps)
    project.write({"params.yaml": "regions: {uk: {n: 1}, us: {n: 2}, zz: {n: 3}}\n", "in/zz.txt": "z\n"})
    (project.folder / "runnable.toml").unlink()
    imported(project)
    project.runnable("retry", "r")
    steps = project.log("r").steps
    assert len(set(steps) - before) == 1
    assert {name: len(step.attempts) for name, step in steps.items() if len(step.attempts) > 1} == {"all": 2}
    assert project.read("all.txt") == "n: 1\nn: 2\nz\nn: 3\n"


def test_a_table_in_a_command(tmp_path: Path) -> None:
    """It becomes options: those that are false are left out, texts are one word, lists are several."""
    project = workspace(
        tmp_path,
        {
            "dvc.yaml": "stages:\n  s: {cmd: 'printf \"%s.\" ${t} end > out.txt', outs: [out.txt]}\n",
            "params.yaml": "t: {lr: 0.1, name: my model, on: true, off: false, none: null, many: [1, 2], in: {x: 3}}\n",
        },
        git=False,
    )
    imported(project)
    project.runnable("run")
    assert project.read("out.txt") == "--lr.0.1.--name.my model.--on.--many.1.2.--in.--x.3.end."


def test_paths_that_are_whole_values(tmp_path: Path) -> None:
    """A stage for each file lets another one write beside them, and not the same file."""
    text = """
stages:
  each:
    foreach: [{file: a.txt}, {file: b.txt}]
    do: {cmd: "echo x > ${item.file}", outs: ["${item.file}"]}
  beside: {cmd: "echo y > OTHER", outs: [OTHER]}
"""
    project = workspace(tmp_path, {"dvc.yaml": text.replace("OTHER", "b.txt")}, git=False)
    assert "can match the same file" in project.runnable("init", "--from", "dvc.yaml", code=2).err
    project.write({"dvc.yaml": text.replace("OTHER", "c.txt")})
    imported(project)
    project.runnable("run")
    assert [project.read(f"{name}.txt") for name in "abc"] == ["x\n", "x\n", "y\n"]


def test_a_folder_for_each_item(tmp_path: Path) -> None:
    """`wdir` may name the item: each instance runs there, and its paths begin there."""
    text = """
stages:
  each:
    foreach: [a, b]
    do: {wdir: "in/${item}", cmd: "cp x.txt y.txt; cat ../z.txt >> y.txt", deps: [x.txt, ../z.txt], outs: [y.txt]}
"""
    files = {"in/a/x.txt": "a", "in/b/x.txt": "b", "in/z.txt": "z"}
    project = workspace(tmp_path, {"dvc.yaml": text, **files}, git=False)
    catalog = imported(project)["steps"]["each"]["catalog"]
    assert catalog == {"get": ["in/${{ matrix.item }}/x.txt", "in/z.txt"], "put": ["in/${{ matrix.item }}/y.txt"]}
    project.runnable("run")
    assert [project.read(f"in/{item}/y.txt") for item in "ab"] == ["az", "bz"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("stages: {}", "dvc.yaml has no stages"),
        ("- a", "dvc.yaml has no stages"),
        ("stages: [", "dvc.yaml: line 1"),
        ("stages: {a: {deps: [x]}}", "stage a has no cmd"),
        ("stages: {a: {foreach: [], do: {cmd: x}}}", "stage a has no values to run for"),
        ("stages: {a: {matrix: {x: }, cmd: x}}", "stage a has no values to run for"),
        ("stages: {a: {cmd: 'echo ${no.such}'}}", "${no.such} is not known"),
        ("vars: [no.yaml]\nstages: {a: {cmd: x}}", "no.yaml cannot be read"),
        ("stages: {a: {cmd: x, outs: [/tmp/x]}}", "cannot be imported as it is: "),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, text: str, error: str) -> None:
    """It is one error that says what, and nothing is written."""
    project = workspace(tmp_path, {"dvc.yaml": text}, git=False)
    assert error in project.runnable("init", "--from", "dvc.yaml", code=2).err
    assert sorted(path.name for path in project.folder.iterdir()) == ["dvc.yaml"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A pipeline file is not replaced; a file of no known tool, none at all, or a second place is refused."""
    project = workspace(tmp_path, {"dvc.yaml": "stages: {a: {cmd: x}}", "runnable.toml": "", "Makefile": ""}, git=False)
    for words, error in (
        (("dvc.yaml",), "runnable.toml already exists"),
        (("Makefile",), "it is not known which tool"),
        (("nothing.yaml",), "there is no file nothing.yaml"),
        (("dvc.yaml", "--github"), "--from takes no folder"),
        (("dvc.yaml", "elsewhere"), "--from takes no folder"),
    ):
        assert error in project.runnable("init", "--from", *words, code=2).err
    assert project.read("runnable.toml") == ""
