"""Tests that a look at some paths, which lists no folder as git would, finds what git finds."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.vcs.git import Git
from runnable_ci.vcs.location import SETTINGS, ignores_case, parsed_settings
from runnable_ci.vcs.status import INDEX, STATUS, parsed_index, parsed_status, status_of

SEEDS = int(os.environ.get("LOOK_SEEDS", "40"))
SEED = int(os.environ.get("LOOK_SEED", "0"))
NAMES = (
    "a",
    "b.log",
    "c d",
    "new\nline",
    ":top",
    ":(icase)x",
    "*",
    "é",
    "\udcff",
    "ignored",
    "Kept",
    "kept",
    "-n",
    "~",
)
RULES = (
    "*.log",
    "ignored",
    "ignored/",
    "/a",
    "a/*",
    "!kept",
    "!b.log",
    "[*]",
    "**/c d",
    "é",
    "!ignored/kept",
    "#",
    "/ke*",
)
GIT_FOLDER = ".git"


def fill(folder: Path, chance: random.Random, depth: int = 0) -> None:
    """Write files and folders of all kinds."""
    for name in chance.sample(NAMES, chance.randint(0, 6)):
        put(folder / name, chance, depth)
    if chance.random() < 0.3:
        (folder / ".gitignore").write_text("".join(f"{rule}\n" for rule in chance.sample(RULES, 3)))


def put(path: Path, chance: random.Random, depth: int) -> None:
    """Write something at a path."""
    match chance.choice(["file"] * 5 + ["folder"] * 4 + ["link", "link to folder", "pipe", "socket"]):
        case "folder" if depth < 3:
            path.mkdir()
            fill(path, chance, depth + 1)
        case "link":
            path.symlink_to("nowhere")
        case "link to folder":
            path.symlink_to("..")
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one, Here(path.parent):
                one.bind(path.name)
        case _:
            path.write_text(str(chance.randint(0, 9)))


class Here:
    """Within the block the process is in a folder: the path of a socket is short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = Path.cwd()

    def __enter__(self) -> None:
        """Go there."""
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        """Go back."""
        os.chdir(self._before)


def everything(root: Path) -> list[str]:
    """All paths below a folder, but for git's own."""
    found = []
    for at, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != GIT_FOLDER]
        found += [os.path.relpath(f"{at}/{name}", root) for name in (*folders, *files) if name != GIT_FOLDER]
    return sorted(found)


def edit(root: Path, chance: random.Random, git: Callable[..., str], ours: Git) -> None:
    """Change something, in the tree or in the index."""
    path = root / chance.choice(everything(root) or ["a"])
    name = str(path.relative_to(root))
    match chance.randint(0, 10):
        case 0 if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name("moved"))
        case 1:
            ours("rm", "-rfq", "--cached", "--ignore-unmatch", "--", name)
        case 2 if path.is_file():
            ours("add", "-fN", "--", name)
        case 3 if path.is_file() and not path.is_symlink():
            blob = git(root, "hash-object", "-w", "--", name)
            ours("update-index", "--force-remove", "--", name)
            entry = f"100755 {blob} {chance.randint(0, 3)}\t{name}\0"  # of a merge, but for number 0
            ours("update-index", "--add", "--replace", "-z", "--index-info", stdin=os.fsencode(entry))
        case 4 if path.is_dir() and not path.is_symlink():
            kind = chance.choice(["repository", "folder", "file"])
            if kind == "repository":
                git(path, "init", "-q")
            elif kind == "folder":
                (path / GIT_FOLDER).mkdir(exist_ok=True)
            elif not (path / GIT_FOLDER).exists():
                (path / GIT_FOLDER).write_text("gitdir: nowhere\n")
        case 5 if path.is_file() or path.is_symlink():
            path.unlink()
            path.mkdir()
            fill(path, chance, 2)
        case 6 if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            path.write_text("file\n")
        case _:
            folder = path if path.is_dir() else path.parent
            new = folder / chance.choice(NAMES)
            if not os.path.lexists(new):
                put(new, chance, 1)


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_a_look_finds_what_git_finds(
    tmp_path: Path, environ: Mapping[str, str], git: Callable[..., str], seed: int
) -> None:
    """At any paths of a tree with files of all kinds: in ignored folders, repositories, links, as the index differs."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret: the same seed gives the same tree
    root = tmp_path / "repository"
    git(tmp_path, "init", "-q", "repository")
    fill(root, chance)
    (root / "base").write_text("base\n")
    git(root, "--literal-pathspecs", "add", "-f" if chance.random() < 0.5 else "-v", ".")
    git(root, "commit", "-qm", "first")
    if chance.random() < 0.3:
        (root / GIT_FOLDER / "info/exclude").write_text("*.log\nkept\n")
    if chance.random() < 0.3:
        (tmp_path / "rules").write_text("\n".join(chance.sample(RULES, 3)))
        git(root, "config", "core.excludesFile", str(tmp_path / "rules"))
    ours = Git(str(root), {**environ, "GIT_TRACE": str(tmp_path / "trace")})
    for _ in range(chance.randint(1, 8)):
        edit(root, chance, git, ours)
    index, settings = parsed_index(ours(*INDEX)), parsed_settings(ours(*SETTINGS))
    known = [path for path in everything(root) if not any(f"{path}/".startswith(f"{it}/") for it in index.submodules)]
    for count in (1, 2, len(known)):
        paths = sorted(
            {*chance.sample(known, min(count, len(known))), *chance.choice([["gone"], [".git"], ["a/gone"]])}
        )
        whole = parsed_status(ours(*STATUS, "--", *paths))
        (tmp_path / "trace").write_text("")
        assert parsed_status(status_of(ours, paths, index, settings)) == whole, paths
        lists = "--untracked-files=all" in (tmp_path / "trace").read_text(errors="replace")
        assert lists <= bool([*root.rglob(GIT_FOLDER)][1:]), "git lists folders, and there is no repository in another"


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("false", False), ("No", False)])
def test_where_names_do_not_tell_case_git_is_asked_all(
    tmp_path: Path, environ: Mapping[str, str], git: Callable[..., str], value: str, *, expected: bool
) -> None:
    """What git takes for one name is known to git."""
    git(tmp_path, "init", "-q", "repository")
    root = tmp_path / "repository"
    (root / "Read").touch()
    git(root, "add", ".")
    (root / "Read").rename(root / "read")
    git(root, "config", "core.ignoreCase", value)
    ours = Git(str(root), environ)
    index, settings = parsed_index(ours(*INDEX)), parsed_settings(ours(*SETTINGS))
    assert ignores_case(settings) == expected
    assert status_of(ours, ["read"], index, settings) == ours(*STATUS, "--", "read")
