"""All commands use one store: the one beside the nearest pipeline file, and none above the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import Workspace, workspace
from registry_server import registry

from runnable_ci import open_run

STEP = '[steps.{}]\nrun = "exit 1"\n'


@pytest.fixture
def inner(tmp_path: Path) -> Workspace:
    """A repository with a run `inner`, in the folder of another project, which has a run `outer`."""
    outer = workspace(tmp_path, {"runnable.toml": STEP.format("outer")}, git=False, name="outer")
    outer.runnable("run", "--run-id", "outer", code=1)
    files = {"runnable.toml": STEP.format("inner"), "a/b/file": "", "lab/x.toml": STEP.format("x")}
    made = workspace(tmp_path, files, name="outer/in")
    made.runnable("run", "--run-id", "inner", code=1)
    return made


WITH_RUN = {
    "show": (["show"], 0),
    "logs": (["logs"], 0),
    "catalog": (["catalog"], 0),
    "plan": (["retry", "--dry-run"], 0),
    "retry": (["retry"], 1),
    "publish": (["publish", "--to", "127.0.0.1:1/x"], 1),
    "checkout": (["checkout", "there"], 0),
}


@pytest.mark.parametrize("command", WITH_RUN)
@pytest.mark.parametrize("at", [".", "a/b"])
def test_a_run_is_looked_for_in_the_repository_s_own_store(command: str, at: str, inner: Workspace) -> None:
    """Wherever in the repository the command is typed; the other project's runs are not there."""
    (verb, *more), code = WITH_RUN[command]
    unknown = inner.runnable(verb, "outer", *more, at=at, code=2)
    assert f"no run `outer` in {inner.store}" in unknown.err
    inner.runnable(verb, "inner", *more, at=at, code=code)


def test_lists_and_removals_are_of_the_repository_s_own_store(inner: Workspace) -> None:
    """`runs`, `run`, `gc` and a notebook see it too; `gc` says which it is, and leaves the other alone."""
    listed = json.loads(inner.runnable("runs", "--json", at="a/b").out)
    assert [run["run_id"] for run in listed] == ["inner"]
    inner.runnable("run", "--run-id", "second", at="a", code=1)
    assert (inner.store / "runs" / "second").is_dir()
    removed = inner.runnable("gc", "--keep", "1", at="a/b")
    assert removed.out == "inner\n"
    assert removed.err.startswith(f"store: {inner.store}\n")
    outer = Workspace(inner.folder.parent, inner.environ)
    assert outer.log("outer").run_id == "outer"
    assert open_run("latest", inner.folder).run_id == "second"


def test_a_run_is_pulled_into_the_repository_s_own_store(inner: Workspace, tmp_path: Path) -> None:
    """Also the first one, before there is a store."""
    with registry(tmp_path / "registry") as served:
        inner.runnable("publish", "inner", "--to", f"{served.host}/o/r")
        inner.runnable("gc", "--keep", "0")
        for path in sorted(inner.store.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        inner.store.rmdir()
        inner.runnable("pull", f"{served.host}/o/r:inner", at="a/b")
    assert (inner.store / "runs" / "inner").is_dir()
    assert not (inner.folder / "a" / "b" / ".runnable").exists()


def test_a_pipeline_file_further_down_has_its_own(inner: Workspace) -> None:
    """One that is named keeps its runs beside it, and `--store` leads there from anywhere."""
    inner.runnable("run", "lab/x.toml", "--run-id", "x", code=1)
    assert (inner.folder / "lab" / ".runnable" / "runs" / "x").is_dir()
    assert "no run `x`" in inner.runnable("show", "x", code=2).err
    for where in ("lab", "lab/.runnable", str(inner.folder / "lab")):
        inner.runnable("show", "x", "--store", where)
    assert "no runs in" in inner.runnable("show", "x", "--store", "a/b", code=2).err
    inner.write({"a/runnable.toml": STEP.format("deep")})
    inner.runnable("run", "--run-id", "deep", at="a/b", code=1)
    assert (inner.folder / "a" / ".runnable" / "runs" / "deep").is_dir()


def test_without_git_the_current_folder_counts(tmp_path: Path) -> None:
    """What lies above is not used, and where a pipeline file is there, the error names it."""
    project = workspace(tmp_path, {"runnable.toml": STEP.format("a"), "sub/file": ""}, git=False)
    project.runnable("run", "--run-id", "above", code=1)
    assert f"no runs in {project.folder / 'sub' / '.runnable'}" in project.runnable("runs", at="sub").err
    assert project.runnable("gc", at="sub", code=2).err.startswith("error: there is no store in")
    refused = project.runnable("run", at="sub", code=2)
    assert f"hint: {project.folder / 'runnable.toml'} is in a parent folder" in refused.err
    project.git("init", "-q")
    assert "above" in project.runnable("runs", at="sub").out


def test_a_repository_without_a_pipeline_file_uses_the_current_folder(tmp_path: Path) -> None:
    """What is pulled there stays there."""
    project = workspace(tmp_path, {"sub/file": ""})
    assert str(project.folder / "sub" / ".runnable") in project.runnable("runs", at="sub").err
    assert str(project.folder / ".runnable") in project.runnable("runs").err
