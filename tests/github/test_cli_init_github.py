"""Tests of `runnable-ci init --github`."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from test_workflows import lint_workflows, parsed, steps

ROOT = Path(__file__).parents[2]
STEP = "[steps.a]\nrun = 'true'\n"
COMMIT = "3d3c42e5aac5ba805825da76410c181273ba90b1"
FOLDER = ".github/workflows"


def written(project: Workspace) -> list[Path]:
    """The workflows of a repository."""
    return sorted((project.folder / FOLDER).glob("*"))


def action_step(file: Path) -> dict[str, Any]:
    """The step that uses the action."""
    (step,) = (step for step in steps(file) if step["uses"].startswith("runnable/action@"))
    return step


@pytest.mark.parametrize("options", [[], ["--action-ref", COMMIT], ["--action-ref", "v1.2.3"]])
def test_linters_find_nothing_in_what_is_written(tmp_path: Path, options: list[str]) -> None:
    """Both workflows pass the linters, for every kind of version."""
    project = workspace(tmp_path, {"my pipelines/iris/runnable.toml": STEP})
    project.runnable("init", "--github", *options, at="my pipelines/iris")
    ci, retry = written(project)
    assert (ci.name, retry.name) == ("ci.yml", "retry.yml")
    lint_workflows([ci, retry])


def test_a_new_repository(tmp_path: Path) -> None:
    """Without a pipeline a starter is written too; the workflows are those that users copy; it says what to do next."""
    project = workspace(tmp_path, {}, git=False)
    project.git("init", "-q")
    said = project.runnable("init", "--github").out
    assert said.startswith("wrote .github/workflows/ci.yml, .github/workflows/retry.yml, runnable.toml\nnext:\n")
    assert "default branch" in said
    assert '"Manage Actions access" there, add the repository with the role Write' in said
    for file in written(project):
        assert file.read_bytes() == (ROOT / "workflows" / file.name).read_bytes()
    assert project.read(".gitignore") == ".runnable/\n"
    project.runnable("run")
    assert project.runnable("init", "--github").out.startswith("nothing to do\n")


def test_a_repository_on_another_server_is_told_to_name_a_registry(tmp_path: Path) -> None:
    """Its runs do not go to ghcr.io, which is github.com's."""
    project = workspace(tmp_path, {"runnable.toml": STEP})
    project.git("remote", "add", "origin", "https://ghe.example.org/octo/flowers.git")
    said = project.runnable("init", "--github").out
    assert "- Set a registry for the runs: `registry` in the pipeline file, or `registry:` where the workflows" in said
    assert "ghcr.io belongs to github.com, and ghe.example.org is another server." in said
    assert "Runs are published to" not in said


def test_a_pipeline_in_a_folder(tmp_path: Path) -> None:
    """The workflows go to the root of the repository and name the pipeline's folder, found from below or given."""
    project = workspace(tmp_path, {'data/a "b" é #1/runnable.toml': STEP, 'data/a "b" é #1/src/x.py': ""})
    project.runnable("init", "--github", at='data/a "b" é #1/src')
    by_search = {file.name: file.read_bytes() for file in written(project)}
    ci, retry = written(project)
    assert action_step(ci)["with"]["pipeline"] == 'data/a "b" é #1'
    assert action_step(retry)["with"]["pipeline"] == """${{ inputs.pipeline || 'data/a "b" é #1' }}"""
    for file in (ci, retry):
        file.unlink()
    assert not (project.folder / "data" / 'a "b" é #1' / "src" / "runnable.toml").exists()
    project.runnable("init", "--github", '../data/a "b" é #1', at="data")
    assert {file.name: file.read_bytes() for file in written(project)} == by_search
    project.runnable("init", "--github", "other", code=2)
    (project.folder / "other").mkdir()
    told = project.runnable("init", "--github", "other", code=2).err
    assert ".github/workflows/ci.yml already exists with other content; nothing was written" in told
    assert not (project.folder / "other" / "runnable.toml").exists()


def test_a_pipeline_above_the_repository_is_another(tmp_path: Path) -> None:
    """A pipeline file that git does not know here is not taken for the repository's."""
    (tmp_path / "runnable.toml").write_text(STEP)
    project = workspace(tmp_path, {"x.py": ""})
    project.runnable("init", "--github")
    assert (project.folder / "runnable.toml").exists()
    assert action_step(written(project)[0])["with"]["pipeline"] == "."


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file with other content stops it all; what to add to it is shown, and the other workflow can be had alone."""
    project = workspace(tmp_path, {f"{FOLDER}/ci.yml": "on: push\n"})
    told = project.runnable("init", "--github", code=2).err
    assert told.startswith("error: .github/workflows/ci.yml already exists with other content; nothing was written\n")
    assert "      - uses: runnable/action@v1 # " in told
    assert '          pipeline: "."\n`runnable-ci init --github --only retry` writes only retry.yml\n' in told
    assert project.git("status", "--porcelain") == ""
    project.runnable("init", "--github", "--only", "retry")
    assert [file.name for file in written(project)] == ["ci.yml", "retry.yml"]
    assert project.read(f"{FOLDER}/ci.yml") == "on: push\n"
    assert "--only" not in project.runnable("init", "--github", "--only", "ci", code=2).err


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Where the folder of workflows cannot be made, no starter is left behind either, nor a first workflow."""
    project = workspace(tmp_path, {".github": "a file"})
    told = project.runnable("init", "--github", code=2).err
    assert told.startswith("error: .github/workflows/ci.yml cannot be written: ")
    project = workspace(tmp_path, {f"{FOLDER}/retry.yml/x": ""}, name="other")
    assert "retry.yml already exists" in project.runnable("init", "--github", code=2).err
    assert [file.name for file in written(project)] == ["retry.yml"]
    assert not (project.folder / "runnable.toml").exists()


@pytest.mark.parametrize(
    ("ref", "line"),
    [
        ("v1", "runnable/action@v1 # zizmor: ignore[unpinned-uses] v1 gets fixes"),
        ("v1.2.3", "runnable/action@v1.2.3 # zizmor: ignore[unpinned-uses] set by --action-ref"),
        ("feature/x+y", "runnable/action@feature/x+y # zizmor: ignore[unpinned-uses] "),
        ("20240101", "runnable/action@20240101 # zizmor: ignore[unpinned-uses] "),
        (COMMIT.upper(), f"runnable/action@{COMMIT} # a commit"),
    ],
)
def test_the_version_of_the_action(tmp_path: Path, ref: str, line: str) -> None:
    """`--action-ref` stands in both workflows, with why it is allowed unless it is a commit."""
    project = workspace(tmp_path, {"runnable.toml": STEP})
    project.runnable("init", "--github", "--action-ref", ref)
    for file in written(project):
        assert f"\n      - uses: {line}" in file.read_text()
        assert action_step(file)["uses"] == line.split()[0]


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        (COMMIT[:12], "GitHub requires all 40 digits"),
        ("", "such as v1"),
        ("v1 # x", "such as v1"),
        ("${{ github.ref }}", "such as v1"),
        ("../other@v1", "such as v1"),
        ("v1\n      - run: evil", "such as v1"),
        ("a..b", "such as v1"),
    ],
)
def test_no_version_of_the_action(tmp_path: Path, ref: str, hint: str) -> None:
    """What is no version, branch or whole commit is refused before anything is written."""
    project = workspace(tmp_path, {"runnable.toml": STEP})
    told = project.runnable("init", "--github", "--action-ref", ref, code=2).err
    assert told.startswith("error: --action-ref ")
    assert hint in told
    assert not (project.folder / ".github").exists()


def branch(project: Workspace) -> str:
    """The branch whose pushes start the written workflow."""
    (found,) = parsed(written(project)[0])["on"]["push"]["branches"]
    assert isinstance(found, str)
    return found


def test_the_default_branch(tmp_path: Path) -> None:
    """It is what the remote calls its HEAD; else main or master; else the current branch."""
    origin = workspace(tmp_path, {"runnable.toml": STEP}, name="origin")
    origin.git("checkout", "-qb", "release/+1")
    origin.git("branch", "main-2")
    clone = Workspace(tmp_path / "clone", origin.environ)
    origin.git("clone", "-q", ".", str(clone.folder))
    clone.git("checkout", "-qb", "topic")
    clone.runnable("init", "--github", "--only", "ci")
    assert branch(clone) == r"release/\+1"
    origin.runnable("init", "--github", "--only", "ci")
    assert branch(origin) == "main"
    detached = workspace(tmp_path, {"runnable.toml": STEP}, name="detached")
    detached.git("checkout", "-q", "--detach")
    detached.git("branch", "-m", "main", "master")
    detached.runnable("init", "--github", "--only", "ci")
    assert branch(detached) == "master"
    fresh = workspace(tmp_path, {"runnable.toml": STEP}, git=False, name="fresh")
    fresh.git("init", "-qb", "trunk")
    fresh.runnable("init", "--github", "--only", "ci")
    assert branch(fresh) == "trunk"


def test_where_there_is_no_repository(tmp_path: Path) -> None:
    """Workflows belong to a repository, and a folder must be one that a workflow can name."""
    project = workspace(tmp_path, {"runnable.toml": STEP}, git=False)
    told = project.runnable("init", "--github", code=2).err
    assert "is not in a git repository" in told
    assert "hint: run `git init` first" in told
    assert "--github" in project.runnable("init", "--action-ref", "v1", code=2).err
    project = workspace(tmp_path, {"${{ x }}/runnable.toml": STEP}, name="other")
    assert "cannot be used in a workflow" in project.runnable("init", "--github", at="${{ x }}", code=2).err


def test_it_works_from_a_wheel(tmp_path: Path) -> None:
    """A wheel of this tree carries the workflows: they are written by a program that is installed from it."""
    environment = tmp_path / "environment"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True, timeout=300)
    # The libraries come from the tests' environment. Its own .pth files, with the tree in them, are not read from here.
    (packages,) = (environment / "lib").glob("python*/site-packages")
    installed = packages.parent.relative_to(environment)
    (packages / "libraries.pth").write_text(str(Path(sys.prefix) / installed / "site-packages") + os.linesep)
    project = workspace(tmp_path, {}, git=False)
    project.git("init", "-q")
    where = [str(python), "-c", "import runnable_ci; print(runnable_ci.__file__)"]
    module = subprocess.check_output(where, cwd=project.folder, env=project.environ, text=True)
    assert Path(module).is_relative_to(packages)
    command = [str(environment / "bin" / "runnable-ci"), "init", "--github", "--action-ref", COMMIT]
    subprocess.run(command, cwd=project.folder, env=project.environ, check=True, timeout=60)
    assert [action_step(file)["uses"] for file in written(project)] == [f"runnable/action@{COMMIT}"] * 2
