"""Tests of what is found before anything runs: parameters that steps need and that nothing gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace

SLEEPS = "[steps.s]\nrun = 'touch ran.log'\n"


def project_of(tmp_path: Path, steps: str, work: str = "", *, git: bool = False) -> Workspace:
    """A pipeline that first leaves a mark, and then takes its steps from here."""
    return workspace(tmp_path, {"runnable.toml": steps, "m.py": work, ".gitignore": "*.log\n__pycache__\n"}, git=git)


def test_missing_argument(tmp_path: Path) -> None:
    """An argument that nothing gives is one error of `run` before a step runs; `check` notes it."""
    steps = f"[parameters]\na = 1\n{SLEEPS}[steps.f]\npython = 'm:f'\n"
    project = project_of(tmp_path, steps, "def f(a, bb): ...\n")
    refused = project.runnable("run", code=2)
    assert refused.err == (
        "error: runnable.toml:6: [steps.f] `m:f` needs `bb`, which no parameter or earlier step provides\n"
        "  6 | python = 'm:f'\n    | ^^^^^^\n"
        'hint: set it under [parameters], or with --param bb=…; if an earlier step returns it, write returns = ["bb"] '
        "there\n"
    )
    assert project.runnable("run", "-n", code=2).err == refused.err
    assert not project.store.exists()
    assert not project.read("ran.log")
    assert project.runnable("check").err == (
        "note: step f: `m:f` needs `bb`, which no parameter or earlier step provides: specify it when you start a run\n"
    )
    assert "did you mean `bbb`?" in project.runnable("run", "-p", "bbb=1", code=2).err
    project.write({"p.toml": "bb = 1"})
    project.runnable("run", "-p", "bb=1")
    project.runnable("run", "--params-file", "p.toml")
    project.runnable("run", RUNNABLE_PRM_bb="1")


def test_missing_argument_of_a_retry(tmp_path: Path) -> None:
    """A retry needs what its steps need that run again, and no more."""
    steps = "[steps.f]\npython = 'm:f'\n[steps.g]\npython = 'n:g'\n"
    project = project_of(tmp_path, steps, "def f(): ...\n", git=True)
    project.write({"n.py": "def g(): 1 / 0\n"})
    project.runnable("run", code=1)
    project.write({"n.py": "def g(bb): ...\n"})
    refused = project.runnable("retry", "latest", code=2)
    assert refused.err.startswith("error: runnable.toml:4: [steps.g] `n:g` needs `bb`, which no parameter ")
    assert len(project.log().steps["g"].attempts) == 1
    project.runnable("retry", "latest", "-p", "bb=1")


def test_listed_parameter_that_is_missing(tmp_path: Path) -> None:
    """A parameter that a shell step lists and nothing gives is found as early; what steps above return is given."""
    more = "[steps.b]\nrun = 'echo zz=1 >> $RUNNABLE_OUTPUT'\nreturns = ['zz']\n"
    more += "[steps.a]\nparameters = ['zz']\nrun = ':'\n"
    project = project_of(tmp_path, SLEEPS + more)
    project.runnable("run")
    project.write({"runnable.toml": SLEEPS + more + "needs = ['s']\n"})
    refused = project.runnable("run", code=2)
    assert refused.err == (
        "error: runnable.toml:7: [steps.a] `parameters`: it needs `zz`, which no parameter or earlier step provides\n"
        "  7 | parameters = ['zz']\n    | ^^^^^^^^^^\n"
        "hint: `b` returns it: a step that needs it lists `b` in `needs`\n"
    )


FUNCTIONS = """
import functools
from dataclasses import dataclass
from typing import Optional

@dataclass
class Model:
    rate: float

def plain(rate: float, *args, depth=3, **kwargs): ...
def model(m: Model, optional: Optional[Model], text: "Model", alternative: Model | None): ...
@functools.partial(functools.partial, other=1)
def decorated(other): ...
if True:
    def chosen(): ...
else:
    def chosen(other): ...
def replaced(other): ...
replaced = plain
class Class:
    def method(): ...
"""


@pytest.mark.parametrize("name", ["plain", "model", "decorated", "chosen", "replaced", "Class", "Class.method"])
def test_what_is_given_or_cannot_be_told(tmp_path: Path, name: str) -> None:
    """Defaults, variable arguments, models, and functions that are more than their text are no mistakes."""
    steps = f"[parameters]\nrate = 1\n[steps.a]\npython = 'm:{name}'\n"
    project = project_of(tmp_path, steps, FUNCTIONS)
    assert project.runnable("check").err == ""
    project.runnable("run", "-n")


def test_star_import_may_bring_another(tmp_path: Path) -> None:
    """A function that a later star import may replace is not judged by its text."""
    project = project_of(tmp_path, "[steps.a]\npython = 'm:f'\n", "def f(other): ...\nfrom n import *\n")
    project.write({"n.py": "def f(): ...\n"})
    project.runnable("run")


def test_module_that_is_not_python(tmp_path: Path) -> None:
    """A module that the user's interpreter cannot read is found before anything runs, as a missing function is."""
    project = project_of(tmp_path, f"{SLEEPS}[steps.f]\npython = 'm:f'\n", "def f(:\n    pass\n")
    refused = project.runnable("run", code=2)
    assert refused.err.startswith(
        "error: runnable.toml:4: [steps.f] python: m.py cannot be loaded: invalid syntax (m.py, "
    )
    assert "\nhint: as /" in refused.err
    assert project.runnable("check", code=2).err == refused.err
    assert not project.store.exists()


def test_given_parameter_that_nothing_takes(tmp_path: Path) -> None:
    """A given name that no step is known to take is noted; one that looks misspelt is an error before anything runs."""
    steps = "[parameters]\nlr = 0.1\n[steps.s]\nrun = 'echo $lr $extra'\n[steps.f]\npython = 'm:f'\n"
    project = project_of(tmp_path, steps, "def f(depth=3): ...\n", git=True)
    refused = project.runnable("run", "-p", "extra=1", "-p", "rl=0.5", code=2)
    assert refused.err == (
        "error: unknown parameter rl: no step takes it\nhint: did you mean `lr`? --allow-unused passes it as it is\n"
    )
    assert "did you mean `depth`?" in project.runnable("run", "-n", "-p", "detph=5", code=2).err
    assert not project.store.exists()
    given = ("-p", "rl=0.5", "-p", "extra=1", "-p", "depth=4", "-p", "lr=2", "-p", "zzyzx=1")
    done = project.runnable("run", *given, "--allow-unused", RUNNABLE_PRM_ZZ="5")
    assert done.err.startswith(
        "note: unknown parameter ZZ: no step takes it\n"
        "note: unknown parameter rl: no step takes it; did you mean `lr`?\n"
        "note: unknown parameter zzyzx: no step takes it\nrun "
    )
    assert "note: unknown parameter lrr" in project.runnable("run", "-n", RUNNABLE_PRM_lrr="5").err
    assert "did you mean `rl`?" in project.runnable("retry", "latest", "-p", "rll=0.5", code=2).err
    retried = project.runnable("retry", "latest", "-p", "rll=0.5", "-p", "depth=5", "--allow-unused")
    assert "note: unknown parameter rll: no step takes it; did you mean `rl`?\n" in retried.err
    assert "depth" not in retried.err.partition("\nrun ")[0]


def test_given_parameter_where_a_function_may_take_any(tmp_path: Path) -> None:
    """Beside a function that may take anything only a name that resembles a known one is noted."""
    steps = "[parameters]\nrate = 0.1\n[steps.f]\npython = 'm:f'\n"
    project = project_of(tmp_path, steps, "def f(**kwargs): ...\n")
    said = project.runnable("run", "-n", "-p", "raet=1", "-p", "zz=1").err
    assert said == "note: unknown parameter raet: no step takes it; did you mean `rate`?\n"


def test_given_parameter_that_a_step_returns(tmp_path: Path) -> None:
    """A given value that a step's return replaces is noted."""
    steps = "[steps.a]\nrun = 'echo x=1 >> $RUNNABLE_OUTPUT'\nreturns = ['x']\n[steps.b]\nrun = 'echo $x'\n"
    done = project_of(tmp_path, steps).runnable("run", "-p", "x=100")
    assert done.err.startswith("note: parameter x is overwritten by the return value of step `a`\n")
