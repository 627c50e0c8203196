"""Tests of `runnable-ci workflow`: where it writes, what it never replaces, and how it finds that a file is stale."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace
from test_workflows import lint_workflows

from runnable_ci.github.job_graph.workflow_file import MARK

PIPELINE = """\
name = "iris"
[steps.load]
run = "true"
[steps.each]
run = "true"
strategy = { matrix = { v = ["a", "b"] } }
"""
FILE = ".github/workflows/iris.yml"


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline in a repository."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE})


def test_it_is_written_once_and_found_stale(project: Workspace) -> None:
    """Again it is up to date; after a change of the pipeline `--check` fails with the command that writes it."""
    said = project.runnable("workflow").out
    assert said.startswith(f"wrote {FILE}\nnext:\n- Commit it and merge it into ")
    assert "`setup` or `setup-action` in [workflow]" in said
    lint_workflows([project.folder / FILE])
    first = project.read(FILE)
    assert first.startswith(f"{MARK}\nname: iris\n")
    for words in ([], ["--check"], ["--force"]):
        assert project.runnable("workflow", *words).out == f"{FILE} is up to date\n"
    project.replace("runnable.toml", '"b"', '"b", "c"')
    told = project.runnable("workflow", "--check", code=1).err
    assert told == f"error: {FILE} is not what runnable.toml gives\nhint: `runnable-ci workflow` writes it\n"
    assert project.read(FILE) == first
    assert project.runnable("workflow").out == f"wrote {FILE}\n"
    assert "instance: [a, b, c]" in project.read(FILE)
    project.runnable("workflow", "--check")


def test_what_jobs_do_not_depend_on_makes_nothing_stale(project: Workspace) -> None:
    """A script or a parameter is no part of the workflow."""
    project.runnable("workflow")
    project.replace("runnable.toml", 'run = "true"', 'run = "echo other"')
    project.runnable("workflow", "--check")


def test_a_file_of_others_stays(project: Workspace) -> None:
    """It is replaced with `--force` alone, and `--check` says so."""
    project.write({FILE: "on: push\n"})
    told = project.runnable("workflow", code=2).err
    assert told.startswith(f"error: {FILE} was not written by this command; it stays\n")
    assert "`runnable-ci workflow --force`" in told
    assert "`runnable-ci workflow --force` writes it" in project.runnable("workflow", "--check", code=1).err
    assert project.read(FILE) == "on: push\n"
    project.runnable("workflow", "--force")
    assert project.read(FILE).startswith(MARK)


def test_a_file_that_does_not_exist(project: Workspace) -> None:
    """`--check` writes nothing."""
    told = project.runnable("workflow", "--check", code=1).err
    assert told == f"error: {FILE} does not exist\nhint: `runnable-ci workflow` writes it\n"
    assert not (project.folder / ".github").exists()


def test_from_another_folder_into_another_file(tmp_path: Path) -> None:
    """The pipeline is named from the root of the repository; the printed command has file and output."""
    files = {"m l/night.toml": PIPELINE, "docs/x": "", "runnable.toml": '[steps.other]\nrun = "true"\n'}
    project = workspace(tmp_path, files)
    said = project.runnable("workflow", "../m l/night.toml", "-o", "a b/flow.yml", at="docs").out
    assert "`runnable-ci workflow '../m l/night.toml' -o 'a b/flow.yml' --check` fails where it is stale" in said
    text = project.read("docs/a b/flow.yml")
    assert 'pipeline: "m l/night.toml"' in text
    project.write({"docs/a b/flow.yml": f"{text}\n"})
    words = ("workflow", "../m l/night.toml", "-o", "a b/flow.yml")
    told = project.runnable(*words, "--check", code=1, at="docs").err
    assert "hint: `runnable-ci workflow '../m l/night.toml' -o 'a b/flow.yml'` writes it" in told
    project.runnable(*words, at="docs")
    assert project.read("docs/a b/flow.yml") == text
    project.runnable("workflow", "m l/night.toml")
    assert project.read(FILE) == text


def test_a_clone_has_the_same_file(tmp_path: Path, project: Workspace) -> None:
    """Whatever the clone's folder is called, with a pipeline that has no name."""
    project.write({"runnable.toml": PIPELINE.partition("\n")[2]})
    project.runnable("workflow")
    assert (project.folder / ".github/workflows/pipeline.yml").exists()
    project.commit()
    project.git("clone", "-q", ".", str(tmp_path / "other name"))
    clone = Workspace(tmp_path / "other name", project.environ)
    clone.runnable("workflow", "--check")


def test_the_default_branch_is_looked_at_once(project: Workspace) -> None:
    """It is no part of the file, which would differ between clones; a note says what to write."""
    project.git("branch", "-m", "trunk")
    told = project.runnable("workflow").err
    assert "note: it starts at pushes to `main`, and the default branch here is `trunk`: say `on`" in told
    project.replace("runnable.toml", "[steps.load]", "[workflow]\non = { push = {} }\n[steps.load]")
    (project.folder / FILE).unlink()
    assert "note: " not in project.runnable("workflow").err


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ({}, ["-o", "made"], "made cannot be read: "),
        ({"x": ""}, ["-o", "x/y.yml"], "x/y.yml cannot be "),
        ({"runnable.toml": "[steps.a]\nrun = 3\n"}, [], "[steps.a] run: must be a string"),
        ({"runnable.toml": f"{PIPELINE}job = 'x'\n[workflow]\naction-ref = 'a b'\n"}, [], "action-ref 'a b' is not a"),
        ({"runnable.toml": f"{PIPELINE}[workflow]\nsetup-action = 'x/y@v1'\n"}, [], "setup-action: must be the path"),
    ],
)
def test_what_cannot_be_written(project: Workspace, files: dict[str, str], words: list[str], message: str) -> None:
    """An error that says why, and no file."""
    (project.folder / "made").mkdir()
    project.write(files)
    done = project.runnable("workflow", *words, code=2)
    assert f"error: {message}" in done.err or f" {message}" in done.err
    assert "hint: " in done.err
    assert not (project.folder / ".github").exists()


def test_outside_of_a_repository(tmp_path: Path) -> None:
    """There is no place for a workflow."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE}, git=False)
    assert "workflows belong to a repository" in project.runnable("workflow", code=2).err
