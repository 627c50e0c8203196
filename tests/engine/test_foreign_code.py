"""Code that ran from outside the tree, while the tree has it too, is named, and the identity is not called clean."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from cli import Workspace, workspace

PIPELINE = """
python = ".venv/bin/python"
[steps.one]
python = "pkx.m:version"
returns = ["version"]
[steps.two]
python = "pkx.m:version"
returns = { again = "json" }
"""
MODULE = "def version():\n    return {}\n"


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project in `src` layout with a virtual environment in it that git ignores."""
    files = {"src/pkx/__init__.py": "", "src/pkx/m.py": MODULE.format(2), ".gitignore": ".venv/\n__pycache__/\n"}
    made = workspace(tmp_path, files | {"runnable.toml": PIPELINE})
    venv.create(made.folder / ".venv", symlinks=True)
    return made


def packages(project: Workspace) -> Path:
    """Where the environment has its packages."""
    inside = sysconfig.get_path("purelib", "venv", vars={"base": str(project.folder / ".venv")})
    assert Path(inside).is_dir(), sys.version
    return Path(inside)


def put(folder: Path, version: int) -> None:
    """Put the package into a folder."""
    (folder / "pkx").mkdir(parents=True)
    (folder / "pkx" / "__init__.py").write_text("")
    (folder / "pkx" / "m.py").write_text(MODULE.format(version))


def is_dependable(project: Workspace) -> bool:
    """Whether the identity of the code is, by the newest attempt."""
    code = project.log().code()
    assert code is not None
    return code.code_identifier_dependable


def test_an_installed_copy(project: Workspace) -> None:
    """A copy in site-packages ran: one note for both steps, and an identity that is not dependable, with the reason."""
    put(packages(project), 1)
    done = project.runnable("run", "-j", "1")
    place = packages(project).relative_to(project.folder)
    said = f"`pkx` was loaded from {place}, not from src/pkx of this repository"
    assert done.err.count(f"note: {said}") == 1
    for step in project.log().steps.values():
        (code,) = step.attempts[-1].code_identities
        assert (code.code_identifier_dependable, code.code_identifier_message) == (False, said)
    assert f"(dirty)\nchanges      {said}" in project.runnable("show", "latest").out


def test_another_clone(project: Workspace, tmp_path: Path) -> None:
    """An editable installation of another clone is told apart from this one."""
    put(tmp_path / "first clone" / "src", 1)
    (packages(project) / "pkx.pth").write_text(f"{tmp_path / 'first clone' / 'src'}\n")
    done = project.runnable("run", "-j", "1")
    assert f"`pkx` was loaded from {tmp_path / 'first clone' / 'src'}, not from src/pkx of this" in done.err
    assert not is_dependable(project)


@pytest.mark.parametrize("way", ["editable", "PYTHONPATH"])
def test_the_tree_itself(project: Workspace, way: str) -> None:
    """What ran from the tree needs no word, by whichever way it was found; nor do packages that only others have."""
    if way == "editable":
        (packages(project) / "pkx.pth").write_text(f"{project.folder / 'src'}\n")
    other = packages(project) / "other.py"
    other.write_text("")
    project.write({"src/pkx/m.py": f"import other\n{MODULE.format(2)}", "other/notes.txt": "no module\n"})
    project.commit()
    done = project.runnable("run", "-j", "1", PYTHONPATH="src" if way == "PYTHONPATH" else "")
    assert "was loaded from" not in done.err
    assert is_dependable(project)
