"""Tests of `runnable-ci checkout`: the code of a run, exactly as it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cli import Workspace, elsewhere, workspace


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Name → content and whether it may be executed, of all files outside `.git` and `.runnable`."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".runnable"}.intersection(path.relative_to(folder).parts)
    }


def test_rebuilds_a_dirty_run(tmp_path: Path) -> None:
    """Committed, staged, modified, deleted, untracked and binary files come back as the run had them."""
    files = {"a.py": "a\n", "b.py": "b\n", "gone.py": "gone\n", "staged.py": "s\n"}
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", **files})
    commit = project.git("rev-parse", "HEAD")
    project.write({"a.py": "a\nmodified\n", "staged.py": "staged\n", "sub/new.py": "new\n"})
    project.git("add", "staged.py")
    project.write({"staged.py": "staged and modified\n"})
    (project.folder / "gone.py").unlink()
    (project.folder / "binary.dat").write_bytes(bytes(range(256)))
    (project.folder / "run.sh").write_text("true\n")
    (project.folder / "run.sh").chmod(0o755)
    expected = tree(project.folder)
    project.runnable("run", "--run-id", "r")
    project.git("add", ".")
    project.git("commit", "-qm", "later")
    project.write({"a.py": "later still\n"})
    done = project.runnable("checkout", "r", "../rebuilt")
    rebuilt = Workspace(tmp_path / "rebuilt", project.environ)
    assert done.out.startswith(f"../rebuilt: {commit}, with ")
    assert tree(rebuilt.folder) == expected
    assert rebuilt.git("rev-parse", "HEAD") == commit
    assert rebuilt.git("diff", "--name-only", "HEAD", "refs/runnable/code").split() == sorted(
        ["a.py", "binary.dat", "gone.py", "run.sh", "staged.py", "sub/new.py"]
    )
    again = project.runnable("checkout", "r", "../rebuilt", code=2)
    assert again.err.startswith("error: ")
    assert tree(rebuilt.folder) == expected


def test_submodules(tmp_path: Path) -> None:
    """A changed submodule comes back as the run had it; the exit code tells that its commit is nowhere to be had."""
    library = workspace(tmp_path, {"a": "a\n"}, name="library")
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"})
    project.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.folder), "lib")
    project.commit()
    project.write({"lib/a": "a\nb\n", "lib/new": "new\n"})
    expected = tree(project.folder)
    project.runnable("run", "--run-id", "r")
    assert project.runnable("checkout", "r", "../whole").err == ""
    assert tree(tmp_path / "whole") == expected

    for gone in (project.folder / "lib", project.folder / ".git/modules"):
        shutil.rmtree(gone)
    done = project.runnable("checkout", "r", "../part", code=1)
    assert "note: not rebuilt: lib: a submodule: commit " in done.err
    assert tree(tmp_path / "part") == {name: file for name, file in expected.items() if not name.startswith("lib/")}


def test_the_remote_of_a_clone_is_a_path(tmp_path: Path) -> None:
    """The commit comes from there as from a URL; where nothing has it, one line says where it was looked for."""
    made = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n", "a": "a\n"})
    clone = elsewhere(made, tmp_path)
    made.write({"a": "later\n"})
    made.commit()
    made.runnable("run", "--run-id", "r")
    shutil.copytree(made.store, clone.store)
    clone.runnable("checkout", "r", "../rebuilt")
    assert (tmp_path / "rebuilt/a").read_text() == "later\n"
    clone.git("remote", "set-url", "origin", "../nowhere")
    refused = clone.runnable("checkout", "r", "../other", code=1)
    said = refused.err.splitlines()[0]
    assert f"not found in any source: {clone.folder}: does not have the commit; " in said
    assert "nowhere: " in said


def test_clean_run_and_no_commit(tmp_path: Path) -> None:
    """A clean run is its commit, of any step; a run outside git says why it cannot be rebuilt."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n[steps.b]\nrun = 'exit 1'\n"})
    first = project.git("rev-parse", "HEAD")
    project.runnable("run", code=1)
    project.write({"runnable.toml": "[steps.a]\nrun = 'true'\n[steps.b]\nrun = 'true'\n"})
    second = project.commit()
    project.runnable("retry", "latest")
    newest = project.runnable("checkout", "latest", "../b")
    assert newest.out == f"../b: {second}\n"
    assert newest.err == "note: `a` ran other code than the newest attempt: `--step` rebuilds that\n"
    named = project.runnable("checkout", "latest", "../a", "--step", "a")
    assert (named.out, named.err) == (f"../a: {first}\n", "")
    assert "exit 1" in (tmp_path / "a" / "runnable.toml").read_text()
    assert "has no step `c`" in project.runnable("checkout", "latest", "../c", "--step", "c", code=2).err
    outside = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"}, git=False, name="outside")
    outside.runnable("run", "--run-id", "r")
    refused = outside.runnable("checkout", "r", "../d", code=1)
    assert refused.err.startswith("error: run r has no commit: ")
    assert not (tmp_path / "d").exists()
