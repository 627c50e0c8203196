"""The action's set-up of its own environment, by bash as the runner starts it, on machines that are not as usual."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from act import ROOT, wheelhouse
from action_steps import STEPS

OLD = "#!/bin/sh\nexit 1\n"
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'


def set_up(
    tmp_path: Path, programs: Mapping[str, str], files: Mapping[str, str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the step with these programs alone on PATH, in a checkout that has these files."""
    tools, workspace = tmp_path / "bin", tmp_path / "workspace"
    for folder in (tools, workspace, tmp_path / "temp"):
        folder.mkdir()
    for name in ("rm", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
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
    bash = [str(shutil.which("bash")), "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS["setup"]["run"]]
    return subprocess.run(bash, cwd=workspace, env=environ, capture_output=True, text=True, timeout=300)


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


def test_neither_the_repository_nor_pips_settings_get_in(tmp_path: Path) -> None:
    """A module of the checkout is not ours, packages go into our folder, and `python` does where `python3` is old."""
    elsewhere = tmp_path / "elsewhere"
    shadow = dict.fromkeys(("logging.py", "pathlib.py"), "raise SystemExit('the repository was imported')")
    done = set_up(
        tmp_path, {"python3": OLD, "python": PYTHON}, shadow, PIP_TARGET=str(elsewhere), PIP_CONSTRAINT="/no/such/file"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not elsewhere.exists()
    python = (tmp_path / "output").read_text().strip().removeprefix("python=")
    ran = subprocess.run(
        [python, "-I", "-m", "runnable_ci", "--version"], capture_output=True, env={"PATH": os.defpath}
    )
    assert ran.returncode == 0, ran.stderr


def test_a_users_site_is_not_ours(tmp_path: Path) -> None:
    """A machine where pip installs for the user by default."""
    done = set_up(tmp_path, {"python3": PYTHON}, PIP_USER="1")
    assert done.returncode == 0, done.stdout + done.stderr
