"""The action's set-up of its own environment, by the shell as the runner starts it, on odd machines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from act import ROOT, wheelhouse
from action_steps import STEPS, assigned

from runnable_ci.github.action.set_up import LOCK
from runnable_ci.github.action.set_up import set_up as make

OLD = "#!/bin/sh\nexit 1\n"
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'


def set_up(
    tmp_path: Path, programs: Mapping[str, str], files: Mapping[str, str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the step with these programs alone on PATH, in a checkout that has these files."""
    tools, workspace = tmp_path / "bin", tmp_path / "workspace"
    for folder in (tools, workspace, tmp_path / "temp"):
        folder.mkdir()
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name, text in (files or {}).items():
        (workspace / name).write_text(text)
    environ = {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_ACTION_PATH": str(ROOT),
        "RUNNABLE_CI_PYTHON": "",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheelhouse(ROOT / ".cache")),
        **variables,
    }
    script = tmp_path / "setup.sh"
    script.write_text(STEPS["setup"]["run"])
    shell = shlex.split(STEPS["setup"]["shell"].replace("{0}", str(script)))
    return subprocess.run(shell, cwd=workspace, env=environ, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("programs", [{}, {"python3": OLD}, {"python3": OLD, "python": OLD}])
def test_no_python_that_will_do_is_said(tmp_path: Path, programs: dict[str, str]) -> None:
    """A container without Python, too, fails with the reason and what mends it."""
    done = set_up(tmp_path, programs)
    assert done.returncode == 1
    assert "::error title=runnable-ci::Python 3.11 or newer is required" in done.stdout
    assert "python-version" in done.stdout


def test_a_windows_runner_is_told_where_it_runs(tmp_path: Path) -> None:
    """Before anything is installed, whatever Python there is."""
    done = set_up(tmp_path, {"python3": PYTHON}, RUNNER_OS="Windows")
    assert done.returncode == 2
    assert done.stdout.startswith("::error title=runnable-ci::it runs on Linux and macOS; on Windows use WSL")
    assert list((tmp_path / "temp").iterdir()) == []


@pytest.mark.promise
def test_neither_the_repository_nor_pips_settings_get_in(tmp_path: Path) -> None:
    """A module of the checkout is not ours, packages go into our folder, and `python` does where `python3` is old."""
    elsewhere = tmp_path / "elsewhere"
    shadow = dict.fromkeys(("logging.py", "pathlib.py"), "raise SystemExit('the repository was imported')")
    done = set_up(
        tmp_path, {"python3": OLD, "python": PYTHON}, shadow, PIP_TARGET=str(elsewhere), PIP_CONSTRAINT="/no/such/file"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not elsewhere.exists()
    assert version(tmp_path)


@pytest.mark.parametrize("by", ["user", "variable"])
def test_a_file_of_pip_says_where_packages_are_and_nothing_else(tmp_path: Path, by: str) -> None:
    """Each other setting in it would move the installation, refuse it or keep it from happening."""
    elsewhere, wheels = tmp_path / "elsewhere", wheelhouse(ROOT / ".cache")
    hostile = f"""
[global]
user = true
target = {elsewhere}
require-virtualenv = true
quiet = 3
python = /no/such/python
constraint = /no/such/file
[install]
prefix = {elsewhere}
root = {elsewhere}
no-binary = :all:
dry-run = true
report = {elsewhere}
no-index = true
find-links =
    {wheels}
"""
    file = tmp_path / (".config/pip/pip.conf" if by == "user" else "other.conf")
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(hostile)
    named = str(file) if by == "variable" else ""
    empty = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}
    done = set_up(tmp_path, {"python3": PYTHON}, None, PIP_USER="1", PIP_CONFIG_FILE=named, **empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not elsewhere.exists()
    assert version(tmp_path)


def test_a_file_that_pip_cannot_read_is_said(tmp_path: Path) -> None:
    """It is pip's, not ours: what variables say of packages is enough."""
    (tmp_path / "pip.conf").write_text("user = true\n")
    done = set_up(tmp_path, {"python3": PYTHON}, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert f"{tmp_path / 'pip.conf'}: pip's configuration cannot be read" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_cannot_be_installed_is_said(tmp_path: Path) -> None:
    """By pip's own words, and nothing is left that a next use would take for an environment."""
    done = set_up(tmp_path, {"python3": PYTHON}, PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 1
    assert "No matching distribution found" in done.stderr
    assert "::error title=runnable-ci::error: the action cannot install the dependencies" in done.stdout
    assert list((tmp_path / "temp" / "runnable-ci").iterdir()) == []


@pytest.mark.promise
def test_each_version_of_the_action_runs_its_own_code(tmp_path: Path) -> None:
    """Also where two begin at once: the environment is that of the code's place, its dependencies and its Python."""
    other = tmp_path / "other"
    (other / "runnable_ci").mkdir(parents=True)
    shutil.copytree(ROOT / "runnable_ci", other / "runnable_ci", dirs_exist_ok=True)
    shutil.copy(ROOT / LOCK, other)
    actions = [ROOT, ROOT, other]
    folder = tmp_path / "temp"
    folder.mkdir()
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse(ROOT / ".cache"))}
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(lambda action: make({"PATH": os.defpath, **index}, action, folder), actions))
    assert found[0] == found[1] != found[2]
    assert sorted(folder.iterdir()) == sorted({python.parent.parent for python in found})
    for python, action in zip(found, actions, strict=True):
        script = "import runnable_ci; print(runnable_ci.__file__)"
        told = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=True).stdout
        assert Path(told.strip()).is_relative_to(action)


def version(tmp_path: Path) -> str:
    """What the tool says of itself that the set-up put out."""
    python = assigned((tmp_path / "output").read_text())["python"]
    words = [python, "-I", "-m", "runnable_ci", "--version"]
    return subprocess.run(words, capture_output=True, env={"PATH": os.defpath}, text=True, check=True).stdout
