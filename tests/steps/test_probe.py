"""Tests of what an interpreter says of itself: asked once, and again as soon as its packages may be others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.steps.probe import SETTLED_NS, Answer, ask

LONG_AGO = time.time() - 100_000


class Interpreter:
    """A virtual environment in which nothing was changed for a while, with a package `a` of version 1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.program = folder / "venv" / "bin" / "python"
        self.home = folder / "home"
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        (self.packages,) = folder.glob("venv/lib/python3*/site-packages")
        self.install("a", "1")
        self.environ = {"HOME": str(self.home), "PATH": os.defpath}

    def install(self, name: str, version: str) -> None:
        """Put a package there, as pip would."""
        about = self.packages / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        self.settle()

    def settle(self) -> None:
        """Let the last change be one that is not of this moment: the clock of the file system goes on meanwhile."""
        for path in (*self.packages.glob("*.pth"), self.packages):
            os.utime(path, (LONG_AGO, LONG_AGO + len(list(self.packages.iterdir()))))

    def ask(self, *, settled_ns: int = 0, **variables: str) -> Answer:
        """What it says."""
        return ask(str(self.program), self.workspace, {**self.environ, **variables}, settled_ns=settled_ns)

    def notes(self) -> list[Path]:
        """The files in which answers are kept."""
        return list(self.home.glob(".cache/runnable-ci/interpreters/*"))

    def mark(self) -> None:
        """Change what is kept, so that one sees whether it is used."""
        (note,) = self.notes()
        note.write_text(note.read_text().replace('"a":"1"', '"a":"kept"'))


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    """An interpreter of which an answer is kept."""
    found = Interpreter(tmp_path)
    assert found.ask().packages["a"] == "1"
    found.mark()
    return found


def test_an_interpreter_is_asked_once(interpreter: Interpreter) -> None:
    """Where nothing has changed, what is kept is what it says."""
    assert interpreter.ask().packages["a"] == "kept"
    assert interpreter.ask().version.startswith("cpython 3.")
    assert Path(interpreter.ask().executable) == interpreter.program


def change_settings(interpreter: Interpreter) -> None:
    """Let the system's packages be seen too."""
    file = interpreter.program.parents[1] / "pyvenv.cfg"
    file.write_text(file.read_text().replace("= false", "= true"))


def replace_interpreter(interpreter: Interpreter) -> None:
    """Another file under the same name."""
    interpreter.program.unlink()
    interpreter.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.program.chmod(0o755)


def add_folder(interpreter: Interpreter) -> None:
    """A `.pth` file, as an editable installation has it."""
    (interpreter.packages / "more.pth").write_text(str(interpreter.workspace))


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.install("b", "1"),
        lambda found: (found.packages / "a-1.dist-info").rename(found.packages / "a-2.dist-info"),
        add_folder,
        change_settings,
        replace_interpreter,
    ],
    ids=["installed", "updated", "pth", "pyvenv.cfg", "replaced"],
)
def test_what_changed_is_asked_for_again(interpreter: Interpreter, change: Callable[[Interpreter], object]) -> None:
    """A package more, another version, another search path, another interpreter."""
    change(interpreter)
    assert interpreter.ask().packages.get("a") != "kept"


def test_a_search_path_that_is_edited_is_seen(tmp_path: Path) -> None:
    """The folder's time stays as it was when a `.pth` file in it is written to."""
    interpreter = Interpreter(tmp_path)
    add_folder(interpreter)
    interpreter.ask()
    interpreter.mark()
    assert interpreter.ask().packages["a"] == "kept"
    with (interpreter.packages / "more.pth").open("a") as file:
        file.write("\n# nothing\n")
    assert interpreter.ask().packages["a"] == "1"


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH"])
def test_other_variables_are_another_question(interpreter: Interpreter, name: str) -> None:
    """What Python, or the system that loads it, reads from the environment counts."""
    assert interpreter.ask(settled_ns=0, **{name: "/nowhere"}).packages["a"] == "1"
    interpreter.mark()
    assert interpreter.ask(settled_ns=0, **{name: "/nowhere"}).packages["a"] == "kept"


def test_a_variable_of_others_is_not(interpreter: Interpreter) -> None:
    """A job's own variables do not have the interpreter asked again."""
    assert interpreter.ask(GITHUB_RUN_ID="7").packages["a"] == "kept"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"key": 1}', "\ud800", "link", "fifo", "huge", "without states"],
    ids=["empty", "broken", "list", "type", "bytes", "link", "fifo", "huge", "without states"],
)
def test_what_is_not_ours_is_not_used(interpreter: Interpreter, content: str) -> None:
    """Whatever lies in place of what was kept, the interpreter is asked and the run is not held up."""
    (note,) = interpreter.notes()
    kept = note.read_text()
    note.unlink()
    match content:
        case "link":
            (interpreter.workspace / "elsewhere").write_text(kept)
            note.symlink_to(interpreter.workspace / "elsewhere")
        case "fifo":
            os.mkfifo(note)
        case "huge":
            note.write_text(kept + " " * 4 * 1024 * 1024)
        case "without states":
            note.write_text(json.dumps({**json.loads(kept), "states": {}}))
        case text:
            note.write_bytes(text.encode(errors="surrogatepass"))
    assert interpreter.ask().packages["a"] == "1"
    assert note.is_file()
    assert not note.is_symlink()


def test_a_change_of_this_moment_is_not_relied_upon(tmp_path: Path) -> None:
    """Where a file system counts whole seconds, the next change might not show: nothing is kept then."""
    interpreter = Interpreter(tmp_path)
    (interpreter.packages / "now").touch()
    assert interpreter.ask(settled_ns=SETTLED_NS).packages["a"] == "1"
    assert interpreter.notes() == []


def test_a_launcher_is_asked_each_time(tmp_path: Path) -> None:
    """A script that chooses among interpreters, as pyenv's does, decides by what we do not know."""
    interpreter = Interpreter(tmp_path)
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nexec "{interpreter.program}" "$@"\n')
    launcher.chmod(0o755)
    assert ask(str(launcher), tmp_path, interpreter.environ, settled_ns=0).packages["a"] == "1"
    assert interpreter.notes() == []


@pytest.mark.parametrize("variables", [{"HOME": ""}, {"HOME": "/proc/1/nowhere"}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_without_a_cache_folder_it_is_asked(tmp_path: Path, variables: dict[str, str]) -> None:
    """A home that is not there or cannot be written is no failure."""
    assert Interpreter(tmp_path).ask(settled_ns=0, **variables).packages["a"] == "1"


def test_the_modules_of_the_workspace_have_no_say(tmp_path: Path) -> None:
    """A file of the user's that is called like one of Python's is not imported."""
    interpreter = Interpreter(tmp_path)
    for name in ("json", "re", "site", "importlib"):
        (interpreter.workspace / f"{name}.py").write_text("raise SystemExit(1)")
    assert interpreter.ask().packages["a"] == "1"


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false", "/bin/echo", "/no/such/program"])
def test_what_is_no_python_says_nothing(tmp_path: Path, program: str) -> None:
    """Its path is all that is known."""
    assert ask(program, tmp_path, {"HOME": str(tmp_path)}) == Answer(executable=program)


def test_a_home_that_is_a_repository_is_not_changed(tmp_path: Path, git: Callable[..., str]) -> None:
    """What is kept in it is no change of the code."""
    interpreter = Interpreter(tmp_path / "new")
    interpreter.home.mkdir(exist_ok=True)
    git(interpreter.home, "init", "-q")
    interpreter.ask()
    assert interpreter.notes()
    assert git(interpreter.home, "status", "--porcelain") == ""


def test_the_record_has_each_package_by_its_normal_name(tmp_path: Path) -> None:
    """As an index has it, whatever its folder is called."""
    interpreter = Interpreter(tmp_path)
    interpreter.install("Odd_Name.x", "2.0+local")
    assert Environment(packages=interpreter.ask().packages).packages["odd-name-x"] == "2.0+local"


@pytest.mark.parametrize(
    ("direct_url", "installer", "origin"),
    [
        ({"url": "file:///somewhere", "dir_info": {"editable": True}}, "pip", "editable"),
        ({"url": "file:///somewhere", "dir_info": {}}, "uv", "folder"),
        ({"url": "file:///a-1.whl", "archive_info": {}}, "pip", "file"),
        ({"url": "https://user:hunter2@host/a-1.whl", "archive_info": {}}, "pip", "url"),
        ({"url": "https://host/a", "vcs_info": {"vcs": "git", "commit_id": "0"}}, "pip", "git"),
        ({"url": "https://host/a", "vcs_info": {"vcs": "hg", "commit_id": "0"}}, "pip", "repository"),
        ({"url": "file:///croot/a/work", "dir_info": {}}, "conda", None),
        ("nonsense", "pip", None),
        (None, "pip", None),
    ],
)
def test_from_what_a_package_was_installed(tmp_path: Path, direct_url: object, installer: str, origin: str) -> None:
    """The kind alone, of what came from no index: a URL may hold secrets. Conda's say where they were built."""
    interpreter = Interpreter(tmp_path)
    about = interpreter.packages / "a-1.dist-info"
    (about / "INSTALLER").write_text(f"{installer}\n")
    if direct_url is not None:
        (about / "direct_url.json").write_text(json.dumps(direct_url))
    found = interpreter.ask()
    assert found.packages["a"] == "1"
    assert found.origins.get("a") == origin
    assert "hunter2" not in "".join(note.read_text() for note in interpreter.notes())
