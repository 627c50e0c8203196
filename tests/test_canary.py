"""Whatever a repository names as a program: no command of ours starts it, in whatever place it is named."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from github_api import GitHub, github
from registry_server import registry

PIPELINE = """
[steps.make]
run = "echo made > made.txt"
catalog = { put = ["made.txt"] }
[steps.stop]
run = "false"
"""
PROGRAMS = b"""
[core]
	fsmonitor = {0} fsmonitor
	sshCommand = {0} sshCommand
	gitProxy = {0}
	askPass = {0}
	editor = {0} editor
	pager = {0} pager
	alternateRefsCommand = {0} alternateRefsCommand
	hooksPath = {1}
[credential]
	helper = !{0} credential.helper
[diff]
	external = {0}
[diff "x"]
	command = {0} diff.command
	textconv = {0} diff.textconv
[merge "x"]
	driver = {0} merge.driver
[filter "one"]
	clean = {0} filter.one.clean
	smudge = {0} filter.one.smudge
	required = true
[filter "long"]
	process = {0} filter.long.process
[filter "lfs"]
	clean = {0} filter.lfs.clean %f
	smudge = {0} filter.lfs.smudge %f
	process = {0} filter.lfs.process
	required = true
[filter "a.b=c"]
	clean = {0} filter.dotted.clean
[filter ""]
	clean = {0} filter.empty.clean
[gpg]
	program = {0}
[log]
	showSignature = true
[status]
	submoduleSummary = true
[submodule]
	recurse = true
[fetch]
	recurseSubmodules = true
[uploadpack]
	packObjectsHook = {0} packObjectsHook
[hook "x"]
	command = {0} hook
	event = post-index-change
	event = reference-transaction
	event = post-checkout
[remote "origin"]
	url = git@github.com:owner/repo.git
	uploadpack = {0} uploadpack
	promisor = true
	partialclonefilter = blob:none
	fetch = +refs/heads/*:refs/remotes/origin/*
"""
ODD_FILTER = b'[filter "\xff"]\n\tclean = {0} filter.odd.clean\n'
ATTRIBUTES = b"""
*.one filter=one diff=x merge=x
*.config filter=config
*.more filter=more
*.worktree filter=config.worktree
*.modules filter=modules
*.long filter=long
*.lfs filter=lfs
*.dot filter=a.b=c
*.empty filter=
*.odd filter=\xff
"""
KINDS = ("one", "long", "lfs", "dot", "empty", "odd", "config", "more", "worktree", "modules")
SUBMODULES = """
[submodule "there"]
	path = there
	url = file://{0}
[submodule "ext"]
	path = ext
	url = ext::{1} ext
[submodule "beside"]
	path = beside
	url = ../library
"""


class Trap:
    """A program that writes down that it was started, and settings that name it wherever git knows a program."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.program = folder / "program"
        self.started = folder / "started"
        self.program.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {self.started}\nexit 1\n')
        self.program.chmod(0o755)
        self.hooks = folder / "hooks"
        self.hooks.mkdir()
        for hook in ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
            (self.hooks / hook).symlink_to(self.program)

    @property
    def settings(self) -> bytes:
        """A file of settings."""
        found = PROGRAMS + ODD_FILTER
        return found.replace(b"{0}", bytes(self.program)).replace(b"{1}", bytes(self.hooks))

    def names(self) -> list[str]:
        """Return what was started."""
        return self.started.read_text().splitlines() if self.started.exists() else []


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    """A trap of its own."""
    return Trap(tmp_path / "trap")


@pytest.fixture
def project(tmp_path: Path, trap: Trap) -> Workspace:
    """A repository with a file of each filter, whose submodules come from this machine, with a changed file of each."""
    library = workspace(tmp_path, {"lib.py": "", "lib.modules": ""}, name="library")
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, **{f"{kind}.{kind}": "first\n" for kind in KINDS}})
    for kind in KINDS:
        (made.folder / f"edit.{kind}").write_text("first\n")
        (made.folder / f"touch.{kind}").write_text("first\n")
    made.git("add", ".")
    for path in ("there", "ext", "beside"):
        made.git("update-index", "--add", "--cacheinfo", f"160000,{library.git('rev-parse', 'HEAD')},{path}")
    (made.folder / ".gitmodules").write_text(SUBMODULES.format(library.folder, trap.program))
    made.git("-c", "protocol.file.allow=always", "clone", "-q", str(library.folder), "filled")
    (made.folder / ".gitattributes").write_bytes(ATTRIBUTES)
    (made.folder / "filled/.gitattributes").write_bytes(ATTRIBUTES)
    for path in ("there", "ext", "beside"):
        (made.folder / path).mkdir()
    made.git("add", ".gitmodules", ".gitattributes")
    made.git("-c", "advice.addEmbeddedRepo=false", "add", "filled")
    made.git("commit", "-qm", "all")
    for kind in KINDS:
        (made.folder / f"edit.{kind}").write_text("second\n")
        (made.folder / f"new.{kind}").write_text("new\n")
        (made.folder / f"touch.{kind}").write_text("first\n")
    (made.folder / "filled/lib.modules").write_text("second\n")
    return made


def spread(project: Workspace, trap: Trap) -> None:
    """Have the settings in each place from which git reads some: a later one does not take an earlier one away."""
    own = project.folder / ".git"
    for name in ("config", "config.worktree", "more", "modules"):
        path = project.folder / "filled/.git/config" if name == "modules" else own / name
        earlier = path.read_bytes() if path.exists() else b""
        path.write_bytes(earlier + trap.settings.replace(b'"one"', f'"{name}"'.encode()))
    project.git("config", "extensions.worktreeConfig", "true")
    project.git("config", "includeIf.onbranch:main.path", "more")
    for hook in trap.hooks.iterdir():
        (own / "hooks" / hook.name).unlink(missing_ok=True)
        (own / "hooks" / hook.name).symlink_to(trap.program)


@pytest.fixture
def server(project: Workspace) -> Iterator[GitHub]:
    """A GitHub that has the branch."""
    with github() as served:
        served.git = project.folder
        yield served


@pytest.mark.promise
def test_no_command_starts_what_a_repository_names(
    project: Workspace, trap: Trap, server: GitHub, tmp_path: Path
) -> None:
    """Neither looking, running, resuming, rebuilding, sending nor asking GitHub; git itself, asked plainly, would."""
    spread(project, trap)
    client = Workspace(project.folder, {**project.environ, **server.variables})
    project.runnable("check")
    project.runnable("run", "--dry-run")
    project.runnable("run", "--run-id", "r", code=1)
    project.runnable("retry", "r", "--dry-run")
    (project.folder / "edit.one").write_text("third\n")
    project.runnable("retry", "r", code=1)
    for words in (["runs"], ["show", "r"], ["logs", "r"], ["catalog", "r"], ["gc"]):
        project.runnable(*words)
    rebuilt = project.runnable("checkout", "r", str(tmp_path / "rebuilt"), code=1)
    assert rebuilt.err.count("a submodule: commit") == len(("there", "ext", "beside"))
    assert "touch.long: git's filter `long` was not run" in rebuilt.err
    assert not list((tmp_path / "rebuilt/there").iterdir())
    client.runnable("dispatch", "r")
    client.runnable("init", "--github")
    with registry(tmp_path / "registry") as served:
        project.runnable("publish", "r", "--to", f"{served.host}/o/r")
        project.runnable("pull", f"{served.host}/o/r:r")
    assert trap.names() == []
    for where in (".", "filled"):
        for words in (["status"], ["diff"], ["log", "-1"], ["add", "."]):
            subprocess.run(["git", "-C", where, *words], cwd=project.folder, env=project.environ, capture_output=True)
    assert len(set(trap.names())) > len(KINDS), trap.names()


OBJECTS = """
[steps.make]
python = "work:make"
returns = { model = "object" }
[steps.use]
python = "work:use"
"""
WORK = """
from pathlib import Path

class Model:
    def __reduce__(self):
        return Path.touch, (Path("started"),)

def make():
    return Model()

def use(model):
    raise ValueError
"""


@pytest.mark.promise
def test_only_the_step_that_takes_an_object_loads_it(tmp_path: Path) -> None:
    """To plan, send, fetch, list, show and rebuild a run executes nothing of it."""
    project = workspace(tmp_path, {"runnable.toml": OBJECTS, "work.py": WORK, ".gitignore": "started\n"})
    project.runnable("run", "--run-id", "r", code=1)
    (project.folder / "started").unlink()
    with registry(tmp_path / "registry") as served:
        reference = f"{served.host}/o/r"
        project.runnable("publish", "r", "--to", reference)
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{reference}:r")
        other.runnable("runs", "--from", reference)
    for words in (["runs"], ["show", "r"], ["logs", "r"], ["catalog", "r"], ["retry", "r", "--dry-run"], ["gc"]):
        other.runnable(*words)
    other.runnable("checkout", "r", "rebuilt")
    assert not list(other.folder.rglob("started"))
    other.runnable("retry", "r", code=1)
    assert (other.folder / "started").exists()


@pytest.mark.promise
def test_a_repository_that_a_clone_brings_as_files_starts_nothing(tmp_path: Path, trap: Trap) -> None:
    """In the folder of a bare repository that lies in a clone a pipeline runs, without its settings."""
    files = {f"in/{name}": text for name, text in {"runnable.toml": PIPELINE, "HEAD": "ref: refs/heads/x\n"}.items()}
    made = workspace(tmp_path, {**files, "in/a.one": "", "in/objects/.keep": "", "in/refs/.keep": ""})
    own = b"[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\n"
    (made.folder / "in/config").write_bytes(own + trap.settings)
    (made.folder / "in/.gitattributes").write_bytes(ATTRIBUTES)
    made.runnable("run", "--run-id", "r", at="in", code=1)
    for words, code in ((["retry", "r", "--dry-run"], 0), (["retry", "r"], 1), (["show", "r"], 0)):
        made.runnable(*words, at="in", code=code)
    assert "no commit" in made.runnable("checkout", "r", "../rebuilt", at="in", code=1).err
    assert trap.names() == []
    subprocess.run(["git", "add", "a.one"], cwd=made.folder / "in", env=made.environ, capture_output=True)
    assert trap.names() != []


@pytest.mark.promise
def test_a_run_from_elsewhere_leads_to_no_repository_of_this_machine(tmp_path: Path) -> None:
    """A `file:` URL of a run log is no source of its code; that of a remote is one, as its user named it."""
    private = workspace(tmp_path, {"private.txt": "private\n"}, name="private")
    made = workspace(tmp_path, {"runnable.toml": PIPELINE})
    made.git("pull", "-q", "--allow-unrelated-histories", "--no-rebase", private.folder.as_uri())
    private.git("pull", "-q", made.folder.as_uri(), "main")
    made.git("remote", "add", "origin", private.folder.as_uri())
    made.runnable("run", "--run-id", "r", code=1)
    here = workspace(tmp_path, {}, git=False, name="here")
    shutil.copytree(made.store, here.store)
    refused = here.runnable("checkout", "r", str(tmp_path / "rebuilt"), code=1)
    assert "not found in any source" in refused.err
    assert not (tmp_path / "rebuilt").exists()
    here.git("init", "-q")
    here.git("remote", "add", "origin", private.folder.as_uri())
    here.runnable("checkout", "r", str(tmp_path / "rebuilt"))
    assert (tmp_path / "rebuilt/private.txt").exists()
