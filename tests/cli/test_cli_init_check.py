"""Tests of `runnable-ci init` and `runnable-ci check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli import workspace


def test_starter(tmp_path: Path) -> None:
    """The starter file is right and runs as it is; the store is kept out of git, once; nothing is overwritten."""
    project = workspace(tmp_path, {".gitignore": "*.log"}, git=False)
    project.git("init", "-q")
    assert project.runnable("init").out == "wrote runnable.toml; next: runnable-ci run\n"
    written = project.read("runnable.toml")
    assert 'name = "project"' in written
    assert project.read(".gitignore") == "*.log\n.runnable/\n"
    assert "prepare: run\n" in project.runnable("check").out
    assert project.runnable("run", "-p", "greeting=hi").out == "report  | hi\n"
    assert project.log().metrics() == {"characters": 3}
    refused = project.runnable("init", code=2)
    assert refused.err == "error: runnable.toml already exists\nhint: `runnable-ci check` validates it\n"
    assert project.read("runnable.toml") == written
    (project.folder / "runnable.toml").unlink()
    (project.folder / ".venv" / "bin").mkdir(parents=True)
    (project.folder / ".venv" / "bin" / "python").touch()
    project.runnable("init", ".")
    assert 'python = ".venv/bin/python"' in project.read("runnable.toml")
    assert project.read(".gitignore") == "*.log\n.runnable/\n"
    assert "there is no folder nowhere" in project.runnable("init", "nowhere", code=2).err


def test_init_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    """A temporary file of an `init` that was killed goes with the next one; files of the user's own stay."""
    project = workspace(tmp_path, {".0123456789abcdef.tmp": "name =", ".mine.tmp": ""}, git=False)
    project.runnable("init")
    assert {path.name for path in project.folder.iterdir()} == {"runnable.toml", ".gitignore", ".mine.tmp"}


def test_check_says_what_the_pipeline_is(tmp_path: Path) -> None:
    """A right file is summed up: steps, what each comes after, and the interpreter of its python steps."""
    steps = "[steps.a]\nrun = 'true'\n[steps.b]\npython = 'work:b'\n[steps.c]\nneeds = ['a', 'b']\nrun = 'true'\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": "def b(): ...\n"})
    first, *lines, interpreter = project.runnable("check").out.splitlines()
    assert first == "runnable.toml: project, 3 steps"
    assert lines == ["  a: run", "  b: python after a", "  c: run after a, b"]
    assert interpreter.startswith("python steps run in /")
    assert not project.store.exists()


@pytest.mark.parametrize(
    ("content", "error", "hint"),
    [
        ("[steps.a]\nrun = ", "runnable.toml:2 is not TOML: invalid value", "a value is missing: run ="),
        ("[steps.a]\nrun = 'true'\nneed = []", "[steps.a] unknown key `need`", "did you mean `needs`?"),
        ("[steps.a]\nrun = 'true'\npython = 'a:b'", "[steps.a] has both `run` and `python`", "exactly one"),
        ("[steps.a]\nneeds = ['b']\nrun = 'true'\n[steps.b]\nrun = 'true'", "circular dependency", "remove one"),
        ("[steps.load]\nrun = 'true'\n[steps.b]\nneeds = ['laod']\nrun = 'true'", "[steps.b] ", "did you mean `load`?"),
        ("[parameters]\nPATH = 1\n[steps.a]\nrun = 'true'", "`PATH` is reserved", "environment variable"),
        ("[steps.a]\npython = 'work:lod'", "[steps.a] python: work.py has no function `lod`", "did you mean `load`?"),
        ("[steps.a]\npython = 'wrok:load'", "there is no module `wrok`", "did you mean `work`?"),
        (
            "python = 'no-such-python'\n[steps.a]\npython = 'work:load'",
            'python = "no-such-python" is not found or not executable',
            "install",
        ),
        ("[steps.a]\nrun = 'true'\nworking-directory = 'x'", "working-directory: there is no folder `x`", "create it"),
        ("[steps.a]\nrun = 'true'\ncatalog.put = ['../x']", "../x", ""),
        ("[steps.a]\nrun = 'true'\ncatalog.put = ['.git/config']", '".git/config" is never stored', "are left out"),
        ("[steps.a]\nrun = 'true'\ncatalog.get = ['.runnable/**']", '".runnable/**" is never stored', "are left out"),
        (f"[steps.{'a' * 300}]\nrun = 'true'", "is not a valid step name", "at most 100"),
        ("[steps.a]\npython = 'work:xyz'", "work.py has no function `xyz`", "it has load"),
        (
            "python = 'env/bin/python'\n[steps.a]\npython = 'work:load'",
            "is not found or not executable",
            "python3 -m venv env creates it",
        ),
    ],
)
def test_mistakes(tmp_path: Path, content: str, error: str, hint: str) -> None:
    """A mistake in the file is one error with file and place, and a hint; exit code 2, and nothing ran."""
    project = workspace(tmp_path, {"runnable.toml": content, "work.py": "def load(): ...\n"}, git=False)
    said = project.runnable("run", code=2).err
    first, *rest = said.splitlines()
    assert first.startswith("error: ")
    assert "runnable.toml" in first
    assert error in first
    shown = [line for line in rest if not line.startswith("hint: ")]
    assert shown == [] or re.fullmatch(r" +[0-9]+ \| .*\n +\| *\^+", "\n".join(shown))
    assert hint in "".join(rest)
    assert not project.store.exists()


def test_check_is_as_strict_as_run(tmp_path: Path) -> None:
    """`check` finds what `run` would; without a pipeline both say how to get one."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nruns = 'true'\n"}, git=False)
    assert project.runnable("check", code=2).err == project.runnable("run", code=2).err
    (project.folder / "runnable.toml").unlink()
    missing = project.runnable("check", code=2)
    assert missing.err.endswith("hint: `runnable-ci init` writes one\n")
