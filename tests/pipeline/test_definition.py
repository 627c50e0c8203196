"""Tests of `runnable_ci.Pipeline`: programs that define pipelines, run in an interpreter with nothing installed."""

from __future__ import annotations

import os
import signal
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from hypothesis import example, given
from hypothesis import strategies as st
from support import WAIT_S, wait_until

import runnable_ci
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.definition.toml_writer import toml_text

ROOT = Path(__file__).parents[2]
PROGRAM = """\
from pathlib import Path

from runnable_ci import Pipeline

import shapes


def total(areas, factor):
    return sum(areas) * factor


p = Pipeline("areas", parameters={"sides": [1, 2], "factor": 0.5}, log_level="info")
measured = p.step("measure", python=shapes.measure, returns=["areas"], needs=[])
p.step("total", python=total, returns={"sum": "metric"}, needs=[measured], timeout_minutes=1)
p.step("report", run='''
printf '%s\\\\n' "$sum" > "it's.txt"
''', catalog={"put": ["it's.txt"]})

if __name__ == "__main__":
    import sys
    p.run(*sys.argv[1:])
"""
FILES = {"pipeline.py": PROGRAM, "shapes.py": "def measure(sides):\n    return [it * it for it in sides]\n"}


def program(project: Workspace, *words: str, code: int = 0, **variables: str) -> str:
    """What a process of this interpreter wrote to stderr; it ends with this exit code."""
    command, environ = [sys.executable, *words], {**project.environ, **variables}
    done = subprocess.run(command, cwd=project.folder, env=environ, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == code, done.stderr
    return done.stderr


def define(project: Workspace, code: str) -> Any:
    """The table that a program with the standard library alone writes."""
    project.write({"define.py": f"from runnable_ci import Pipeline\np = Pipeline('p')\n{code}\np.write('made.toml')\n"})
    program(project, "-S", "define.py", PYTHONPATH=str(ROOT))
    return tomllib.loads(project.read("made.toml"))


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A program that defines a pipeline, of its own function and another module's."""
    return workspace(tmp_path, FILES)


def test_a_program_runs_its_pipeline_and_fails_with_it(project: Workspace) -> None:
    """The file is written with functions by name, `check` takes it, the run has its results; a failure is its own."""
    program(project, "pipeline.py")
    table = tomllib.loads(project.read("runnable.toml"))
    assert list(table) == ["name", "log-level", "parameters", "steps"]
    assert [step.get("python") for step in table["steps"].values()] == ["shapes:measure", "pipeline:total", None]
    project.runnable("check")
    assert project.log().metrics() == {"sum": 2.5}
    project.write({"shapes.py": "def measure(sides):\n    return 1 / 0\n"})
    failed = program(project, "pipeline.py", "--run-id", "broken", code=1)
    assert "ZeroDivisionError" in failed
    assert "SystemExit" not in failed
    assert project.log("broken").status == "FAIL"


def test_the_same_definition_gives_the_same_bytes(project: Workspace) -> None:
    """Whatever the seed of hashes; and a file that is as it should be is not written again."""
    written = set()
    for seed in "12":
        program(project, "-c", "import pipeline; pipeline.p.write()", PYTHONHASHSEED=seed)
        written.add((project.read("runnable.toml"), (project.folder / "runnable.toml").stat().st_ino))
    assert len(written) == 1


def test_nothing_but_the_standard_library_is_needed(project: Workspace) -> None:
    """Each way to write a key arrives in the file under its own name."""
    table = define(
        project,
        "p.step('a', run='true', needs='b', if_='always()', with_={'x': (1, 2)}, working_directory='d', shell=None)\n"
        "p.step('b', python='m:f', strategy={'matrix': {'n': range(3)}, 'max-parallel': 2})",
    )
    step = {"run": "true", "needs": ["b"], "if": "always()", "with": {"x": [1, 2]}, "working-directory": "d"}
    assert table["steps"]["a"] == step
    assert table["steps"]["b"]["strategy"] == {"matrix": {"n": [0, 1, 2]}, "max-parallel": 2}


def test_each_kind_of_step_can_be_defined(project: Workspace) -> None:
    """A matrix with a function that reduces, arguments, a condition, tries: as the file has them."""
    project.write(
        {
            "pipeline.py": """
import shapes
from runnable_ci import Pipeline
p = Pipeline("kinds", inputs={"limit": {"type": "number", "default": 10}})
squares = p.step(
    "squares", python=shapes.square, strategy={"matrix": {"n": range(1, 4)}}, returns=["squares"], reduce=shapes.total
)
half = p.step("half", python=shapes.half, needs=[squares], with_={"n": "${{ parameters.squares }}"}, returns=["half"])
p.step("say", run='echo "half $half"', if_="parameters.squares > parameters.limit", attempts=2, needs=half)
if __name__ == "__main__":
    p.run("--jobs", "2")
""",
            "shapes.py": "def square(n):\n    return n * n\ndef total(squares):\n    return sum(squares)\n"
            "def half(n):\n    return n / 2\n",
        }
    )
    program(project, "pipeline.py")
    assert project.log().parameters["half"].value == 7
    assert project.runnable("logs", "latest", "say").out.endswith("half 7.0\n")


def test_the_program_of_a_package_names_its_functions(project: Workspace) -> None:
    """`python -m package.module` has functions of that module, a program in a folder those of its path."""
    code = (
        "from runnable_ci import Pipeline\ndef f(): ...\np = Pipeline('p')\np.step('a', python=f)\n"
        "p.write('made.toml')\n"
    )
    project.write({"pack/__init__.py": "", "pack/flow.py": code})
    for words in (("-m", "pack.flow"), ("pack/flow.py",)):
        program(project, *words)
        assert tomllib.loads(project.read("made.toml"))["steps"]["a"]["python"] == "pack.flow:f"
        (project.folder / "made.toml").unlink()


class Callable:
    """Not a function."""

    def __call__(self) -> None:
        """Do nothing."""


def inner() -> Any:
    """A function that no other process finds."""

    def nested() -> None: ...

    return nested


@pytest.mark.parametrize("function", [lambda: 1, inner(), Callable(), Callable().__call__, "x".upper])
def test_a_function_that_has_no_name(function: Any) -> None:
    """One that no other process finds by a name is refused, with what to write."""
    pipeline = runnable_ci.Pipeline("p")
    pipeline.step("a", python=function)
    with pytest.raises(PipelineError, match="cannot be called by its name") as refused:
        pipeline.text()
    assert "top level of a module" in refused.value.hint


def test_a_file_of_the_user_s_own_stays(project: Workspace) -> None:
    """A pipeline file that was written by hand is not replaced, nor is a step of the same name."""
    project.write({"runnable.toml": "name = 'mine'\n"})
    refused = program(project, "-c", "import pipeline; pipeline.p.write()", code=1)
    assert "runnable.toml was not written by a program\nhint: move it away" in refused
    assert project.read("runnable.toml") == "name = 'mine'\n"
    pipeline = runnable_ci.Pipeline("p")
    pipeline.step("a", run="true")
    with pytest.raises(PipelineError, match="there is a step `a` already"):
        pipeline.step("a", run="false")


def test_a_step_does_not_start_its_own_pipeline(project: Workspace) -> None:
    """A program that runs when it is imported is refused within a step, and not started for ever."""
    project.write({"pipeline.py": PROGRAM.replace('if __name__ == "__main__":', "if True:")})
    refused = program(project, "pipeline.py", code=1)
    assert 'call `run` below `if __name__ == "__main__":`' in refused


def test_a_run_from_another_thread(project: Workspace) -> None:
    """As a notebook or a server may start one: Ctrl-C belongs to the main thread then."""
    code = (
        "import threading, pipeline\nit = threading.Thread(target=pipeline.p.run, args=('--run-id', 'r'))\nit.start()"
    )
    program(project, "-c", code)
    assert project.log("r").status == "SUCCESS"


def test_ctrl_c_ends_the_run_first(project: Workspace) -> None:
    """The program waits until the run has ended by it, and ends with that exit code."""
    project.write({"shapes.py": "import time\ndef measure(sides):\n    open('begun', 'w')\n    time.sleep(60)\n"})
    with subprocess.Popen(
        [sys.executable, "pipeline.py", "--run-id", "r"],
        cwd=project.folder,
        env=project.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        wait_until((project.folder / "begun").exists, "the step to begin")
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 130
    assert not any(line.startswith(b"Traceback") for line in err.splitlines())
    assert project.log("r").outcome == "cancelled"


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(alphabet="'\"\\\n\r\t #[{}x\0\x7f")
values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@example({"inputs": {}}, {})
@example({"inputs": {"a": 1}}, {"inputs": {}})
@example({}, {"x" * 100: {}})
@given(st.dictionaries(texts | st.text(string.ascii_letters), values, max_size=6), st.dictionaries(texts, values))
def test_what_is_written_is_read_back(table: dict[str, Any], step: dict[str, Any]) -> None:
    """Any table: text with quotes, line ends and control characters, numbers, nested lists and tables; and comments."""
    whole = {**table, "steps": {"a": step, "b.c": step}}
    notes = {(): ["one\ntwo \0"], ("steps", "a"): ["\x85x = 1\r\ny"]}
    assert tomllib.loads(toml_text(whole, comments=notes)) == whole


def test_keys_of_tables_are_written_as_those_of_a_step() -> None:
    """What is a word of the file may have `_` for `-` at any depth; names, such as axes, stay as they are."""
    pipeline = runnable_ci.Pipeline("p", defaults={"timeout_minutes": 2})
    strategy = {"matrix": {"max_depth": [1]}, "max_parallel": 2}
    pipeline.step("a", run="true", strategy=strategy, attempts={"wait_seconds": 1}, env={"A_B": "1"})
    written = tomllib.loads(pipeline.text())
    assert written["defaults"] == {"timeout-minutes": 2}
    assert written["steps"]["a"]["strategy"] == {"matrix": {"max_depth": [1]}, "max-parallel": 2}
    assert written["steps"]["a"]["attempts"] == {"wait-seconds": 1}
    assert written["steps"]["a"]["env"] == {"A_B": "1"}
