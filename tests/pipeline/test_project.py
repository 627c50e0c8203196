"""Tests of the pipeline file on disk: which one is meant, what is wrong with it, and a run's parameters."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.project import (
    find_file,
    find_store,
    load,
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
    assert caught.value.message == "pyproject.toml:2: [tool.runnable-ci.steps.a] unknown key `rum`"


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
    with pytest.raises(PipelineError, match=r"runnable.toml(:[12])? is not TOML: ") as caught:
        load(None)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)


def test_pyproject_that_is_not_toml(folder: Path) -> None:
    """A broken pyproject.toml with our table in it is named; one without is somebody else's."""
    write(folder, f"[tool.runnable-ci]\n{GREET}\n[tool.ruff\n", "pyproject.toml")
    with pytest.raises(PipelineError, match=r"pyproject.toml:4 is not TOML: "):
        load(None)
    write(folder, "[tool.ruff", "pyproject.toml")
    with pytest.raises(PipelineError, match=r"there is no runnable\.toml"):
        load(None)


def test_file_that_cannot_be_read(folder: Path) -> None:
    """A file that is no text is one error too."""
    (folder / "runnable.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(PipelineError, match=r"runnable.toml cannot be read: line 1 is not UTF-8 text") as caught:
        load(None)
    assert caught.value.hint == "save it as UTF-8"


def test_byte_order_mark(folder: Path) -> None:
    """The mark that some editors begin a file with is no part of it."""
    (folder / "runnable.toml").write_text(GREET, encoding="utf-8-sig")
    assert list(load(None).pipeline.steps) == ["greet"]


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
    assert caught.value.message == "runnable.toml:2: [steps.a] python: module.py has no function `plane`"
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
