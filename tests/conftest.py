"""Fixtures that several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support import CEILING

pytest_plugins = ["long_tests"]
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

PURE_TESTS = frozenset(Path(__file__).with_name("pure.txt").read_text(encoding="utf-8").split())
_LEAVING = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "socket.", "pty.")
_pure_test = ""


def _refuse_to_leave(event: str, _arguments: tuple[Any, ...]) -> None:
    if _pure_test and event.startswith(_LEAVING):
        raise AssertionError(f"{event}: {_pure_test} is in tests/pure.txt, whose tests start nothing and reach nobody")


sys.addaudithook(_refuse_to_leave)


@pytest.fixture(autouse=True)
def _pure(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of a file in `pure.txt` cannot start a process or open a socket, however it is run."""
    global _pure_test  # noqa: PLW0603 - an audit hook is told nothing, and cannot be taken out
    path = request.path.relative_to(request.config.rootpath).as_posix()
    _pure_test = path if path in PURE_TESTS else ""
    yield
    _pure_test = ""


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
