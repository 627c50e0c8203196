"""Tests of the code identity, on real repositories."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.vcs.actor import pull_request_head
from runnable_ci.vcs.git import clean_url, redacted
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.work_tree import WorkTree

MANY = 2_001


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
def look(environ: Mapping[str, str]) -> Callable[..., WorkTree]:
    """A first look at a folder whose pipeline made nothing, or the named files."""

    def state(folder: Path, *generated: str) -> WorkTree:
        return Code(folder, is_generated=lambda path, _: path in generated, environ=environ).look()

    return state


def test_clean_tree(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """A tree that is its commit is dependable, with commit and branch."""
    state = look(repository)
    assert (state.commit, state.ref, state.url) == (git(repository, "rev-parse", "HEAD"), "main", "")
    assert (state.dependable, state.message, state.changes) == (True, "", {})


def test_each_kind_of_change(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
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


def test_own_files_do_not_count(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
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
    """The whole repository counts, and generated files are asked for by their path from the pipeline's folder."""
    asked = []

    def is_generated(path: str, sha256: str) -> bool:
        asked.append((path, sha256))
        return path == "out.csv"

    (repository / "pkg/out.csv").write_text("made")
    (repository / "out.csv").write_text("not made")
    code = Code(repository / "pkg", is_generated=is_generated, environ=environ)
    assert code.look().message == "untracked: out.csv"
    assert asked == [("out.csv", hashlib.sha256(b"made").hexdigest())]


def test_a_file_is_generated_by_its_content(
    repository: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """What a step made is no change until somebody edits it, tracked or not."""
    made = hashlib.sha256(b"made").hexdigest()
    (repository / "in.csv").write_text("tracked")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "an input")
    for name in ("in.csv", "out.csv"):
        (repository / name).write_text("made")
    code = Code(repository, is_generated=lambda path, sha256: path.endswith(".csv") and sha256 == made, environ=environ)
    assert code.look().dependable
    (repository / "in.csv").write_text("edited")
    assert code.look().message == "modified: in.csv"


def test_tree_is_that_of_the_code(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """The tree's id is git's own: it follows contents and modes, not the index, times or who looks."""
    first = look(repository)
    (repository / "a.py").write_text("x = 1\n")
    one = look(repository)
    (repository / "a.py").write_text("x = 2\n")
    two = look(repository)
    (repository / "a.py").chmod(0o755)
    three = look(repository)
    assert len({state.key for state in (first, one, two, three)}) == 4
    git(repository, "add", "a.py")
    assert look(repository).tree == three.tree == git(repository, "write-tree")
    assert first.tree == git(repository, "rev-parse", "HEAD^{tree}")
    git(repository, "reset", "-q", "--hard")
    os.utime(repository / "a.py", (1, 1))
    assert look(repository) == first


def test_no_repository(tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]) -> None:
    """Outside of git the reason is recorded, and a repository made later is seen."""
    folder = tmp_path / "plain"
    folder.mkdir()
    code = Code(folder, environ=environ)
    for _ in range(2):
        assert code.look() == WorkTree(message="not a git repository")
    git(folder, "init", "-q")
    assert code.look().message == "no commits yet"


def test_no_commits(tmp_path: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """A repository without commits has changes and no commit."""
    git(tmp_path, "init", "-q", "r")
    (tmp_path / "r/a.py").write_text("a")
    state = look(tmp_path / "r")
    assert (state.commit, state.ref, state.dependable) == ("", "main", False)
    assert state.message == "untracked: a.py; no commits yet"


def test_git_not_installed(repository: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """Where there is no git program, that is the recorded reason."""
    source = (
        "import os, sys, pathlib; from runnable_ci.vcs.identity import Code;"
        "print(Code(pathlib.Path(sys.argv[1]), environ=os.environ).look().message)"
    )
    nothing = {**environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", source, repository], env=nothing, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["git is not installed"], done.stderr


def test_refused_folder(repository: Path, environ: Mapping[str, str]) -> None:
    """A folder of another user is recorded with the command that allows it."""
    other = {**environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    state = Code(repository, environ=other).state()
    assert "run `git config --global --add safe.directory" in state.message
    assert str(repository.resolve()) in state.message
    assert (state.commit, state.dependable) == ("", False)


def test_a_job_reads_its_checkout_whoever_owns_it(repository: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """As in a container job; also a checkout below the workspace, through a link; nothing outside of it."""
    link = tmp_path / "link"
    link.symlink_to(repository.parent)
    job = {**environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "GITHUB_ACTIONS": "true"}
    for workspace in (repository, repository.parent, link):
        state = Code(repository, environ={**job, "GITHUB_WORKSPACE": str(workspace)}).state()
        assert (len(state.commit), state.dependable) == (40, True), state.message
    (repository / "below").mkdir()
    (tmp_path / "other").mkdir()
    for outside in ("", str(repository / "below"), str(tmp_path / "other")):
        refused = Code(repository, environ={**job, "GITHUB_WORKSPACE": outside}).state()
        assert (refused.commit, refused.dependable) == ("", False), outside
        assert "dubious ownership" in refused.message
    no_job = {**job, "GITHUB_ACTIONS": "", "GITHUB_WORKSPACE": str(repository)}
    assert "dubious ownership" in Code(repository, environ=no_job).state().message


def test_detached_head_and_tags(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """A detached HEAD is named by its tags where it has some."""
    git(repository, "checkout", "-q", "--detach")
    assert look(repository).ref == "HEAD detached"
    git(repository, "tag", "v1")
    git(repository, "tag", "release/one")
    state = look(repository)
    assert (state.ref, state.dependable) == ("release/one, v1", True)


def test_shallow_clone(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., WorkTree]
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
    code = Code(tmp_path / "side", environ=environ)
    before = code.look()
    assert (before.ref, code.look()) == ("side", before)
    git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "on the side")
    assert code.look().commit == git(tmp_path / "side", "rev-parse", "HEAD") != before.commit
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare")
    assert "no work tree" in Code(tmp_path / "bare", environ=environ).state().message


def test_submodule(repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
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
    seen.add(look(repository).key)
    (repository / "lib/new.py").write_text("newer")
    seen.add(look(repository).key)
    (repository / "lib/a.py").write_text("changed")
    seen.add(look(repository).key)
    git(repository / "lib", "add", "a.py", "new.py")
    git(repository / "lib", "commit", "-qm", "in the library")
    state = look(repository)
    seen.add(state.key)
    assert (len(seen), state.message) == (4, "submodule: lib")
    git(repository, "add", "lib")
    assert look(repository).message == "staged: lib"


def test_conflict(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
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


@pytest.mark.promise
@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_hidden_changes_are_seen(
    repository: Path, git: Callable[..., str], look: Callable[..., WorkTree], flag: str
) -> None:
    """Flags that let git overlook a file hide nothing, and stay as the user set them."""
    git(repository, "update-index", flag, "a.py")
    index = (repository / ".git/index").read_bytes()
    assert look(repository).dependable
    (repository / "a.py").write_text("hidden")
    assert look(repository).message == "modified: a.py"
    assert (repository / ".git/index").read_bytes() == index


def test_sparse_checkout(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """Files that a sparse checkout leaves out are no deletions."""
    git(repository, "sparse-checkout", "set", "--cone", "nothing")
    assert not (repository / "pkg").exists()
    assert look(repository).dependable


def test_ignored_folder(repository: Path, look: Callable[..., WorkTree]) -> None:
    """A pipeline in a folder that git ignores has no commit that knows its files."""
    (repository / "build/pipeline").mkdir(parents=True)
    (repository / "build/pipeline/step.py").write_text("step")
    state = look(repository / "build/pipeline")
    assert (state.dependable, state.message) == (False, "git ignores this folder: its files are in no commit")
    assert look(repository).dependable


def test_names_of_any_bytes(repository: Path, look: Callable[..., WorkTree]) -> None:
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


def test_repository_inside(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
    """A repository of its own inside the tree is one change."""
    git(repository, "init", "-q", "inner")
    (repository / "inner/x.py").write_text("x")
    git(repository / "inner", "add", ".")
    git(repository / "inner", "commit", "-qm", "inner")
    state = look(repository)
    assert state.changes == {"inner/": ("untracked", "")}
    assert state.unknown == {"inner/": "a nested git repository"}


def test_many_files(repository: Path, look: Callable[..., WorkTree]) -> None:
    """Thousands of changes are all recorded, and the message stays short."""
    for number in range(MANY):
        (repository / f"{number}.txt").write_text("x")
    state = look(repository)
    assert len(state.changes) == MANY
    assert state.message.endswith(f" and {MANY - 20} more")


def test_programs_of_the_repository_are_not_run(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[..., WorkTree]
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
    assert Code(repository / "pkg", environ=hook).state().dependable


def test_remote(repository: Path, git: Callable[..., str], look: Callable[..., WorkTree]) -> None:
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


EDITS = [
    ("true", [], True),
    ("echo 1 > new.py", ["new.py"], True),
    ("echo 2 >> a.py", ["a.py"], True),
    ("chmod +x a.py", ["a.py"], True),
    ("mkdir -p pkg/deep && echo 3 > pkg/deep/x.py && echo 4 > pkg/deep/y.log", ["pkg/deep"], True),
    ("mv pkg lib", ["pkg", "lib"], True),
    ("echo 'x' > noise.log; mkdir build; echo 1 > build/x", ["noise.log", "build", "build/x"], True),
    ("ln -s a.py link", ["link"], True),
    ("rm new.py; mkdir new.py; echo 1 > new.py/inner", ["new.py", "new.py/inner"], True),
    ("rm b.py", ["b.py"], True),
    ("git checkout -q -- .", [".git", "a.py", "b.py", "pkg", "pkg/c.py"], False),
    ("echo '*.py' > .gitignore", [".gitignore"], False),
    ("git rm -q --cached a.py", [".git"], False),
    ("git commit -qm work", [".git"], False),
    ("git checkout -qb other", [".git"], False),
    ("git init -q nested && echo 1 > nested/x", ["nested", "nested/.git", "nested/x"], False),
    ("echo 5 > nested/y", ["nested/y"], True),
    ('python3 -c \'for n in range(300): open(f"many{n}", "w").close()\'', [f"many{n}" for n in range(300)], False),
    ("rm many*", [f"many{n}" for n in range(300)], False),
    ("mkdir node_modules; echo 1 > node_modules/x", ["node_modules"], True),
    ("echo 2 > node_modules/x", [], False),
]


@pytest.mark.parametrize("folder", [".", "pkg"])
def test_a_look_at_what_changed(
    repository: Path, tmp_path: Path, environ: Mapping[str, str], git: Callable[..., str], folder: str
) -> None:
    """It finds what a whole look finds, after each of many edits, by few git processes where that is enough."""
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    at = repository / folder
    at.mkdir(exist_ok=True)
    if folder == "pkg":  # what the pipeline's folder is, is not renamed
        git(repository, "mv", "pkg/c.py", "c.py")
        (at / "kept").touch()
        git(repository, "add", ".")
        git(repository, "commit", "-qm", "second")
    code = Code(at, environ={**environ, "PATH": f"{wrapper.parent}:{environ['PATH']}"})
    code.look()
    for command, changed, is_partial in EDITS:
        if folder == "pkg" and "pkg" in " ".join([command, *changed]):
            continue
        subprocess.run(["sh", "-c", command], cwd=repository, env=environ, check=True)
        before = code.last
        (tmp_path / "calls").write_text("")
        found = code.look_again([os.path.relpath(repository / path, at) for path in changed])
        calls = (tmp_path / "calls").read_text().splitlines()
        assert found == Code(at, environ=environ).look(), command
        assert is_partial != any("--show-toplevel" in call for call in calls), (command, calls)
        assert len(calls) <= 4 or not is_partial, (command, calls)
        if not changed and is_partial:
            assert (found is before, calls) == (True, [])
    (repository / "a.py").write_text("unseen")
    assert code.look_again(None) == Code(at, environ=environ).look()


def test_a_look_in_a_linked_work_tree(repository: Path, environ: Mapping[str, str], git: Callable[..., str]) -> None:
    """Another work tree may move the branch, of which no file here tells: git is asked each time."""
    side = repository.parent / "side"
    git(repository, "worktree", "add", "-q", "-b", "side", str(side))
    code = Code(side, environ=environ)
    before = code.look()
    assert code.look_again([]) == before
    commit = git(repository, "commit-tree", "-p", "HEAD", "-m", "x", "HEAD^{tree}")
    git(repository, "update-ref", "refs/heads/side", commit)
    assert code.look_again([]).commit == commit


def test_what_turns_out_to_be_a_product(repository: Path, environ: Mapping[str, str]) -> None:
    """A file that is found while a step makes it is no change once it is known as the step's."""
    made: set[str] = set()
    code = Code(repository, environ=environ, is_generated=lambda path, _: path in made)
    code.look()
    (repository / "out.csv").write_text("1")
    assert code.look_again(["out.csv"]).changes.keys() == {"out.csv"}
    made.add("out.csv")
    assert code.look_again([]).dependable
    assert code.differences == ()


def test_a_product_as_it_was_made_asks_nobody(tmp_path: Path, repository: Path, environ: Mapping[str, str]) -> None:
    """What is known to be as a step left it is not looked at: neither git nor the content is asked."""
    code = Code(repository, environ=environ, is_generated=lambda _, sha: sha == "1" * 64, hash_made=lambda _: "1" * 64)
    code.look()
    (repository / "out.csv").write_text("1")
    assert code.look_again(["out.csv"]).dependable
    assert not code.look_again(None).dependable


def test_without_a_repository_nothing_is_asked_twice(tmp_path: Path, environ: Mapping[str, str]) -> None:
    """Until a `.git` appears."""
    code = Code(tmp_path, environ=environ)
    nowhere = code.look()
    (tmp_path / "a.py").touch()
    assert code.look_again(["a.py"]) is nowhere
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, env=dict(environ), check=True)
    assert code.look_again([".git"]).message.startswith("untracked: a.py")


def test_edits_within_one_tick_of_the_clock(repository: Path, environ: Mapping[str, str]) -> None:
    """Two edits of the same size that share a timestamp are told apart: what was just written is read again."""
    code = Code(repository, environ=environ)
    for number in range(100, 120):
        (repository / "a.py").write_text(f"{number}")
        assert code.look().changes == {"a.py": ("modified", hashlib.sha256(f"{number}".encode()).hexdigest())}


def test_work_grows_with_what_is_new(repository: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    """A look starts as many processes in a dirty tree of 400 files as in one of four."""
    wrapper = tmp_path / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho >> {tmp_path}/calls\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    counted = {**environ, "PATH": f"{wrapper.parent}:{environ['PATH']}"}
    code = Code(repository, environ=counted)

    def calls(number: int) -> int:
        for name in range(number):
            (repository / f"{name}.txt").write_text(f"{name}")
        (tmp_path / "calls").write_text("")
        assert len(code.look().changes) == number
        return len((tmp_path / "calls").read_text())

    assert calls(4) <= 8
    assert calls(400) <= calls(401) + 1 <= 8
    assert calls(402) <= 5


@pytest.mark.parametrize("name", ["repository", "no\nrepository", "none"])
def test_who_the_user_is(tmp_path: Path, environ: Mapping[str, str], name: str) -> None:
    """git's user is known with and without a repository, and where that cannot be recorded; also before a look."""
    folder = tmp_path / name
    folder.mkdir()
    if name != "none":
        subprocess.run(["git", "init", "-q", folder], env=environ, check=True)
    asked = {**environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ann B"}
    assert Code(folder, environ=asked).user_name() == "Ann B"
