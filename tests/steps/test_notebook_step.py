"""Tests of notebook steps: real notebooks in real kernels, by the program itself."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, is_alive, workspace
from notebooks import code, notebook, outputs, text
from support import wait_until

from runnable_ci.github.summary import render
from runnable_ci.runs.model import FAIL, SUCCESS, StepAttempt

TOP = f'python = "{sys.executable}"\n[parameters]\nalpha = 0.5\nunused = 1\n'
STEPS = """
[steps.make]
python = "lib:make"
returns = { table = "object", top = "metric" }
[steps.evaluate]
notebook = "nb/eval.ipynb"
returns = { score = "metric", rows = "json", note = "text", model = "object" }
env = { TOKEN_FILE = "data.txt" }
[steps.after]
python = "lib:after"
returns = ["seen"]
[steps.stop]
run = "exit 1"
"""
LIBRARY = """
def make():
    return {"a": [1, 2]}, float("nan")

def twice(x):
    return [2 * i for i in x]

def unused():
    return 1

def after(score, rows, note, model):
    return [score, rows, note, model.scale]
"""
CELLS = (
    text("# Evaluation"),
    code("alpha = 0.1\nlabel = 'default'\ntable = None", "parameters"),
    "import os, sys\nfrom lib import twice\nprint('alpha is', alpha, os.getcwd())\nprint('problem', file=sys.stderr)",
    "class Model:\n    scale = 3\nmodel = Model()",
    "with open(os.environ['TOKEN_FILE']) as file:\n    note = file.read()",
    "score = alpha * 2\nrows = twice(table['a'])\nprint(top, label, note)\nrows",
)


def project_of(folder: Path, steps: str, files: dict[str, str]) -> Workspace:
    """A project with these steps and files."""
    return workspace(folder, {"runnable.toml": TOP + steps, **files})


def last(project: Workspace, step: str) -> StepAttempt:
    """The newest attempt at a step."""
    return project.log().steps[step].attempts[-1]


def plan(project: Workspace, step: str, run: str = "latest") -> str:
    """What a retry would do with a step, and why."""
    lines = [line.split() for line in project.runnable("retry", run, "--dry-run").out.splitlines()]
    return next(" ".join(words[1:]) for words in lines if words[:1] == [step])


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project after a run with a notebook that takes and returns a value of each kind."""
    files = {"nb/eval.ipynb": notebook(*CELLS), "lib.py": LIBRARY, "data.txt": "fine"}
    project = project_of(tmp_path_factory.mktemp("evaluated"), STEPS, files)
    done = project.runnable("run", code=1)
    assert f"evaluate | alpha is 0.5 {project.folder}\n" in done.out
    assert "evaluate | problem\n" in done.err
    assert "IPKernelApp" not in done.err
    return project


def test_values_of_each_kind(evaluated: Workspace) -> None:
    """A notebook gets parameters, metrics and objects, and returns its variables, also an object of its own class."""
    attempt = last(evaluated, "evaluate")
    assert attempt.status == SUCCESS
    assert attempt.consumed == {"alpha": "seen", "table": "seen", "top": "seen"}
    assert attempt.defaulted == ["label"]
    assert last(evaluated, "after").output_parameters["seen"].value == [1.0, [2, 4], "fine", 3]


def test_the_executed_notebook(evaluated: Workspace) -> None:
    """It lies in a folder of its own, with the parameters in a cell of their own; the notebook itself is as it was."""
    [entry] = evaluated.log().steps["evaluate"].put_entries()
    assert entry.name == "executed/evaluate.ipynb"
    executed = json.loads(evaluated.read(entry.name))
    assert [cell["metadata"].get("tags") for cell in executed["cells"][1:3]] == [
        ["parameters"],
        ["injected-parameters"],
    ]
    sources = ["".join(cell["source"]) for cell in executed["cells"]]
    assert sources[2].splitlines() == [
        "# Parameters",
        "alpha = 0.5",
        "from runnable_parameters import table",
        "from runnable_parameters import top",
    ]
    assert outputs(evaluated.folder / entry.name)[-1] == "nan default fine\n"
    assert evaluated.git("status", "--porcelain", "nb/eval.ipynb") == ""


def test_what_it_read(evaluated: Workspace) -> None:
    """The kernel's files and modules count as read, the notebook's file does not."""
    attempt = last(evaluated, "evaluate")
    assert set(attempt.modules) == {"lib.py"}
    assert attempt.reach
    assert attempt.function_hash
    assert "data.txt" in evaluated.runnable("show", "latest", "evaluate", "--reads").out


EDITS: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "reuse unchanged since attempt 1"),
    "saved in Jupyter": (
        {"nb/eval.ipynb": notebook(*CELLS, text("more"), "# a comment", language_info={"name": "python"})},
        "reuse unchanged since attempt 1",
    ),
    "a cell was edited": (
        {"nb/eval.ipynb": notebook(*CELLS[:-1], f"{CELLS[-1]}\nscore = 2")},
        "run nb/eval.ipynb changed",
    ),
    "files that it did not read": (
        {"nb/other.txt": "x", "other.txt": "x", "nb/.ipynb_checkpoints/eval-checkpoint.ipynb": "{}"},
        "reuse unchanged since attempt 1",
    ),
    "a file that it read": ({"data.txt": "other"}, "run data.txt changed, which it read"),
    "a function that it calls": (
        {"lib.py": LIBRARY.replace("2 * i", "3 * i")},
        "run lib.py changed, which it read",
    ),
    "a function that it does not call": (
        {"lib.py": LIBRARY.replace("return 1", "return 2")},
        "reuse unchanged since attempt 1",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_resume(evaluated: Workspace, edit: str) -> None:
    """A finished notebook runs again where its code, or what it read, is different."""
    files, expected = EDITS[edit]
    before = {name: evaluated.read(name) for name in files}
    evaluated.write(files)
    try:
        assert plan(evaluated, "evaluate") == expected
    finally:
        evaluated.write(before)


def test_equal_outputs_are_equal_bytes(tmp_path: Path) -> None:
    """Executed again with the same outputs, the executed notebook is the same file: what follows is reused."""
    noisy = "import sys, warnings\nfor i in range(500):\n    print(i); print(-i, file=sys.stderr)\nwarnings.warn('old')"
    steps = """
[steps.write]
notebook = "n.ipynb"
executed = "out/report.ipynb"
[steps.read]
run = "grep -c outputs out/report.ipynb"
catalog = { get = ["out/report.ipynb"] }
[steps.stop]
run = "exit 1"
"""
    project = project_of(tmp_path, steps, {"n.ipynb": notebook(noisy, "open('a.txt').close()"), "a.txt": "a"})
    project.runnable("run", code=1)
    project.write({"a.txt": "b"})
    project.runnable("retry", "latest", code=1)
    log = project.log()
    assert len(log.steps["write"].attempts) == 2
    assert len(log.steps["read"].attempts) == 1


def test_a_failing_cell(tmp_path: Path) -> None:
    """Its number, source and traceback are in output and log, and the executed notebook is kept; a retry mends it."""
    cells: list[dict[str, Any] | str] = [
        text("# A"),
        "print('before')\ndef f(y):\n    return 1 / y",
        "f(0)",
        "print('never')",
    ]
    steps = '[steps.a]\nnotebook = "n.ipynb"\n'
    project = project_of(tmp_path, steps, {"n.ipynb": notebook(*cells)})
    done = project.runnable("run", code=1)
    assert "cell 3 of n.ipynb failed:" in done.err
    assert "\x1b" not in done.err
    attempt = last(project, "a")
    assert (attempt.status, attempt.message) == (FAIL, "ZeroDivisionError: division by zero (n.ipynb, cell 3)")
    assert attempt.exception is not None
    assert (attempt.exception.cell, attempt.exception.cell_source) == (3, "f(0)")
    assert "----> 1 f(0)" in attempt.exception.traceback
    assert (project.folder / "n.ipynb").read_text().splitlines()[attempt.exception.line - 1].strip() == '"f(0)"'
    summary = render(project.log())
    assert all(text in summary for text in ("cell 3 of n.ipynb failed:", "    f(0)", "----> 1 f(0)"))
    [entry] = project.log().steps["a"].data_catalog
    assert (entry.name, entry.stage) == ("executed/a.ipynb", "failed")
    project.runnable("catalog", "latest", "--get", "executed/a.ipynb", "--to", "kept.ipynb")
    assert outputs(project.folder / "kept.ipynb") == ["before\n"]
    project.write({"n.ipynb": notebook(*cells[:2], "f(1)")})
    project.runnable("retry", "latest")
    assert [it.status for it in project.log().steps["a"].attempts] == [FAIL, SUCCESS]


FAILURES = {
    "in_a_module": ("import lib\nlib.fail()", "KeyError: 'deep' (lib.py:2)"),
    "no_python": ("def f(:", "SyntaxError: invalid syntax (line 1) (no_python.ipynb, cell 1)"),
    "not_set": ("xx = 1", "WrongReturnsError: notebook `not_set.ipynb` did not set `not_set_x` (not_set.ipynb)"),
    "no_json": ("no_json_x = {1: 2}", "what JSON cannot hold: `no_json_x` has a key that is not a string but 1"),
    "exit_code": ("import sys\nsys.exit(3)", "SystemExit: 3 (exit_code.ipynb, cell 1)"),
    "question": ("x = input('name? ')", "frontend does not support input requests. (question.ipynb, cell 1)"),
    "crash": (
        "import os\nos.kill(os.getpid(), 9)",
        "its kernel died by SIGKILL: often the memory ran out (crash.ipynb,",
    ),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project after a run in which each notebook failed in a way of its own."""
    form = '[steps.{0}]\nneeds = []\nnotebook = "{0}.ipynb"\nreturns = {{ {0}_x = "json" }}\n'
    files = {f"{name}.ipynb": notebook(source) for name, (source, _) in FAILURES.items()}
    library = {"lib.py": "def fail():\n    raise KeyError('deep')\n"}
    project = project_of(tmp_path_factory.mktemp("failed"), "".join(map(form.format, FAILURES)), files | library)
    project.runnable("run", code=1)
    return project


@pytest.mark.parametrize("kind", FAILURES)
def test_failures(failed: Workspace, kind: str) -> None:
    """What goes wrong is said with its cell, or with the line of the module that raised it."""
    attempt = last(failed, kind)
    assert FAILURES[kind][1] in attempt.message
    assert attempt.exit_code == (3 if kind == "exit_code" else 1)


def test_ipython(tmp_path: Path) -> None:
    """Magics, shell commands and `sys.exit(0)` do what they do in Jupyter; nothing is executed after that exit."""
    cells = [
        "%matplotlib inline\nfound = !echo {alpha}\n%time y = 1",
        "%%bash\necho from bash",
        "import sys\nsys.exit()",
    ]
    steps = '[steps.a]\nnotebook = "n.ipynb"\nreturns = ["found"]\n'
    project = project_of(tmp_path, steps, {"n.ipynb": notebook(*cells)})
    assert "a | from bash\n" in project.runnable("run").out
    assert last(project, "a").output_parameters["found"].value == ["0.5"]
    assert last(project, "a").consumed == {"alpha": "seen"}


@pytest.mark.promise
def test_secrets_are_masked(tmp_path: Path) -> None:
    """Neither the executed notebook, also of a failed step, nor the log has a secret that the notebook showed."""
    secret = "hunter2-and\nsecond-line"
    cells = ["import os\nkey = os.environ['MY_API_KEY']\nprint(key)", "key", "raise ValueError(key.splitlines()[1])"]
    project = project_of(tmp_path, '[steps.a]\nnotebook = "n.ipynb"\n', {"n.ipynb": notebook(*cells)})
    project.runnable("run", code=1, MY_API_KEY=secret)
    project.runnable("catalog", "latest", "--get", "executed/a.ipynb", "--to", "kept.ipynb")
    kept = project.read("kept.ipynb")
    assert "***" in kept
    found = [path for path in project.folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert found == []
    assert "second-line" not in kept + project.runnable("show", "latest", "--json").out


def test_hints(tmp_path: Path) -> None:
    """A file that is there from the notebook's own folder, and a missing module, are said how to be reached."""
    files = {"nb/n.ipynb": notebook("open('x.csv').close()\nimport no_such_module"), "nb/x.csv": "1"}
    project = project_of(tmp_path, '[steps.a]\nnotebook = "nb/n.ipynb"\n', files)
    assert 'in which Jupyter runs it: working-directory = "nb"\n' in project.runnable("run", code=1).err
    project.write({"runnable.toml": f'{TOP}[steps.a]\nnotebook = "nb/n.ipynb"\nworking-directory = "nb"\n'})
    assert "-m pip install no-such-module\n" in project.runnable("run", code=1).err


def test_format_3(tmp_path: Path) -> None:
    """A notebook of format 3 is executed too, and its result has no ids drawn by lot."""
    cells = [{"cell_type": "code", "input": ["print(alpha)"], "language": "python", "metadata": {}, "outputs": []}]
    document = {"metadata": {}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells, "metadata": {}}]}
    project = project_of(tmp_path, '[steps.a]\nnotebook = "n.ipynb"\n', {"n.ipynb": json.dumps(document)})
    project.runnable("run")
    executed = json.loads(project.read("executed/a.ipynb"))
    assert (executed["nbformat"], executed["nbformat_minor"]) == (4, 4)
    assert [cell.get("id") for cell in executed["cells"]] == [None, None]
    assert outputs(project.folder / "executed/a.ipynb") == ["0.5\n"]


def test_a_matrix(tmp_path: Path) -> None:
    """Each instance takes its own values and keeps its own executed notebook; returns come together in a list."""
    steps = """
[steps.a]
notebook = "nb/n.ipynb"
returns = ["size"]
strategy = { matrix = { sample = ["gut", "a/b"] } }
[steps.b]
notebook = "sum.ipynb"
returns = { total = "metric" }
"""
    files = {"nb/n.ipynb": notebook("print(sample)\nsize = len(sample)"), "sum.ipynb": notebook("total = sum(size)")}
    project = project_of(tmp_path, steps, files)
    project.runnable("run")
    executed = list((project.folder / "executed").glob("a.*"))
    assert project.folder / "executed" / "a.gut.ipynb" in executed
    assert sorted(outputs(path) for path in executed) == [["a/b\n"], ["gut\n"]]
    assert last(project, "b").user_defined_metrics["total"].value == 6
    project.write({"runnable.toml": TOP + steps.replace("returns", 'executed = "out.ipynb"\nreturns', 1)})
    assert "`out.ipynb` is the same for each `sample`" in project.runnable("run", code=2).err


def test_values_in_its_keys(tmp_path: Path) -> None:
    """`with` gives values and objects by names of the notebook's own, and expressions stand in both of its paths."""
    steps = """
[steps.make]
python = "lib:make"
returns = { table = "object", top = "json" }
[steps.a]
notebook = "nb/${{ matrix.file }}.ipynb"
executed = "out/${{ matrix.file }}-${{ parameters.top }}.ipynb"
strategy = { matrix = { file = ["one", "two"] } }
with = { depth = "${{ parameters.top }}", frame = "${{ parameters.table }}" }
returns = ["found"]
[steps.stop]
run = "exit 1"
"""
    cells: list[dict[str, Any] | str] = [code("depth = 1", "parameters"), "found = [depth, frame['a']]"]
    files = {f"nb/{name}.ipynb": notebook(*cells, f"print('{name}')") for name in ("one", "two")}
    library = "def make():\n    return {'a': 1}, 7\n"
    project = project_of(tmp_path, steps, files | {"lib.py": library})
    project.runnable("run", code=1)
    assert project.log().parameters["found"].value == [[7, 1], [7, 1]]
    assert [outputs(project.folder / "out" / f"{name}-7.ipynb") for name in ("one", "two")] == [
        ["one\n"],
        ["two\n"],
    ]
    project.write({"nb/two.ipynb": notebook(*cells, "print('2')")})
    lines = project.runnable("retry", "latest", "--dry-run").out.splitlines()
    assert [line.split(")")[-1].split() for line in lines[1:3]] == [
        ["reuse", "unchanged", "since", "attempt", "1"],
        ["run", "nb/two.ipynb", "changed"],
    ]


def test_a_notebook_that_a_step_makes(tmp_path: Path) -> None:
    """It need not be there before, nor on another machine where the step that made it is reused."""
    steps = """
[steps.make]
run = "cp template.txt n.ipynb"
catalog = { put = ["n.ipynb"] }
[steps.a]
notebook = "n.ipynb"
returns = ["x"]
[steps.stop]
run = "test -e fixed"
"""
    project = project_of(tmp_path, steps, {"template.txt": notebook("x = alpha")})
    project.runnable("run", "--run-id", "r", code=1)
    other = elsewhere(project, tmp_path)
    shutil.copytree(project.store, other.store)
    assert plan(other, "a", "r") == "reuse unchanged since attempt 1"
    other.write({"fixed": "", "template.txt": notebook("x = alpha + 1")})
    other.runnable("retry", "r")
    assert [attempt.output_parameters["x"].value for attempt in other.log("r").steps["a"].attempts] == [0.5, 1.5]


@pytest.mark.parametrize("how", ["timed out", "cancelled", "killed"])
def test_nothing_is_left_running(tmp_path: Path, how: str) -> None:
    """A kernel ends with its step: by a time limit, a signal, or when the program itself is killed and retried."""
    limit = "timeout-minutes = 0.04\n" if how == "timed out" else ""
    cells = ["import os, pathlib, time\npathlib.Path('pid.log').write_text(str(os.getpid()))", "time.sleep(600)"]
    steps = f'[steps.a]\nnotebook = "n.ipynb"\n{limit}'
    project = project_of(tmp_path, steps, {"n.ipynb": notebook(*cells)})
    with project.start("run", "--run-id", "r") as running:
        pid = str(wait_until(lambda: project.read("pid.log"), "the kernel"))
        if how != "timed out":
            running.send_signal(signal.SIGTERM if how == "cancelled" else signal.SIGKILL)
        running.communicate()
    if how == "killed":
        project.write({"n.ipynb": notebook("print(1)")})
        project.runnable("retry", "r")
    else:
        [entry] = project.log().steps["a"].data_catalog
        assert (entry.name, entry.stage) == ("executed/a.ipynb", "failed")
    wait_until(lambda: not is_alive(pid), "the kernel's end")


@pytest.mark.parametrize(
    ("steps", "content", "problem"),
    [
        ('notebook = "other.ipynb"', notebook(), "notebook: there is no other.ipynb"),
        ('notebook = "n.ipynb"', "{", "notebook: n.ipynb is not a notebook"),
        ('notebook = "n.ipynb"\nkernel = "pythom3"', notebook(), "there is no kernel `pythom3`"),
        ('notebook = "n.ipynb"\nexecuted = "n.ipynb"', notebook(), "is the notebook itself"),
        ('notebook = "n.py"', notebook(), "is not the path of a notebook"),
        ('notebook = "n.ipynb"\nparameters = []', notebook(), "`parameters` belongs to `run` steps"),
        ('run = "true"\nkernel = "ir"', notebook(), "`kernel` belongs to `notebook` steps"),
        ('run = "true"\nnotebook = "n.ipynb"', notebook(), "has both `run` and `notebook`"),
        ('notebook = "../n.ipynb"', notebook(), "notebook: "),
    ],
)
def test_mistakes(tmp_path: Path, steps: str, content: str, problem: str) -> None:
    """What can be known before is one error, before anything runs."""
    project = project_of(tmp_path, f"[steps.a]\n{steps}\n", {"n.ipynb": content})
    done = project.runnable("run", code=2)
    assert problem in done.err
    assert "Traceback" not in done.err


def test_without_nbclient(tmp_path: Path) -> None:
    """Where the interpreter cannot execute notebooks, one error says so with the line that installs it."""
    project = project_of(tmp_path, '[steps.a]\nnotebook = "n.ipynb"\n', {"n.ipynb": notebook()})
    venv.create(project.folder / ".venv", symlinks=True)
    python = project.folder / ".venv" / "bin" / "python"
    project.write({"runnable.toml": 'python = ".venv/bin/python"\n[steps.a]\nnotebook = "n.ipynb"\n'})
    done = project.runnable("run", code=2)
    assert f"{python} has no nbclient and no ipykernel" in done.err
    assert f"hint: {python} -m pip install nbclient ipykernel" in done.err


def test_an_environment_that_a_step_makes(tmp_path: Path) -> None:
    """One that turns out to lack nbclient is said to, with the line that installs it, by the step itself."""
    steps = f"""
[steps.make]
run = "{sys.executable} -m venv --without-pip --symlinks env"
[steps.a]
notebook = "n.ipynb"
"""
    project = project_of(tmp_path, steps, {"n.ipynb": notebook("print(1)")})
    project.write({"runnable.toml": f'python = "env/bin/python"\n{steps}'})
    done = project.runnable("run", code=1)
    assert "a    | no module `nbformat`: notebooks are executed by it\na    | hint: " in done.err
    assert "env/bin/python -m pip install nbclient ipykernel\n" in done.err


def test_a_parameter_that_the_notebook_sets_itself(tmp_path: Path) -> None:
    """It is not passed, which is said, with what to do."""
    project = project_of(
        tmp_path, '[steps.a]\nnotebook = "n.ipynb"\n', {"n.ipynb": notebook("alpha = 1\nprint(alpha)")}
    )
    done = project.runnable("run")
    assert "n.ipynb sets `alpha` itself: tag that cell `parameters`" in done.err
    assert last(project, "a").consumed == {}


def test_an_installed_kernel(tmp_path: Path) -> None:
    """A kernel of another name is executed where the step asks for it, and knows parameters and returns if Python."""
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    steps = '[steps.a]\nnotebook = "n.ipynb"\nkernel = "mine"\nreturns = ["x"]\n'
    content = notebook("import os\nx = [alpha, os.environ['MINE']]")
    project = project_of(tmp_path, steps, {"n.ipynb": content})
    project.write(
        {"jupyter/kernels/mine/kernel.json": json.dumps({**kernel, "display_name": "Mine", "env": {"MINE": "yes"}})}
    )
    project.runnable("run", JUPYTER_PATH=str(project.folder / "jupyter"))
    assert last(project, "a").output_parameters["x"].value == [0.5, "yes"]


ECHO = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Echo(Kernel):
    implementation = banner = language = "echo"
    implementation_version = language_version = "1"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **more):
        if code == "fail":
            return {"status": "error", "ename": "", "evalue": "7", "traceback": [], "execution_count": 1}
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": code + "\\n"})
        return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Echo)
"""


def test_a_kernel_of_another_language(tmp_path: Path) -> None:
    """It is given no parameters, fails by its own errors, and cannot return: that is said before anything runs."""
    steps = '[steps.a]\nnotebook = "n.ipynb"\nkernel = "echo"\n'
    cells = notebook("alpha is used", "fail", language_info={"name": "echo"})
    project = project_of(tmp_path, steps, {"n.ipynb": cells, "echo.py": ECHO})
    argv = [sys.executable, str(project.folder / "echo.py"), "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Echo", "language": "echo"}
    project.write({"jupyter/kernels/echo/kernel.json": json.dumps(kernel)})
    variables = {"JUPYTER_PATH": str(project.folder / "jupyter")}
    done = project.runnable("run", code=1, **variables)
    assert "a | alpha is used\n" in done.out
    assert (last(project, "a").message, last(project, "a").consumed) == ("Error: 7 (n.ipynb, cell 2)", {})
    project.write({"runnable.toml": f'{TOP}{steps}returns = ["x"]\n'})
    assert "a notebook of echo cannot return variables" in project.runnable("run", code=2, **variables).err
    tagged = notebook(code("alpha", "parameters"), language_info={"name": "echo"})
    project.write({"runnable.toml": f"{TOP}{steps}", "n.ipynb": tagged})
    assert "parameters cannot be set in a notebook of echo" in project.runnable("run", code=2, **variables).err
