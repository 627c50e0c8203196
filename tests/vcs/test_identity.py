"""Tests of the code identity, on real repositories."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.vcs.git import clean_url, redacted
from runnable_ci.vcs.identity import Code, CodeState, pull_request_head
from runnable_ci.vcs.watch import WATCHED_MAX_FILES

SETTLING_S = 0.03


@pytest.fixture
def repository(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A repository with three committed files."""
    folder = tmp_path / "repository"
    (folder / "pkg").mkdir(parents=True)
    git(folder, "init", "-q")
    for name in ("a.py", "b.py", "pkg/c.py"):
        (folder / name).write_text(f"name = {name!r}\n")
    (folder / ".gitignore").write_text("*.log\nbuild/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def look(environ: Mapping[str, str]) -> Callable[..., CodeState]:
    """A first look at a folder whose pipeline makes nothing, or the named files."""

    def state(folder: Path, *products: str) -> CodeState:
        return Code(folder, products=set(products).__contains__, environ=environ).state()

    return state


def test_clean_tree(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """A tree that is its commit is dependable, with commit and branch."""
    state = look(repository)
    assert (state.commit, state.ref, state.url) == (git(repository, "rev-parse", "HEAD"), "main", "")
    assert (state.dependable, state.message, state.changes) == (True, "", {})


def test_each_kind_of_change(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """Each kind of difference from the commit is named, with the sha256 of what is there now."""
    (repository / "a.py").write_text("changed")
    (repository / "b.py").write_text("staged")
    git(repository, "add", "b.py")
    (repository / "pkg/c.py").unlink()
    (repository / "new.py").write_text("new")
    (repository / "announced.py").write_text("announced")
    git(repository, "add", "-N", "announced.py")
    state = look(repository)
    assert not state.dependable
    assert state.changes == {
        "a.py": ("modified", hashlib.sha256(b"changed").hexdigest()),
        "announced.py": ("added", hashlib.sha256(b"announced").hexdigest()),
        "b.py": ("staged", hashlib.sha256(b"staged").hexdigest()),
        "new.py": ("untracked", hashlib.sha256(b"new").hexdigest()),
        "pkg/c.py": ("deleted", ""),
    }
    assert state.message == ("added: announced.py; deleted: pkg/c.py; modified: a.py; staged: b.py; untracked: new.py")


def test_own_files_do_not_count(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """What the pipeline makes, its store and bytecode caches dirty nothing, tracked or not."""
    (repository / "plot.png").write_text("old")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a tracked product")
    for name in ("plot.png", "new.png", ".runnable/blobs/x", "pkg/__pycache__/c.pyc", "old.pyc"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("made")
    assert look(repository, "plot.png", "new.png").dependable
    assert look(repository).changes.keys() == {"plot.png", "new.png"}


def test_pipeline_in_a_subfolder(repository: Path, environ: Mapping[str, str]) -> None:
    """The whole repository counts, and products are asked for by their path from the pipeline's folder."""
    asked = []

    def products(path: str) -> bool:
        asked.append(path)
        return path == "out.csv"

    (repository / "pkg/out.csv").write_text("made")
    (repository / "out.csv").write_text("not made")
    code = Code(repository / "pkg", products=products, environ=environ)
    assert code.state().message == "untracked: out.csv"
    assert "out.csv" in asked
    assert not any(path.startswith("pkg/") or path == "a.py" for path in asked)


def test_digest_is_that_of_the_code(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """The digest follows contents, modes and the index, not times or who looks."""
    first = look(repository)
    (repository / "a.py").write_text("x = 1\n")
    one = look(repository).digest
    (repository / "a.py").write_text("x = 2\n")
    two = look(repository).digest
    git(repository, "add", "a.py")
    three = look(repository).digest
    (repository / "a.py").chmod(0o755)
    four = look(repository).digest
    assert len({first.digest, one, two, three, four}) == 5
    git(repository, "reset", "-q", "--hard")
    os.utime(repository / "a.py", (1, 1))
    assert look(repository) == first


def test_no_repository(tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]) -> None:
    """Outside of git the reason is recorded, and a repository made later is seen."""
    folder = tmp_path / "plain"
    folder.mkdir()
    code = Code(folder, products=lambda _: False, environ=environ)
    for _ in range(2):
        assert code.state() == CodeState("", "", "", False, "not a git repository", {}, "")
    git(folder, "init", "-q")
    assert code.state().message == "no commits yet"


def test_no_commits(tmp_path: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """A repository without commits has changes and no commit."""
    git(tmp_path, "init", "-q", "r")
    (tmp_path / "r/a.py").write_text("a")
    state = look(tmp_path / "r")
    assert (state.commit, state.ref, state.dependable) == ("", "main", False)
    assert state.message == "untracked: a.py; no commits yet"


def test_git_not_installed(repository: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """Where there is no git program, that is the recorded reason; importing works and leaves the environment alone."""
    source = (
        "import os, sys, pathlib; from runnable_ci.vcs.identity import Code;"
        "print(Code(pathlib.Path(sys.argv[1]), products=lambda _: False, environ=os.environ).state().message);"
        "print('GIT_PYTHON_REFRESH' in os.environ)"
    )
    nothing = {**environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", source, repository], env=nothing, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["git is not installed", "False"], done.stderr


def test_refused_folder(repository: Path, environ: Mapping[str, str]) -> None:
    """A folder of another user is recorded with the command that allows it."""
    other = {**environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    state = Code(repository, products=lambda _: False, environ=other).state()
    assert "run `git config --global --add safe.directory" in state.message
    assert str(repository.resolve()) in state.message
    assert (state.commit, state.dependable) == ("", False)


def test_detached_head_and_tags(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """A detached HEAD is named by its tags where it has some."""
    git(repository, "checkout", "-q", "--detach")
    assert look(repository).ref == "HEAD detached"
    git(repository, "tag", "v1")
    git(repository, "tag", "release/one")
    state = look(repository)
    assert (state.ref, state.dependable) == ("release/one, v1", True)


def test_shallow_clone(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., CodeState]
) -> None:
    """A shallow clone is dependable, and says what it is."""
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth=1", repository.as_uri(), "shallow")
    state = look(tmp_path / "shallow")
    assert (state.dependable, state.message) == (True, "shallow clone")


def test_worktree_and_bare(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """A linked worktree has a branch of its own that is followed; a bare repository has no tree."""
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    code = Code(tmp_path / "side", products=lambda _: False, environ=environ)
    before = code.state()
    time.sleep(SETTLING_S)
    assert (before.ref, code.state()) == ("side", before)
    git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "on the side")
    assert code.state().commit == git(tmp_path / "side", "rev-parse", "HEAD") != before.commit
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare")
    assert "no work tree" in Code(tmp_path / "bare", products=lambda _: False, environ=environ).state().message


def test_submodule(repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """Modified, untracked and committed changes in a submodule count, each with a digest of its own; caches do not."""
    shutil.copytree(repository, tmp_path / "library")
    git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a library")
    assert look(repository).dependable
    (repository / "lib/__pycache__").mkdir()
    (repository / "lib/__pycache__/a.pyc").write_text("cache")
    assert look(repository).dependable
    seen = set()
    (repository / "lib/new.py").write_text("new")
    seen.add(look(repository).digest)
    (repository / "lib/new.py").write_text("newer")
    seen.add(look(repository).digest)
    (repository / "lib/a.py").write_text("changed")
    seen.add(look(repository).digest)
    git(repository / "lib", "add", "a.py", "new.py")
    git(repository / "lib", "commit", "-qm", "in the library")
    state = look(repository)
    seen.add(state.digest)
    assert (len(seen), state.message) == (4, "submodule: lib")
    git(repository, "add", "lib")
    assert look(repository).message == "staged: lib"


def test_conflict(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """A merge conflict in progress is recorded as what it is."""
    git(repository, "checkout", "-qb", "other")
    (repository / "a.py").write_text("theirs")
    git(repository, "commit", "-qam", "theirs")
    git(repository, "checkout", "-q", "main")
    (repository / "a.py").write_text("ours")
    git(repository, "commit", "-qam", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "-q", "other")
    assert look(repository).message == "unmerged: a.py"


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_hidden_changes_are_seen(
    repository: Path, git: Callable[..., str], look: Callable[..., CodeState], flag: str
) -> None:
    """Flags that let git overlook a file hide nothing, and stay as the user set them."""
    git(repository, "update-index", flag, "a.py")
    index = (repository / ".git/index").read_bytes()
    assert look(repository).dependable
    (repository / "a.py").write_text("hidden")
    assert look(repository).message == "modified: a.py"
    assert (repository / ".git/index").read_bytes() == index


def test_sparse_checkout(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """Files that a sparse checkout leaves out are no deletions."""
    git(repository, "sparse-checkout", "set", "--cone", "nothing")
    assert not (repository / "pkg").exists()
    assert look(repository).dependable


def test_ignored_folder(repository: Path, look: Callable[..., CodeState]) -> None:
    """A pipeline in a folder that git ignores has no commit that knows its files."""
    (repository / "build/pipeline").mkdir(parents=True)
    (repository / "build/pipeline/step.py").write_text("step")
    state = look(repository / "build/pipeline")
    assert (state.dependable, state.message) == (False, "git ignores this folder: its files are in no commit")
    assert look(repository).dependable


def test_names_of_any_bytes(repository: Path, look: Callable[..., CodeState]) -> None:
    """Any name is recorded as text that JSON can hold, and shown without control characters."""
    for name in (b"with space", b"line\nbreak", "ünï".encode(), b"latin\xe9"):
        Path(os.fsdecode(os.fsencode(repository) + b"/" + name)).write_text("x")
    (repository / "link").symlink_to("/nowhere/at all")
    os.mkfifo(repository / "pipe")
    state = look(repository)
    assert state.changes.keys() == {"with space", "line\nbreak", "ünï", "latin\\xe9", "link"}
    assert state.changes["link"][1] == hashlib.sha256(b"/nowhere/at all").hexdigest()
    assert "untracked: latin\\xe9, line\\nbreak, link, with space, ünï" in state.message
    json.dumps(state.message).encode()


def test_repository_inside(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """A repository of its own inside the tree is one change."""
    git(repository, "init", "-q", "inner")
    (repository / "inner/x.py").write_text("x")
    git(repository / "inner", "add", ".")
    git(repository / "inner", "commit", "-qm", "inner")
    assert look(repository).changes == {"inner/": ("untracked", "")}


def test_many_files(repository: Path, look: Callable[..., CodeState]) -> None:
    """Thousands of changes are all recorded, and the message stays short."""
    for number in range(WATCHED_MAX_FILES + 1):
        (repository / f"{number}.txt").write_text("x")
    state = look(repository)
    assert len(state.changes) == WATCHED_MAX_FILES + 1
    assert state.message.endswith(f" and {WATCHED_MAX_FILES + 1 - 20} more")


def test_programs_of_the_repository_are_not_run(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., CodeState]
) -> None:
    """Looking starts no program that the repository's configuration names, and leaves its index alone."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(program))
    git(repository, "config", "diff.external", str(program))
    shutil.copy(program, repository / ".git/hooks/post-index-change")
    index = (repository / ".git/index").read_bytes()
    os.utime(repository / "a.py", (1, 1))
    assert look(repository).dependable
    assert not (tmp_path / "ran").exists()
    assert (repository / ".git/index").read_bytes() == index


def test_within_a_git_hook(repository: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    """The variables that git sets for a hook do not lead to another repository."""
    hook = {**environ, "GIT_DIR": str(tmp_path / "elsewhere"), "GIT_INDEX_FILE": str(tmp_path / "other-index")}
    assert Code(repository / "pkg", products=lambda _: False, environ=hook).state().dependable


def test_remote(repository: Path, git: Callable[..., str], look: Callable[..., CodeState]) -> None:
    """The URL is origin's, else the upstream's, else the first remote's, and never carries a token."""
    git(repository, "remote", "add", "fork", "https://example.org/fork.git")
    git(repository, "remote", "add", "up", "git@example.org:up.git")
    assert look(repository).url == "https://example.org/fork.git"
    git(repository, "config", "branch.main.remote", "up")
    assert look(repository).url == "git@example.org:up.git"
    git(repository, "remote", "add", "origin", "https://x-access-token:ghs_secret@example.org/o.git?token=1")
    assert look(repository).url == "https://example.org/o.git"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:pass@example.org/a.git", "https://example.org/a.git"),
        ("https://ghp_token@example.org:8443/a.git", "https://example.org:8443/a.git"),
        ("https://user:pa/ss@example.org/a.git", "https://example.org/a.git"),
        ("https://user:p@ss@example.org/a.git", "https://example.org/a.git"),
        ("https://example.org/@scope/a.git?token=x#y", "https://example.org/@scope/a.git"),
        ("https://example.org:443/@scope/a", "https://example.org:443/@scope/a"),
        ("http://[::1]:80/@a", "http://[::1]:80/@a"),
        ("ssh://git:pass@example.org/a.git", "ssh://git@example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("user:pass@example.org:a.git", "example.org:a.git"),
        ("/srv/me@home/a.git", "/srv/me@home/a.git"),
        ("../a.git", "../a.git"),
        ("file:///srv/a.git", "file:///srv/a.git"),
        ("ext::sh -c token%20x", ""),
    ],
)
def test_clean_url(url: str, clean: str) -> None:
    """A URL keeps its place and loses its credentials."""
    assert clean_url(url) == clean


def test_redacted() -> None:
    """A message of git keeps no credentials."""
    text = "fatal: unable to access 'https://me:secret@example.org/a.git?token=secret': no"
    assert redacted(text) == "fatal: unable to access 'https://example.org/a.git': no"


def test_pull_request_head(tmp_path: Path) -> None:
    """The head of a pull request is taken from GitHub's event, and only a commit is believed."""
    event = tmp_path / "event.json"
    environ = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
    assert pull_request_head(environ) == ""
    for sha, expected in (("a" * 40, "a" * 40), ("$(id)", ""), (None, "")):
        event.write_text(json.dumps({"pull_request": {"head": {"sha": sha}}}))
        assert pull_request_head(environ) == expected
        assert pull_request_head({**environ, "GITHUB_EVENT_NAME": "push"}) == ""
    event.write_text("[]")
    assert pull_request_head(environ) == ""


def test_products_cost_no_status(repository: Path, environ: Mapping[str, str]) -> None:
    """A look after which only products came is the same object: git was not asked again."""
    code = Code(repository, products=lambda path: path.startswith(("out", "made/")), environ=environ)
    time.sleep(SETTLING_S)
    first = code.state()
    for number in range(20):
        (repository / f"out{number}").write_text("x")
        (repository / "made/deep").mkdir(parents=True, exist_ok=True)
        (repository / f"made/deep/{number}").write_text("x")
        assert code.state() is first
    (repository / "other").write_text("x")
    assert code.state().message == "untracked: other"


def test_rules_that_no_commit_knows(repository: Path, environ: Mapping[str, str]) -> None:
    """Changes of an ignore file that ignores itself, and of the user's own ignore file, are noticed."""
    (repository / "cache").mkdir()
    (repository / "cache/.gitignore").write_text("*")
    (repository / "cache/x").write_text("x")
    code = Code(repository, products=lambda _: False, environ=environ)
    time.sleep(SETTLING_S)
    assert code.state().dependable
    assert code.state() is code.state()
    (repository / "cache/.gitignore").write_text("y")
    assert code.state().message == "untracked: cache/.gitignore, cache/x"
    time.sleep(SETTLING_S)
    assert code.state() is code.state()
    users = Path(environ["XDG_CONFIG_HOME"], "git")
    users.mkdir(parents=True)
    (users / "ignore").write_text("cache/\n")
    assert code.state().dependable


def test_edits_within_one_tick_of_the_clock(repository: Path, environ: Mapping[str, str]) -> None:
    """Two edits of the same size that share a timestamp are told apart: a look right after an edit is not kept."""
    code = Code(repository, products=lambda _: False, environ=environ)
    kept = []
    for number in range(100, 120):
        (repository / "a.py").write_text(f"{number}")
        state = code.state()
        assert state.changes == {"a.py": ("modified", hashlib.sha256(f"{number}".encode()).hexdigest())}
        kept.append(code.state() is state)
    assert not all(kept)
    time.sleep(SETTLING_S)
    assert code.state() is code.state()


@pytest.mark.parametrize("seed", range(3))
def test_cached_look_equals_a_fresh_one(
    repository: Path, git: Callable[..., str], environ: Mapping[str, str], seed: int
) -> None:
    """After any edit, the state from a `Code` that has looked before is that of one that has not."""
    choose = random.Random(seed)  # noqa: S311 - edits are no secrets
    code = Code(repository, products=_made, environ=environ)
    edits = (_rewrite, _touch, _add, _remove, _chmod, _rename, _ignore, _folders, _product, _index, _replace)
    for step in range(30):
        if choose.random() < 0.6:
            time.sleep(SETTLING_S)
        code.state()
        edit = choose.choice(edits)
        edit(repository, choose, git)
        fresh = Code(repository, products=_made, environ=environ).state()
        assert code.state() == fresh, (step, edit.__name__)


def _made(path: str) -> bool:
    return path.startswith(("out", "pkg/out"))


def _any_file(folder: Path, choose: random.Random) -> Path:
    (folder / f"{choose.randrange(9)}.txt").touch()
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / ".git"))
    return choose.choice(sorted(path for path in files if path.name != ".gitignore"))


def _rewrite(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    path = _any_file(folder, choose)

    path.write_bytes(bytes(choose.choice(b"xyz") for _ in range(path.stat().st_size)))


def _touch(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    os.utime(_any_file(folder, choose), (choose.randrange(10**9), choose.randrange(2 * 10**9)))


def _add(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    (folder / choose.choice(("", "pkg")) / f"{choose.randrange(9)}{choose.choice(('.py', '.log'))}").write_text("new")


def _remove(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    path = _any_file(folder, choose)
    path.unlink()


def _chmod(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    path = _any_file(folder, choose)
    path.chmod(path.stat().st_mode ^ 0o111)


def _rename(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    _any_file(folder, choose).rename(folder / f"renamed{choose.randrange(4)}.py")


def _ignore(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    path = folder / choose.choice((".gitignore", "pkg/.gitignore", ".git/info/exclude"))
    path.parent.mkdir(exist_ok=True)
    path.write_text(choose.choice(("*.log\nbuild/\n", "*.py\n", "build/\n", "new*/\n")))


def _folders(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    below = folder / choose.choice(("new", "build", "pkg/new")) / choose.choice(("", "deep"))
    below.mkdir(parents=True, exist_ok=True)
    if choose.random() < 0.6:
        (below / f"{choose.randrange(3)}.txt").write_text("x")


def _product(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    (folder / "pkg").mkdir(exist_ok=True)
    (folder / choose.choice(("out", "pkg/out"))).with_suffix(f".{choose.randrange(50)}").write_text("made")


def _index(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    git(folder, "add", "-A")
    if choose.random() < 0.5:
        git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    if choose.random() < 0.3:
        git(folder, "checkout", "-q", *choose.choice((["--detach"], ["-B", "other"], ["-B", "main"])))


def _replace(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    path = _any_file(folder, choose)
    before = path.stat()
    path.unlink()
    if choose.random() < 0.5:
        path.symlink_to("/dev/null")
    else:
        path.write_bytes(b"r" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
