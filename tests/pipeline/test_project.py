"""Tests of the pipeline file on disk: which one is meant, what is wrong with it, and a run's parameters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.pipeline.model import Pipeline, resolve
from runnable_ci.pipeline.project import (
    find_file,
    find_store,
    load,
    override_parameters,
    parse_param_options,
    resolve_parameters,
    store_folder,
)

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    made = tmp_path / "iris"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def write(folder: Path, text: str, name: str = "runnable.toml") -> Path:
    """A file with some text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


GREET = 'steps.greet.run = "echo"\n'


def test_file_of_the_current_folder_or_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word the nearest pipeline file counts, here or further up in the repository."""
    path = write(folder, GREET)
    (folder / ".git").mkdir()
    assert find_file(None) == path
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_file(None) == path
    assert load(None).pipeline.file == str(path)
    nearer = write(folder / "a", GREET)
    assert find_file(None) == nearer


@pytest.mark.parametrize("root", [".", "a"])
def test_no_file_above_the_repository(root: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies above the root of the repository is another project's, be `.git` a folder or a worktree's file."""
    write(folder.parent, GREET)
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    (folder / root / ".git").write_text("gitdir: elsewhere\n")
    with pytest.raises(PipelineError, match=r"there is no runnable\.toml in .*/iris/a/b"):
        find_file(None)
    assert store_folder() == below


def test_no_file_above_without_a_repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git nothing above the current folder counts, though it is named; nor does a repository that git skips."""
    path = write(folder, GREET)
    below = folder / "a"
    below.mkdir()
    monkeypatch.chdir(below)
    with pytest.raises(PipelineError) as caught:
        find_file(None)
    assert str(path) in caught.value.hint
    assert store_folder() == below
    (folder / ".git").mkdir()
    assert find_file(None) == path
    assert store_folder() == folder
    skipping = {"GIT_CEILING_DIRECTORIES": f"/nowhere:{folder}"}
    assert store_folder(skipping) == below
    with pytest.raises(PipelineError) as caught:
        find_file(None, skipping)
    assert caught.value.hint == "`runnable-ci init` writes one"


def test_given_file_or_folder(folder: Path) -> None:
    """A file of any name can be named, or a folder, in which case no other folder is looked at."""
    path = write(folder, GREET)
    other = write(folder, GREET, "a/other.toml")
    assert find_file(folder) == path
    assert find_file(Path("a/other.toml")) == other
    with pytest.raises(PipelineError, match=r"there is no runnable.toml in .*/iris/a, and no \[tool.runnable-ci\]"):
        find_file(Path("a"))


def test_nothing_there(folder: Path) -> None:
    """Where there is nothing the way to begin is told, and a misspelt path gets the closest one."""
    with pytest.raises(PipelineError) as caught:
        find_file(None)
    assert (caught.value.hint, caught.value.exit_code) == ("`runnable-ci init` writes one", 2)
    write(folder, GREET)
    with pytest.raises(PipelineError, match=r"there is no runable\.toml") as caught:
        find_file(Path("runable.toml"))
    assert caught.value.hint == "did you mean `runnable.toml`?"


def test_pyproject() -> None:
    """The table in a pyproject.toml is a pipeline file, in its own folder."""
    project = load(PIPELINES / "in-pyproject")
    assert project.workspace == PIPELINES / "in-pyproject"
    assert project.layout.folder == PIPELINES / "in-pyproject" / ".runnable"
    assert (project.pipeline.name, project.pipeline.parameters) == ("in-pyproject", {"rate": 0.5, "name": "it"})


def test_pyproject_of_something_else(folder: Path) -> None:
    """A pyproject.toml without our table is passed by on the way up; runnable.toml goes before one with it."""
    path = write(folder.parent, GREET)
    (folder.parent / ".git").mkdir()
    write(folder, "[tool.ruff]\n", "pyproject.toml")
    assert find_file(None) == path
    write(folder, f"[tool.runnable-ci]\n{GREET}", "pyproject.toml")
    assert find_file(None) == folder / "pyproject.toml"
    path = write(folder, GREET)
    assert find_file(None) == path


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nrunnable-ci = 3", "[tool.ruff]", ""])
def test_pyproject_that_is_named_but_has_no_table(folder: Path, text: str) -> None:
    """Where a pyproject.toml without our table is named, that is said."""
    path = write(folder, text, "pyproject.toml")
    with pytest.raises(PipelineError, match=r"pyproject.toml has no table \[tool.runnable-ci\]"):
        load(path)


def test_mistake_in_pyproject(folder: Path) -> None:
    """A mistake is named with the table's full place."""
    write(folder, '[tool.runnable-ci.steps.a]\nrum = "x"', "pyproject.toml")
    with pytest.raises(PipelineError) as caught:
        load(None)
    assert caught.value.message == "pyproject.toml: [tool.runnable-ci.steps.a] unknown key `rum`"


BROKEN = {
    "no TOML": "[steps.a\nrun = 1",
    "twice": "a = 1\na = 2",
    "a number of 5,000 digits": "a = " + "1" * 5000,
    "a list as deep": "a = " + "[" * 5000 + "]" * 5000,
    "control characters": "a = '\x01'",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_file_that_is_not_toml(folder: Path, text: str) -> None:
    """Bad TOML is one error that names the file, and where in it as far as that is known."""
    write(folder, text)
    with pytest.raises(PipelineError, match=r"runnable.toml is not TOML: ") as caught:
        load(None)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)


def test_pyproject_that_is_not_toml(folder: Path) -> None:
    """A broken pyproject.toml with our table in it is named; one without is somebody else's."""
    write(folder, f"[tool.runnable-ci]\n{GREET}\n[tool.ruff\n", "pyproject.toml")
    with pytest.raises(PipelineError, match=r"pyproject.toml is not TOML: .*line 4"):
        load(None)
    write(folder, "[tool.ruff", "pyproject.toml")
    with pytest.raises(PipelineError, match=r"there is no runnable\.toml"):
        load(None)


def test_file_that_cannot_be_read(folder: Path) -> None:
    """A file that is no text is one error too."""
    (folder / "runnable.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(PipelineError, match=r"runnable.toml cannot be read: byte 9 is not UTF-8") as caught:
        load(None)
    assert caught.value.hint == "save it as UTF-8"


def test_byte_order_mark(folder: Path) -> None:
    """The mark that some editors begin a file with is no part of it."""
    (folder / "runnable.toml").write_text(GREET, encoding="utf-8-sig")
    (folder / "p.toml").write_text("x = 1", encoding="utf-8-sig")
    assert list(load(None).pipeline.steps) == ["greet"]
    assert parameters(pipeline(), file=folder / "p.toml") == {"x": 1}


@given(st.text(max_size=40) | st.text(alphabet="[]{}=.'\"\n steprunable1#-", max_size=40))
def test_any_text_is_a_project_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in the file, the answer is a project or a `PipelineError`."""
    path = tmp_path_factory.getbasetemp() / "any" / "runnable.toml"  # no test below has it above its own folder
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        assert load(path).pipeline.steps
    except PipelineError as e:
        assert "runnable.toml" in e.message


def test_names_in_messages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file below the current folder is named as people type it, another one in full."""
    path = write(folder, GREET, "a/runnable.toml")
    assert load(Path("a")).pipeline.file == "a/runnable.toml"
    monkeypatch.chdir("/")
    assert load(path).pipeline.file.endswith("iris/a/runnable.toml")


def test_functions_that_exist() -> None:
    """Functions are looked for where the interpreter would: in modules, packages and behind star imports."""
    assert list(load(PIPELINES / "functions").pipeline.steps) == ["plain", "nested", "star", "installed"]


def test_function_of_a_newer_syntax(folder: Path) -> None:
    """A module that we cannot parse is left to the user's interpreter."""
    write(folder, "def f():\n    a syntax of tomorrow", "m.py")
    write(folder, 'steps.a.python = "m:f"')
    assert load(None).pipeline.steps["a"].command == "m:f"


def test_function_that_is_missing(folder: Path) -> None:
    """A function that its module does not have is an error before anything runs, with the closest that it has."""
    shutil.copy(PIPELINES / "functions/module.py", folder)
    write(folder, '[steps.a]\npython = "module:plane"')
    with pytest.raises(PipelineError) as caught:
        load_project(None)
    assert caught.value.message == "runnable.toml: [steps.a] python: module.py has no function `plane`"
    assert (caught.value.hint, caught.value.exit_code) == ("did you mean `plain`?", 2)


def test_working_directory_that_is_missing(folder: Path) -> None:
    """A working directory that is not there, or is a file, is an error before anything runs."""
    write(folder, 'steps.a = { run = "x", working-directory = "runnable.toml" }')
    with pytest.raises(PipelineError, match=r"\[steps.a\] working-directory: there is no folder `runnable.toml`"):
        load(None)


def test_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is beside the pipeline file, else in the current folder; a folder that is named is taken exactly."""
    below = folder / "a"
    below.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(below)
    write(folder / ".runnable", "{}", "index.json")
    assert find_store().folder == below / ".runnable"
    write(folder, GREET)
    assert find_store().folder == folder / ".runnable"
    assert find_store(Path()).folder == below / ".runnable"
    assert find_store(Path("../.runnable")).folder == find_store(folder).folder == folder / ".runnable"
    write(below, f"[tool.runnable-ci]\n{GREET}", "pyproject.toml")
    assert find_store().folder == below / ".runnable"


def pipeline(**parameters: Any) -> Pipeline:
    """A pipeline with parameters."""
    table = {"parameters": parameters, "steps": {"a": {"run": "x", "env": {"LEVEL": "1"}}}}
    return resolve(table, file="runnable.toml", default_name="n")


def parameters(
    made: Pipeline,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    given: list[str] | None = None,
) -> dict[str, Any]:
    """The parameters of a new run."""
    return resolve_parameters(
        made, override_parameters(made, params_file=file, environ=environ or {}, given=given or [])
    )


def test_precedence(tmp_path: Path) -> None:
    """The pipeline's file, then the parameter file, then the environment, then the command line: the last counts."""
    file = write(tmp_path, "b = 2\nc = 2\nd = 2\nextra = true", "more.toml")
    made = pipeline(a=1, b=1, c=1, d=1)
    environ = {"RUNNABLE_PRM_c": "3", "RUNNABLE_PRM_d": "3", "c": "9", "RUNNABLE_CI_JOBS": "9"}
    assert parameters(made, file=file, environ=environ, given=["d=4"]) == {
        "a": 1,
        "b": 2,
        "c": 3,
        "d": 4,
        "extra": True,
    }
    assert made.parameters == {"a": 1, "b": 1, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("known", "text", "value"),
    [
        ("text", "3", "3"),
        ("text", "true", "true"),
        ("text", "", ""),
        (1, "2", 2),
        (1, "0.5", 0.5),
        (1, "[1, 2]", [1, 2]),
        (1, "a=b", "a=b"),
        (1, "text", "text"),
        (True, "false", False),
        (True, "False", "False"),
        (None, '{"a": null}', {"a": None}),
        (None, "null", None),
    ],
)
def test_types(known: Any, text: str, value: Any) -> None:
    """Text for a parameter that is text stays text; else JSON is its value, and what is no JSON is text."""
    made = pipeline(x=known)
    for found in (parameters(made, given=[f"x={text}"]), parameters(made, environ={"RUNNABLE_PRM_x": text})):
        assert found == {"x": value}
        assert type(found["x"]) is type(value)


def test_type_is_that_of_the_value_before(tmp_path: Path) -> None:
    """What counts as text is what the parameter was before, wherever that came from."""
    file = write(tmp_path, 'x = "text"', "more.toml")
    assert parameters(pipeline(x=1), file=file, given=["x=2"]) == {"x": "2"}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("p.toml", "x = 1", {"x": 1}),
        ("p.toml", "[parameters]\nx = 1", {"x": 1}),
        ("p.toml", "[parameters]\n", {}),
        ("p.toml", "", {}),
        ("p.json", '{"x": {"a": [1]}}', {"x": {"a": [1]}}),
    ],
)
def test_parameter_file(tmp_path: Path, name: str, text: str, found: Mapping[str, Any]) -> None:
    """A parameter file is TOML, with or without a table around it, or JSON."""
    assert parameters(pipeline(), file=write(tmp_path, text, name)) == found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "[1]", "is not a table of parameters"),
        ("p.json", "{", "is not a table of parameters"),
        ("p.toml", "parameters = 3", "is not a table of parameters"),
        ("p.toml", "x = 2026-01-01", "parameters: x: a date is not a JSON value"),
        ("p.toml", "PATH = 3", "parameters: the parameter name `PATH` is reserved"),
        ("p.json", json.dumps({"a b": 1}), 'parameters: "a b" cannot name a parameter'),
        ("p.toml", "LEVEL = 3", "the parameter `LEVEL` is also set by `env` in runnable.toml, step `a`"),
    ],
)
def test_bad_parameter_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    """What cannot be a parameter is refused, wherever it comes from."""
    with pytest.raises(UsageError) as caught:
        parameters(pipeline(), file=write(tmp_path, text, name))
    assert message in caught.value.message
    assert (bool(caught.value.hint), caught.value.exit_code) == (True, 2)


def test_parameter_file_that_is_missing_or_broken(tmp_path: Path) -> None:
    """A parameter file that cannot be read is named."""
    with pytest.raises(
        UsageError, match=r"--params-file .*none\.toml cannot be read: no such file or directory"
    ) as caught:
        parameters(pipeline(), file=tmp_path / "none.toml")
    assert caught.value.hint == "a file of TOML, or of JSON with the suffix .json"
    with pytest.raises(UsageError, match=r"p\.yaml is YAML") as caught:
        parameters(pipeline(), file=write(tmp_path, "x: 1", "p.yaml"))
    assert caught.value.hint == "a file of TOML, or of JSON with the suffix .json"
    with pytest.raises(PipelineError, match=r"p\.toml is not TOML"):
        parameters(pipeline(), file=write(tmp_path, "x = ", "p.toml"))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ("x", "--param x: expected name=value"),
        ("=1", "--param =1: expected name=value"),
        ("PATH=1", "--param: [parameters] the parameter name `PATH` is reserved"),
        ("x-y=1", '--param: "x-y" cannot name a parameter'),
        ("x=\udcff", "--param: x: the text has characters that are not Unicode"),
    ],
)
def test_bad_param(given_: str, message: str) -> None:
    """A `--param` that cannot be understood is refused."""
    with pytest.raises(UsageError) as caught:
        parse_param_options([given_], {})
    assert caught.value.message == message.replace("[parameters] ", "")


def test_environment_variable_that_names_nothing() -> None:
    """A variable with our prefix and a name that no parameter may have is refused."""
    for name in ("", "a-b", "HOME"):
        with pytest.raises(UsageError, match=f"RUNNABLE_PRM_{name} in the environment: "):
            parameters(pipeline(), environ={f"RUNNABLE_PRM_{name}": "1"})


def test_param_given_twice() -> None:
    """The last of several `--param` of one name counts."""
    assert parse_param_options(["x=1", "y=", "x=2"], {}) == {"x": 2, "y": ""}
