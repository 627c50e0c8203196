"""Tests of what is said of a step whose process failed: its exit code explained, and what may help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli import Done, Workspace, workspace

from runnable_ci.pipeline.resolve import resolve
from runnable_ci.steps.base import StepContext
from runnable_ci.steps.failure import Explanation, explain_exit
from runnable_ci.util.process import oom_kills

STEPS = {
    "plain": ("exit 3", "exit code 3", ""),
    "script": ("./prep.sh", "exit code 126: a command could not be executed", "`chmod +x ./prep.sh`"),
    "folder": ("true && ./sub", "exit code 126: a command could not be executed", "`./sub` is a folder"),
    "typo": ("x=1\npyhton3 x.py", "exit code 127: a command was not found", "did you mean `python3`?"),
    "function": ("f() { zzyzzx; }\nf", "exit code 127: a command was not found", "`zzyzzx` is not on PATH"),
    "file": (
        "if true; then ./rpep.sh; fi",
        "exit code 127: a command was not found",
        "no `./rpep.sh`; did you mean `prep",
    ),
    "windows": ("./dos.sh", "exit code 127: a command was not found", "`dos.sh` has the line ends of Windows"),
    "interpreter": ("./gone.sh", "exit code 12", "`gone.sh` is for /no/such/perl, which does not exist"),
    "venv": ("dvcx pull", "exit code 127: a command was not found", "`dvcx` is in .venv/bin, which is not on PATH"),
    "pipe": ("yes | head -1", "exit code 141: usually a command that was ended by SIGPIPE", "|| true"),
    "inner": ("bash -c 'kill -9 $$'; exit $?", "exit code 137: usually a command that was ended by SIGKILL", "memory"),
    "own": ("kill -9 $$", "ended by SIGKILL", "often the memory ran out"),
    "crash": ("kill -SEGV $$", "ended by SIGSEGV", "PYTHONFAULTHANDLER"),
    "limit": ("timeout 0.1 sleep 9", "exit code 124: `timeout` ended a command", ""),
    "expression": ("cat <<X\n${{ parameters.depth }}\nX", "exit code 1", "write $depth"),
    "output": ("cat <<X\n${{ steps.a.outputs.n_rows }}\nX", "exit code 1", "write $n_rows"),
    "sha": ("echo ${{github.sha}}", "exit code 1", "write $GITHUB_SHA"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Done]:
    """A run of all these steps at once."""
    steps = [f"[steps.{name}]\nneeds = []\nrun = '''{script}'''\n" for name, (script, _, _) in STEPS.items()]
    files = {
        "runnable.toml": "".join(steps),
        "prep.sh": "true\n",
        "sub/a": "",
        "dos.sh": "#!/bin/bash\r\ntrue\r\n",
        "gone.sh": "#!/no/such/perl -w\n",
        ".venv/bin/dvcx": "#!/bin/sh\n",
    }
    project = workspace(tmp_path_factory.mktemp("failures"), files, git=False)
    for name in ("dos.sh", "gone.sh", ".venv/bin/dvcx"):
        (project.folder / name).chmod(0o755)
    return project, project.runnable("run", code=1)


@pytest.mark.parametrize("name", STEPS)
def test_an_exit_code_is_explained(ran: tuple[Workspace, Done], name: str) -> None:
    """The log has what the code says, the output of the command what may help, where there is anything."""
    project, done = ran
    _, message, hint = STEPS[name]
    assert project.log().steps[name].attempts[-1].message.startswith(message)
    hints = [line for line in done.err.splitlines() if line.split(" |")[0].strip() == name and "hint: " in line]
    assert len(hints) == bool(hint)
    assert hint in "".join(hints)


def test_out_of_memory() -> None:
    """Where the system counts one more process that it ended for lack of memory, that is said."""
    step = resolve({"steps": {"a": {"run": "x"}}}, file="p.toml", default_name="p").steps["a"]
    context = StepContext(Path(), Path(), {}, "", {}, lambda _: Path())
    said = explain_exit(step, context, -9, is_out_of_memory=True)
    assert said == explain_exit(step, context, 137, is_out_of_memory=True).__class__(said.message, said.hint)
    assert "because memory ran out" in said.hint
    assert "memory" not in explain_exit(step, context, 143, is_out_of_memory=True).hint
    assert explain_exit(step, context, 255) == Explanation("exit code 255")
    assert oom_kills() >= 0


def test_a_module_that_the_interpreter_does_not_have(tmp_path: Path) -> None:
    """The interpreter is named, and where the module is: in an unused `.venv`, in a folder, or nowhere."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    steps = 'python = "{}"\n[steps.a]\npython = "m:a"\n[steps.b]\npython = "m:b"\nneeds = []\n'
    work = "def a():\n    import zz_package\n\ndef b():\n    import zz_helpers.inner\n"
    project = workspace(
        tmp_path, {"runnable.toml": steps.format(tmp_path / "other/bin/python"), "m.py": work}, git=False
    )
    project.write({"lib/zz_helpers/__init__.py": ""})
    said = project.runnable("run", code=1).err
    program = os.fspath(tmp_path / "other/bin/python")
    assert f"hint: {program} does not have `zz_package`; if a package has it: {program} -m pip install" in said
    assert 'hint: `zz_helpers` is in the folder lib: let Python look there, env = { PYTHONPATH = "lib" }' in said
    assert project.log().steps["a"].attempts[-1].message == "ModuleNotFoundError: No module named 'zz_package' (m.py:2)"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.folder / ".venv"], check=True)
    lies = f'hint: {program} does not have `zz_package`; .venv lies here unused: python = ".venv/bin/python" at the'
    assert lies in project.runnable("run", code=1).err
    (packages,) = project.folder.glob(".venv/lib/python3*/site-packages")
    (packages / "zz_package.py").touch()
    assert "does not have `zz_package`; .venv has it: python =" in project.runnable("run", code=1).err


COMMAND_LINE = """
import argparse
import sys

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", required=True)
    parser.parse_args()

def other():
    sys.exit(4)
"""


def test_a_function_that_reads_a_command_line(tmp_path: Path) -> None:
    """Where a parser ended it, the hint is how to run a script; any other exit has none."""
    steps = "[steps.a]\npython = 'm:main'\n[steps.b]\npython = 'm:other'\nneeds = []\n"
    said = workspace(tmp_path, {"runnable.toml": steps, "m.py": COMMAND_LINE}, git=False).runnable("run", code=1).err
    (hint,) = [line for line in said.splitlines() if "| hint: " in line]
    assert hint.startswith("a | hint: it reads a command line, and a python step has none: write a shell step, such as")
