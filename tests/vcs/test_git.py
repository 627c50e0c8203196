"""Tests of how git is started, and of a repository as objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support import python

from runnable_ci.errors import CodeIdentityError, NotARepositoryError
from runnable_ci.vcs.clone import Clone
from runnable_ci.vcs.git import Git


@pytest.fixture
def repository(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "repository"
    git(tmp_path, "init", "-q", "repository")
    (folder / "a.py").write_text("a = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_kind_of_folder_is_told_by_type(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """No repository is one error, a bare one and the inside of `.git` are another, and neither is read from words."""
    (tmp_path / "plain").mkdir()
    with pytest.raises(NotARepositoryError):
        Git(str(tmp_path / "plain"), environ)("rev-parse", "--show-toplevel")
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare")
    for place in (tmp_path / "bare", tmp_path / "bare/refs", repository / ".git", repository / ".git/refs"):
        with pytest.raises(CodeIdentityError, match="no work tree") as raised:
            Git(str(place), environ)("rev-parse", "--show-toplevel")
        assert not isinstance(raised.value, NotARepositoryError)


def test_a_ceiling_hides_the_repository_above(repository: Path, environ: Mapping[str, str]) -> None:
    """Where git may not look, there is none for us either."""
    (repository / "below").mkdir()
    below = {**environ, "GIT_CEILING_DIRECTORIES": str(repository.resolve())}
    with pytest.raises(NotARepositoryError):
        Git(str(repository / "below"), below)("rev-parse", "--show-toplevel")


@pytest.mark.promise
def test_nothing_is_fetched_to_look(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """An object that a partial clone lacks is a refusal: neither the remote nor its program is asked."""
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", repository.as_uri(), "partial")
    program = tmp_path / "upload-pack"
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec git-upload-pack "$@"\n')
    program.chmod(0o755)
    git(tmp_path / "partial", "config", "remote.origin.uploadpack", str(program))
    with pytest.raises(CodeIdentityError):
        Git(str(tmp_path / "partial"), environ)("cat-file", "blob", "HEAD:a.py")
    assert not (tmp_path / "ran").exists()


def test_a_repository_that_lies_in_a_clone_has_no_say(
    repository: Path, tmp_path: Path, environ: Mapping[str, str], git: Callable[..., str]
) -> None:
    """Files that make up a bare repository bring no configuration: nothing that it names is started."""
    inner = repository / "in"
    git(repository, "init", "-q", "--bare", "in")
    (inner / "config").write_text(
        f'[core]\nbare=false\nworktree=.\nrepositoryformatversion=0\n[filter "x"]\nclean=touch {tmp_path}/ran; cat\n'
    )
    (inner / ".gitattributes").write_text("* filter=x\n")
    (inner / "b.txt").write_text("b")
    for words in (["status"], ["hash-object", "--path=b.txt", "b.txt"]):
        with pytest.raises(CodeIdentityError, match="a bare repository"):
            Git(str(inner), environ)(*words)
    assert not (tmp_path / "ran").exists()


def test_objects_are_as_closed_as_the_program(
    repository: Path,
    tmp_path: Path,
    git: Callable[..., str],
    environ: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GitPython's own environment, such as that of a git hook, leads to no other repository."""
    git(repository, "remote", "add", "other", "https://example.org/other.git")
    git(repository, "remote", "add", "origin", "gh:o/n")
    git(repository, "config", "url.https://github.com/.insteadOf", "gh:")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    clone = Clone.around(repository, environ)
    assert (clone.root, clone.branch(), clone.head()) == (
        repository.resolve(),
        "main",
        git(repository, "rev-parse", "HEAD"),
    )
    assert clone.remote_url() == "https://github.com/o/n"
    assert clone.remote_urls() == ["https://github.com/o/n", "https://example.org/other.git"]
    assert clone.default_branch() == "main"


def test_commits_between(repository: Path, git: Callable[..., str], environ: Mapping[str, str]) -> None:
    """A range of commits is counted where one builds on the other."""
    first = git(repository, "rev-parse", "HEAD")
    for number in range(3):
        git(repository, "commit", "-q", "--allow-empty", "-m", f"{number}")
    last = git(repository, "rev-parse", "HEAD")
    clone = Clone.around(repository, environ)
    assert (clone.commits_between(first, last), clone.commits_between(last, last)) == (3, 0)
    assert clone.commits_between(last, first) is None
    assert clone.commits_between("a" * 40, last) is None


def test_a_run_does_not_load_gitpython(repository: Path, environ: Mapping[str, str]) -> None:
    """`run`, `runs` and `retry` start git themselves: its objects take longer to load than a small step takes."""
    (repository / "runnable.toml").write_text("[steps.a]\nrun = 'true'\n")
    source = (
        "import atexit, sys; from runnable_ci.__main__ import main\n"
        "atexit.register(lambda: print('git' in sys.modules)); main()"
    )
    found = {**environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for words in (["run", "--run-id", "a"], ["runs"], ["retry", "a"]):
        done = python(source, *words, environ=found, cwd=repository)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr
