"""Tests of `reads` and `ignore-reads`: what counts as read is what the file says, not what was seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli import Workspace, workspace

FILES = {
    "src/part.txt": "part\n",
    "src/deep/other.txt": "other\n",
    "docs/a.md": "a\n",
    "README.md": "read me\n",
    ".gitignore": ".runnable/\n*.out\n",
}
NOTHING_TO_WATCH_WITH = """
import errno
from runnable_ci.observe import inotify
def refused(self):
    raise OSError(errno.EMFILE, "Too many open files")
inotify.Inotify.__init__ = refused
from runnable_ci.__main__ import main
main()
"""
STEP = """
[steps.a]
run = "cat README.md docs/*.md src/part.txt; ls . > /dev/null"
{keys}
[steps.b]
run = "exit 1"
"""


def failed(tmp_path: Path, keys: str, files: dict[str, str] | None = None) -> Workspace:
    """A project whose step `a` has succeeded."""
    project = workspace(tmp_path, {**FILES, "runnable.toml": STEP.format(keys=keys), **(files or {})})
    project.runnable("run", "--run-id", "r", code=1)
    return project


def plan_of_a(project: Workspace) -> str:
    """What a retry would do with step `a`, and why."""
    return " ".join(project.runnable("retry", "r", "--dry-run").out.splitlines()[0].split()[1:])


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"README.md": "other\n", "docs/a.md": "b\n", "docs/new.md": "new\n"}, "reuse unchanged since attempt 1"),
        ({"src/part.txt": "edited\n"}, "run src/part.txt changed, which it read"),
        ({"src/deep/other.txt": "never opened\n"}, "run src/deep/other.txt changed, which it read"),
        ({"src/deep/new.txt": "new\n"}, "run src/deep/new.txt is new, which its `reads` names"),
        ({"src/deep/other.txt": None}, "run src/deep/other.txt is gone, which it read"),
    ],
)
def test_reads_are_exact(tmp_path: Path, edit: dict[str, str | None], expected: str) -> None:
    """With `reads` only what its globs match counts: content, new and removed files, opened or not."""
    project = failed(tmp_path, 'reads = ["src/**"]')
    for name, content in edit.items():
        if content is None:
            (project.folder / name).unlink()
        else:
            project.write({name: content})
    assert plan_of_a(project) == expected


def test_reads_beside_get(tmp_path: Path) -> None:
    """What the step gets counts too, though no glob of `reads` matches it."""
    project = failed(tmp_path, 'reads = []\ncatalog = { get = ["docs/a.md"] }')
    project.write({"README.md": "other\n", "src/part.txt": "other\n"})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"docs/a.md": "other\n"})
    assert plan_of_a(project) == "run input docs/a.md changed"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"docs/a.md": "b\n", "docs/new.md": "new\n"}, "reuse unchanged since attempt 1"),
        ({"docs/a.md": "b\n", "README.md": "other\n"}, "run README.md changed, which it read"),
        (
            {"new.txt": "listed\n"},
            "run new.txt is new in the folder of the pipeline file, which it listed",
        ),
    ],
)
def test_ignored_reads(tmp_path: Path, edit: dict[str, str], expected: str) -> None:
    """What `ignore-reads` matches is left out of what was seen; all else counts."""
    project = failed(tmp_path, 'ignore-reads = ["docs/**"]')
    project.write(edit)
    assert plan_of_a(project) == expected


def test_the_keys_count_for_a_finished_step(tmp_path: Path) -> None:
    """Set after the step has run, neither key re-runs it, and what was seen is compared by them; so without again."""
    project = failed(tmp_path, "")
    project.write({"docs/a.md": "b\n"})
    assert plan_of_a(project) == "run docs/a.md changed, which it read"
    project.write({"runnable.toml": STEP.format(keys='ignore-reads = ["docs"]')})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"runnable.toml": STEP.format(keys='reads = ["src/**"]')})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"src/part.txt": "edited\n"})
    assert plan_of_a(project) == "run src/part.txt changed, which it read"


def test_git_can_be_left_out(tmp_path: Path) -> None:
    """A step that asks git runs again after a commit, unless `ignore-reads` has `.git`."""
    asking = FILES | {"runnable.toml": "[steps.a]\nrun = 'git rev-parse HEAD'\n[steps.b]\nrun = 'exit 1'\n"}
    project = workspace(tmp_path, asking)
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"README.md": "other\n"})
    project.commit()
    assert plan_of_a(project).startswith("run it asked git, and README.md (")
    project.write({"runnable.toml": asking["runnable.toml"].replace("HEAD'", "HEAD'\nignore-reads = ['.git']")})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"


def test_a_declared_file_that_the_step_writes(tmp_path: Path) -> None:
    """What the step made of a file of its `reads` is no change; what a person makes of it is one."""
    appending = "[steps.a]\nreads = ['src/**']\nrun = 'echo x >> src/part.txt'\n[steps.b]\nrun = 'false'\n"
    project = workspace(tmp_path, FILES | {"runnable.toml": appending})
    project.runnable("run", "--run-id", "r", code=1)
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"src/part.txt": "mine\n"})
    assert plan_of_a(project) == "run src/part.txt changed, which it read"


def unwatched(project: Workspace, *arguments: str) -> None:
    """Run the program where the system has no watch left."""
    command = [sys.executable, "-c", NOTHING_TO_WATCH_WITH, *arguments]
    subprocess.run(command, cwd=project.folder, env=project.environ, check=False, capture_output=True)


def test_declared_reads_need_no_watching(tmp_path: Path) -> None:
    """Where nothing can be watched `reads` is enough to compare by; without it anything that changed counts."""
    project = workspace(tmp_path, FILES | {"runnable.toml": STEP.format(keys='reads = ["src/**"]')})
    unwatched(project, "run", "--run-id", "r")
    assert project.log().steps["a"].attempts[0].not_seen.startswith("the limit of watchers is reached")
    project.write({"README.md": "other\n"})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"runnable.toml": STEP.format(keys="")})
    assert plan_of_a(project).startswith("run README.md (")
    project.write({"runnable.toml": STEP.format(keys='ignore-reads = ["*.md"]')})
    assert plan_of_a(project) == "reuse unchanged since attempt 1"
    project.write({"runnable.toml": STEP.format(keys='reads = ["src/**"]'), "src/part.txt": "edited\n"})
    assert plan_of_a(project) == "run src/part.txt changed, which it read"


def test_a_glob_that_matches_nothing_is_noted(tmp_path: Path) -> None:
    """A typing mistake in `reads`, by which nothing would ever count, gets a line."""
    project = workspace(tmp_path, FILES | {"runnable.toml": STEP.format(keys='reads = ["scr/**", "src/**"]')})
    said = project.runnable("run", "--run-id", "r", code=1).err
    assert "note: `reads` has scr/**, which matches no file" in said
    assert said.count("which matches no file") == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('reads = ["../other/**"]', '[steps.a] reads: a path outside the workspace: "../other/**"'),
        ('ignore-reads = ["/etc/*"]', '[steps.a] ignore-reads: a path outside the workspace: "/etc/*"'),
        ('reads = [""]', "[steps.a] reads: an empty path"),
        ('reads = [".git/HEAD"]', '[steps.a] reads: ".git/HEAD" has no files of yours'),
        ('reads = "src/**"', '[steps.a] reads: must be a list, not "src/**"'),
        ('ignore-read = ["src/**"]', "[steps.a] unknown key `ignore-read`"),
    ],
)
def test_bad_globs(tmp_path: Path, keys: str, message: str) -> None:
    """A glob that cannot match a file of the workspace is an error before anything runs."""
    project = workspace(tmp_path, {"runnable.toml": STEP.format(keys=keys)})
    assert message in project.runnable("check", code=2).err
