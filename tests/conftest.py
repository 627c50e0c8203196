"""Fixtures that several test files share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from support import CEILING

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _nothing_above(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither git nor the program looks above the folders of the tests, whatever lies there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CEILING, str(tmp_path_factory.getbasetemp().resolve()))
        yield


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which git knows an author and nothing of the machine's own settings."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[user]\nname = A\nemail = a@example.org\n[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
    )
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        CEILING: os.environ[CEILING],
        "XDG_CONFIG_HOME": str(home / "x"),
    }


@pytest.fixture
def git(environ: Mapping[str, str]) -> Callable[..., str]:
    """Runs git in a folder."""

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, env=environ, check=True, capture_output=True)
        return os.fsdecode(done.stdout).strip()

    return run
