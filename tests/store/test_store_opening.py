"""A store that was found is used only if it can be our own: real folders, not of a clone, not of somebody else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry

from runnable_ci.errors import StoreError
from runnable_ci.runs.paths import run_folder
from runnable_ci.store.local import Layout
from runnable_ci.store.opening import open_store

PIPELINE = """
[steps.a]
run = "echo new > a.txt; echo out; echo err >&2"
catalog = { put = ["a.txt"] }
[steps.b]
run = "exit 1"
catalog = { get = ["a.txt"] }
"""


def snapshot(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project with one failed run, `r`, and a folder beside it that is dear."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "a.txt\n"})
    made.runnable("run", "--run-id", "r", code=1)
    victim = tmp_path / "victim"
    shutil.copytree(made.store, victim / "store")
    (victim / "thesis.tex").write_text("dear")
    return made


def become_link(path: Path, target: Path) -> None:
    """Let something in a store be a link to the same thing elsewhere, or to what is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


LINKS = (
    *(".", "blobs", "blobs/sha256", "runs", "tmp", "index.json", "index.lock", "store.lock"),
    *("runs/r", "runs/r/logs", "runs/r/journal.jsonl", "runs/r/lock", "runs/r/publish.lock", "runs/r/processes"),
)
COMMANDS = {
    "run": ["run", "--run-id", "n"],
    "retry": ["retry", "r"],
    "dry": ["retry", "r", "--dry-run"],
    "runs": ["runs"],
    "show": ["show", "r"],
    "logs": ["logs", "r"],
    "catalog": ["catalog", "r", "--get", "a.txt", "--to", "got"],
    "publish": ["publish", "r", "--to", "127.0.0.1:1/x"],
    "gc": ["gc", "--keep", "0"],
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_in_the_store_is_found(link: str, project: Workspace) -> None:
    """Whatever of the store is a link: it is found when the store is opened, or the run whose it is."""
    victim = project.folder.parent / "victim"
    become_link(project.store / link, victim / "store" / link)
    with pytest.raises(StoreError, match="is a link: a store has real folders and files only") as caught:
        run_folder(open_store(project.folder, {}), "r")
    assert str(project.store / link) in caught.value.message


@pytest.mark.promise
@pytest.mark.parametrize("link", [".", "blobs/sha256", "runs/r", "runs/r/journal.jsonl"])
def test_no_command_goes_through_a_link(link: str, project: Workspace) -> None:
    """No command reads, writes or removes what is at a link's other end."""
    victim = project.folder.parent / "victim"
    become_link(project.store / link, victim / "store" / link)
    before = snapshot(victim)
    for name, words in COMMANDS.items():
        if link.startswith("runs/") and name in ("run", "runs"):
            continue  # of another run, or of none
        assert "is a link" in project.runnable(*words, code=1).err, name
    assert snapshot(victim) == before


@pytest.mark.parametrize("link", [".", "blobs", "runs"])
def test_nothing_is_pulled_through_a_link(link: str, project: Workspace, tmp_path: Path) -> None:
    """A pull does not write into a folder that the clone's author chose."""
    with registry(tmp_path / "registry") as served:
        project.runnable("publish", "r", "--to", f"{served.host}/o/r")
        other = elsewhere(project, tmp_path)
        (tmp_path / "dear").mkdir()
        (other.store if link == "." else other.store / link).parent.mkdir(exist_ok=True)
        (other.store if link == "." else other.store / link).symlink_to("../../dear" if link != "." else "../dear")
        refused = other.runnable("pull", f"{served.host}/o/r:r", code=1)
    assert "is a link" in refused.err
    assert list((tmp_path / "dear").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("runs", Path.touch, "is not a folder"),
        ("blobs/sha256", Path.touch, "is not a folder"),
        ("index.json", Path.mkdir, "is a folder"),
        ("store.lock", Path.mkdir, "is a folder"),
        ("runs/r/journal.jsonl", Path.mkdir, "is a folder"),
        ("runs/r/logs", Path.touch, "is not a folder"),
        ("runs/r/lock", os.mkfifo, "is not a file"),
        ("index.json", os.mkfifo, "is not a file"),
    ],
)
def test_what_is_of_another_kind_is_named(
    name: str, make: Callable[[Path], object], says: str, project: Workspace
) -> None:
    """A folder, file or pipe where another thing belongs is an error that names it; nothing waits, nothing breaks."""
    path = project.store / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)
    done = project.runnable("show", "r", code=1)
    assert done.err.startswith(f"error: {path} {says}")


def test_a_store_that_is_a_file_is_named(project: Workspace) -> None:
    """Reading commands say so as well as writing ones."""
    shutil.rmtree(project.store)
    project.store.touch()
    for words in (["runs"], ["run"], ["gc"], ["show", "latest"]):
        assert f"{project.store} is not a folder" in project.runnable(*words, code=1).err


def test_a_blob_that_is_a_link_or_a_pipe_is_not_read(project: Workspace) -> None:
    """Content behind a link counts as damaged, and is stored again when it is there."""
    layout = Layout(project.store)
    descriptor = layout.put_bytes(b"content", "text/plain")
    path = project.store / "blobs" / "sha256" / descriptor.hex
    (project.folder / "same").write_bytes(b"content")
    path.unlink()
    path.symlink_to(project.folder / "same")
    with pytest.raises(StoreError, match="is not a file"):
        layout.read_bytes(descriptor)
    assert not layout.is_intact(descriptor)
    assert layout.put_bytes(b"content", "text/plain") == descriptor
    assert not path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError):
        layout.read_bytes(descriptor)


def test_a_replaced_file_is_not_kept_behind_a_link(project: Workspace) -> None:
    """Where a retry keeps the user's own file, a link on the way is refused and nothing is written behind it."""
    victim = project.folder.parent / "victim"
    project.write({"sub/a.txt": "mine", "runnable.toml": PIPELINE.replace("a.txt", "sub/a.txt")})
    project.runnable("run", "--run-id", "s", code=1)
    project.write({"sub/a.txt": "my own"})
    (project.store / "runs" / "s" / "replaced").mkdir(exist_ok=True)
    (project.store / "runs" / "s" / "replaced" / "sub").symlink_to(victim)
    before = snapshot(victim)
    refused = project.runnable("retry", "s", code=1)
    assert "is a link" in refused.err
    assert snapshot(victim) == before
    assert project.read("sub/a.txt") == "my own"


# -- of a clone


@pytest.mark.promise
@pytest.mark.parametrize(("folder", "tracked"), [(".", ".gitignore"), ("deep/er", "blobs/sha256/x")])
@pytest.mark.parametrize("setting", ["index.version=2", "index.version=4", "core.splitIndex=true"])
def test_a_store_that_git_tracks_is_refused(tracked: str, folder: str, setting: str, tmp_path: Path) -> None:
    """Whatever of a store a repository holds, and however its index is written, no command uses that store."""
    made = workspace(tmp_path, {"README": "a repository"})
    for name in (f"{folder}/runnable.toml", f"{folder}/.runnable/{tracked}", "z/y", ".runnable-not/x"):
        made.write({name: PIPELINE})
    made.git("config", *setting.split("="))
    made.git("add", "--force", ".")
    made.git("commit", "-qm", "a store")
    made.git("update-index", "--force-write-index")
    for words in (["run"], ["gc", "--keep", "0"]):
        refused = made.runnable(*words, at=folder, code=1)
        assert f"{made.folder / folder / '.runnable'} is tracked by git" in refused.err, words
        assert "git rm -r --cached .runnable" in refused.err
    made.git("rm", "-rq", "--cached", f"{folder}/.runnable")
    made.git("commit", "-qm", "no store")
    made.runnable("run", at=folder, code=1)
    assert len(made.runnable("runs", at=folder).out.splitlines()) == 2


def test_a_store_in_a_submodule_or_a_second_worktree(project: Workspace, tmp_path: Path) -> None:
    """Where `.git` is a file the index that it leads to counts."""
    project.git("worktree", "add", "-q", str(tmp_path / "beside"))
    beside = Workspace(tmp_path / "beside", project.environ)
    beside.runnable("run", code=1)
    beside.git("add", "--force", ".runnable/index.json")
    assert "is tracked by git" in beside.runnable("runs", code=1).err
    assert project.runnable("runs").out


def test_a_store_that_is_itself_a_submodule(project: Workspace) -> None:
    """A repository in the place of the store came with the clone too."""
    subprocess.run(["git", "init", "-q"], cwd=project.store, env=project.environ, check=True)
    git = ["git", "-C", str(project.store), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], env=project.environ, check=True)
    project.git("add", "--force", ".runnable")
    assert "is tracked by git" in project.runnable("runs", code=1).err


def test_a_file_of_a_similar_name_is_none_of_the_store(tmp_path: Path) -> None:
    """Only `.runnable` itself counts, beside the pipeline file."""
    made = workspace(
        tmp_path, {"runnable.toml": PIPELINE, ".runnable.md": "x", "docs/.runnable/a": "x", ".runnables/b": "x"}
    )
    made.runnable("run", code=1)


def test_git_is_started_only_where_its_index_has_the_name(tmp_path: Path) -> None:
    """For a plain index no process is needed to know that a store is not tracked."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": ".runnable\n"})
    made.runnable("run", code=1)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/started\n[ "$1" = version ] && echo git version 2.39.5\n')
    fake.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{made.environ['PATH']}"
    made.runnable("runs", PATH=path)
    assert not (tmp_path / "started").exists()
    made.write({".runnable.md": "x"})
    made.git("add", ".")
    assert "cannot tell whether git tracks" in made.runnable("runs", code=1, PATH=path).err
    assert (tmp_path / "started").exists()


# -- of somebody else

ANOTHER = os.getuid() + 1


def opened(project: Workspace, user: int, **environ: str) -> tuple[Layout, list[str]]:
    """The store as that user opens it, and what is said."""
    said: list[str] = []
    return open_store(project.folder, environ, say=said.append, user=user), said


def test_a_store_of_another_user_is_refused(project: Workspace) -> None:
    """The error names the store, its owner and the setting that trusts it."""
    assert opened(project, os.getuid())[0].folder == project.store
    with pytest.raises(StoreError) as caught:
        opened(project, ANOTHER)
    assert f"{project.store} belongs to another user, number {os.getuid()}" in caught.value.message
    assert f"RUNNABLE_CI_SAFE_STORES={project.folder}" in caught.value.hint
    with pytest.raises(StoreError):
        opened(project, ANOTHER, RUNNABLE_CI_SAFE_STORES=f"{project.folder}-not{os.pathsep}/")


@pytest.mark.parametrize("listed", ["{}", "/nowhere:{}", "{}/", "{}/.runnable", "{}/../project", "*"])
def test_a_store_in_the_list_of_trusted_folders_is_used(listed: str, project: Workspace) -> None:
    """However the folder is written; nothing is said, since the person said it."""
    layout, said = opened(project, ANOTHER, RUNNABLE_CI_SAFE_STORES=listed.format(project.folder))
    assert (layout.folder, said) == (project.store, [])


def test_a_store_that_is_not_there_yet_has_no_owner(tmp_path: Path) -> None:
    """It will be ours."""
    said: list[str] = []
    assert open_store(tmp_path, {}, say=said.append, user=ANOTHER).folder == tmp_path / ".runnable"


ACTIONS = {"GITHUB_ACTIONS": "true"}


def test_root_in_a_job_s_container_uses_the_runner_s_store(project: Workspace) -> None:
    """The workspace is the runner's, the container's user is root: the store is used, and one line says so."""
    if os.getuid() == 0:  # the workspace is to be somebody else's
        for path in (project.folder, *project.folder.rglob("*")):
            os.chown(path, 1001, 1001, follow_symlinks=False)
    environ = {**ACTIONS, "GITHUB_WORKSPACE": str(project.folder.parent / "project")}
    layout, said = opened(project, 0, **environ)
    assert layout.folder == project.store
    (line,) = said
    assert line.startswith(f"note: the store {project.store} belongs to user ")
    outside: list[Mapping[str, str]] = [
        {"GITHUB_WORKSPACE": environ["GITHUB_WORKSPACE"]},
        {**environ, "GITHUB_WORKSPACE": str(project.folder / "elsewhere")},
        {**environ, "GITHUB_WORKSPACE": ""},
        {**ACTIONS},
    ]
    for one in outside:
        with pytest.raises(StoreError, match="belongs to another user"):
            opened(project, 0, **one)
    with pytest.raises(StoreError, match="belongs to another user"):
        opened(project, 4711, **environ)


AS_ANOTHER = """
import os, sys
from runnable_ci.cli.app import app
from runnable_ci.cli.errors import run
user = os.getuid() + 1
os.geteuid = lambda: user
run(app)
"""


@pytest.mark.promise
def test_no_command_uses_a_store_of_another_user(project: Workspace) -> None:
    """Each of them asks whose the store is, and uses it once it is trusted."""

    def another(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {**project.environ, **variables}
        command = [sys.executable, "-c", AS_ANOTHER, *words]
        return subprocess.run(command, cwd=project.folder, env=environ, capture_output=True, text=True, timeout=60)

    before = snapshot(project.store)
    for words in (*COMMANDS.values(), ["pull", "127.0.0.1:1/x:y"], ["checkout", "r", "there"]):
        refused = another(*words)
        assert (refused.returncode, "belongs to another user" in refused.stderr) == (1, True), (words, refused.stderr)
    assert snapshot(project.store) == before
    shown = another("show", "r", RUNNABLE_CI_SAFE_STORES=str(project.folder))
    assert (shown.returncode, shown.stderr, "FAIL" in shown.stdout) == (0, "", True)
