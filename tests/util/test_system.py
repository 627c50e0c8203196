"""The systems' differences have the same names everywhere, and Windows' rules hold on any machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runnable_ci.util import system
from runnable_ci.util.system.windows_rules import git_shell, is_valid_filename

FOLDER = Path(system.__file__).parent


def offered(name: str) -> set[str]:
    """What a module of `system` offers: constants, functions, classes."""
    found = set()
    for node in ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=defined) | ast.ClassDef(name=defined):
                found.add(defined)
            case ast.AnnAssign(target=ast.Name(id=defined)):
                found.add(defined)
            case ast.ImportFrom(module="runnable_ci.util.system.windows_rules"):
                found.add("is_valid_filename")
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("name", ["posix", "windows"])
def test_each_system_offers_the_same(name: str) -> None:
    """What `system` gives is there on either side; that it is used rightly, the type checker proves for each."""
    assert offered(name) == set(system.__all__)


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("model.bin", True),
        ("data/.hidden/a b.csv", True),
        ("ünï/코드.txt", True),
        ("console.log", True),
        ("com10", True),
        ("a:b", False),
        ("file.txt:stream", False),
        ("a\\b", False),
        ("what?", False),
        ("data/*.csv", False),
        ("line\nbreak", False),
        ("data./x", False),
        ("trailing ", False),
        ("NUL", False),
        ("data/aux.csv", False),
        ("com1.tar.gz", False),
        ("LPT²", False),
        ("con .txt", False),
    ],
)
def test_which_names_windows_takes(name: str, can: bool) -> None:
    """Devices, streams and what Windows would quietly change are no names."""
    assert is_valid_filename(name) == can


def which_in(*folders: Path) -> dict[str, str]:
    """Program → path, the first folder first."""
    return {path.stem: str(path) for folder in reversed(folders) for path in folder.glob("*.exe")}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Folders as Windows has them: its own `bash.exe`, which is no shell of that system, and Git's."""
    for name in (
        "System32/bash",
        "WindowsApps/bash",
        "Git/cmd/git",
        "Git/mingw64/bin/git",
        "Git/bin/bash",
        "Git/bin/sh",
    ):
        file = tmp_path / f"{name}.exe"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "shell", "found"),
    [
        (["System32", "Git/cmd"], "bash", "Git/bin/bash.exe"),
        (["WindowsApps", "Git/cmd"], "bash", "Git/bin/bash.exe"),
        (["Git/cmd"], "sh", "Git/bin/sh.exe"),
        (["Git/mingw64/bin", "System32"], "bash", "Git/bin/bash.exe"),
        (["Git/bin", "System32"], "bash", "Git/bin/bash.exe"),
        (["System32"], "bash", None),
        ([], "bash", None),
    ],
)
def test_which_bash_is_meant_on_windows(machine: Path, path: list[str], shell: str, found: str | None) -> None:
    """Git's, as GitHub's runners have it; never the one that starts another system in a virtual machine."""
    programs = which_in(*(machine / folder for folder in path))
    shown = git_shell(shell, programs.get, Path.is_file)
    assert shown == (None if found is None else str(machine / found))
