"""Which interpreter runs python steps where the pipeline file names none."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest
from cli import Workspace, workspace

NOTE = "note: python steps run in .venv/bin/python"


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project with an environment of its own, and a step that says in which it runs."""
    files = {
        "runnable.toml": '[steps.a]\npython = "work:where"\nreturns = { at = "json" }\n',
        "work.py": "import sys\ndef where():\n    return sys.prefix\n",
        ".gitignore": ".venv/\n__pycache__\n",
    }
    made = workspace(tmp_path, files)
    venv.create(made.folder / ".venv", symlinks=True)
    return made


def test_the_projects_own(project: Workspace) -> None:
    """Where none is named or activated it is that of `.venv`, and one line says so."""
    done = project.runnable("run")
    assert done.err.splitlines().count(NOTE) == 1
    assert project.log().parameters["at"].value == str(project.folder / ".venv")
    assert "python steps run in" in project.runnable("check").out


@pytest.mark.parametrize("named", ["in the file", "activated"])
def test_another_one(project: Workspace, named: str) -> None:
    """One that the file names, or that was activated, is what it was."""
    if named == "in the file":
        text = project.read("runnable.toml")
        project.write({"runnable.toml": f'python = "{sys.executable}"\n{text}'})
        done = project.runnable("run")
    else:
        done = project.runnable("run", VIRTUAL_ENV=sys.prefix)
    assert NOTE not in done.err
    assert project.log().parameters["at"].value == sys.prefix
