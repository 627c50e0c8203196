"""Tests of what is looked for before anything runs: refused where it is certainly missing, else warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace


def project_of(tmp_path: Path, steps: str, work: str = "", *, git: bool = False) -> Workspace:
    """A pipeline, and a module for its steps."""
    return workspace(tmp_path, {"runnable.toml": steps, "m.py": work, ".gitignore": "__pycache__\n"}, git=git)


def refused(project: Workspace, **files: str) -> str:
    """What `check` and `run` both say of a pipeline, before there is a run."""
    project.write({name.replace("__", "."): content for name, content in files.items()})
    said = project.runnable("check", code=2).err
    assert project.runnable("run", code=2).err == said
    return said


def test_forgotten_returns(tmp_path: Path) -> None:
    """Where a step before has the name in its function or script, the hint is that it may return it."""
    steps = "[steps.a]\npython = 'm:a'\n[steps.b]\npython = 'm:b'\n"
    project = project_of(tmp_path, steps, "def a():\n    x = 1\n    return x\ndef b(x): ...\n")
    assert '\nhint: if `a` returns it: write returns = ["x"] in [steps.a]\n' in project.runnable("run", code=2).err
    project.write({"runnable.toml": steps.replace("'m:a'\n", "'m:a'\nreturns = ['y']\n")})
    assert "\nhint: if `a` returns it: add `x` to its `returns`\n" in project.runnable("run", code=2).err


def test_src_layout(tmp_path: Path) -> None:
    """A module is looked for by PYTHONPATH, of the step or of all steps, from the step's own folder."""
    step = "[steps.a]\npython = 'pk.m:f'\n"
    project = project_of(tmp_path, f"{step}env = {{ PYTHONPATH = 'src' }}\n")
    project.write({"src/pk/m.py": "def f(x=1): ...\n", "w/a": ""})
    project.runnable("check")
    project.runnable("run")
    elsewhere = f"env = {{ PYTHONPATH = '../nowhere:../src' }}\n{step}working-directory = 'w'\n"
    project.write({"runnable.toml": elsewhere})
    project.runnable("run")
    project.write({"src/pk/m.py": "def g(): ...\n"})
    assert "m.py has no function `f`" in project.runnable("check", code=2).err
    project.write({"src/pk/m.py": "def f(x=1): ...\n"})
    said = refused(project, runnable__toml=step)
    assert 'hint: it is in the folder src: let Python look there, env = { PYTHONPATH = "src" }' in said
    assert project.runnable("check", PYTHONPATH="src").err == ""


def test_what_the_environment_of_a_step_gives(tmp_path: Path) -> None:
    """A module outside the workspace is asked for in the step's environment, each step's in its own."""
    first = "[steps.a]\npython = 'far.m:f'\nenv = { PYTHONPATH = '../lib' }\n"
    project = project_of(tmp_path, f"{first}[steps.b]\npython = 'far.m:f'\nneeds = []\n")
    (project.folder.parent / "lib/far").mkdir(parents=True)
    (project.folder.parent / "lib/far/m.py").write_text("def f(): ...\n")
    assert "[steps.b] python: there is no module `far`" in refused(project)
    project.write({"runnable.toml": first})
    project.runnable("check")
    project.runnable("run")


MAKE = "[steps.make]\nrun = '''{}'''\n{}[steps.use]\npython = '{}:f'\n"


def test_module_that_a_step_makes(tmp_path: Path) -> None:
    """What an earlier step puts, or names, is not missing; what one may make is warned of; a slip is refused."""
    put = "catalog.put = ['gen*.py']\n"
    project = project_of(tmp_path, "")
    project.write({"make.sh": 'echo "def f(): print(7)" > "$(echo gen)_a.py"\n', "other.py": ""})
    for pipeline, warns in (
        (MAKE.format("bash make.sh", put, "gen_a"), False),
        (MAKE.format("bash make.sh # gen_a", "", "gen_a"), False),
        (MAKE.format("bash make.sh", "", "gen_a"), True),
    ):
        (project.folder / "gen_a.py").unlink(missing_ok=True)
        project.write({"runnable.toml": pipeline})
        done = project.runnable("run")
        assert "7" in done.out
        assert ("warning: runnable.toml: step use: there is no module `gen_a`" in done.err) is warns
    assert "did you mean `other`?" in refused(project, runnable__toml=MAKE.format("bash make.sh", "", "ohter"))
    alone = "[steps.use]\npython = 'gen_b:f'\n"
    assert "there is no module `gen_b`" in refused(project, runnable__toml=alone)


def test_module_that_a_step_replaces(tmp_path: Path) -> None:
    """What lies there of a module that an earlier step puts says nothing of its functions, or of their arguments."""
    steps = "[steps.make]\nrun = 'echo \"def new(): print(7)\" > m.py'\ncatalog.put = ['m.py']\n"
    steps += "[steps.use]\npython = 'm:new'\n"
    for number, old in enumerate(("def old(): ...\n", "def new(zz): ...\n", "a syntax of tomorrow\n")):
        (tmp_path / str(number)).mkdir()
        assert "7" in project_of(tmp_path / str(number), steps, old).runnable("run").out


def test_interpreter_that_a_step_makes(tmp_path: Path) -> None:
    """An interpreter that an earlier step makes need not be there yet, and is recorded once it is."""
    steps = "python = 'env7/bin/python'\n[steps.make]\nrun = '{}'\n[steps.use]\npython = 'm:f'\n"
    work = "import sys\ndef f(): print(sys.executable)\n"
    project = project_of(tmp_path, steps.format("python3 -m venv --without-pip env7"), work)
    assert project.runnable("check").err == ""
    program = f"{project.folder}/env7/bin/python"
    assert project.runnable("run").out.endswith(f"{program}\n")
    used = project.log().steps["use"].attempts[-1].environment
    assert project.log().environments[used].interpreter == program
    project.write({"runnable.toml": steps.format("bash setup").replace("env7", "other8")})
    assert "no step is known to make it" in project.runnable("check").err
    misspelt = steps.format("bash setup").replace("env7", "evn7")
    assert "hint: did you mean `env7/bin/python`?" in refused(project, runnable__toml=misspelt)
    beside = steps.format("python3 -m venv env9").replace("env7", "env9") + "needs = []\n"
    assert "is not found or not executable" in refused(project, runnable__toml=beside)


def test_module_in_a_file(tmp_path: Path) -> None:
    """A file is no package: `m.py:f` is refused with the right form, unless the file may have modules nevertheless."""
    project = project_of(tmp_path, "[steps.a]\npython = 'm.py:f'\n", "def f(): ...\n")
    said = refused(project)
    assert said.startswith("error: runnable.toml:2: [steps.a] python: m.py is a module, and has no module `py` in it\n")
    assert said.endswith('hint: write python = "m:f"\n')
    project.write({"m.py": "import sys\nsys.modules['m.py'] = sys.modules['m']\ndef f(): ...\n"})
    project.runnable("run")


def test_inputs_that_are_missing(tmp_path: Path) -> None:
    """A file to get that no step can make is found before anything runs; what one may make is warned of."""
    steps = "[steps.a]\nrun = 'bash make.sh'\n{}[steps.b]\nrun = 'cat x/data.csv'\ncatalog.get = ['x/data.csv']\n{}"
    put = "catalog.put = ['x/d*.csv']\n"
    project = project_of(tmp_path, steps.format("", "needs = []\n"))
    project.write({"make.sh": "mkdir -p x; echo 7 > x/$(echo da)ta.csv\n", "x/dtaa.csv": ""})
    said = refused(project)
    assert said.startswith(
        "error: runnable.toml:5: [steps.b.catalog] get: no file matches `x/data.csv`, and no earlier"
    )
    assert "hint: did you mean `x/dtaa.csv`?" in said
    beside = steps.format(put, "needs = []\n")
    assert "hint: `a` stores it: list `a` in `needs`" in refused(project, runnable__toml=beside)
    assert not project.store.exists()
    assert "did you mean `x/dtaa.csv`?" in refused(project, runnable__toml=steps.format("", ""))
    (project.folder / "x/dtaa.csv").unlink()
    done = project.runnable("run")
    assert "b | 7\n" in done.out
    assert done.err.startswith("warning: runnable.toml: step b: get: no file matches `x/data.csv`, and no earlier step")
    project.write({"runnable.toml": steps.format(put, "")})
    (project.folder / "x/data.csv").unlink()
    assert "warning" not in project.runnable("check").err
    assert "b | 7\n" in project.runnable("run").out


def test_inputs_of_a_retry(tmp_path: Path) -> None:
    """A retry looks only for what its steps get that run again."""
    steps = "[steps.a]\nrun = 'cat in.txt'\ncatalog.get = ['in.txt']\n"
    steps += "[steps.b]\nrun = 'exit 3'\ncatalog.get = ['more.txt']\nneeds = []\n"
    project = project_of(tmp_path, steps, git=True)
    project.write({"in.txt": "7", "more.txt": ""})
    project.runnable("run", code=1)
    (project.folder / "more.txt").unlink()
    assert "[steps.b.catalog] get: no file matches `more.txt`" in project.runnable("retry", "latest", code=2).err
    project.write({"more.txt": "8", "runnable.toml": steps.replace("exit 3", "true")})
    project.runnable("retry", "latest")


def test_expressions_of_github(tmp_path: Path) -> None:
    """An expression in a script is warned of, with what to write in its place; other braces are not."""
    steps = "[parameters]\ndepth = 3\n[steps.a]\nrun = 'echo ${{ github.sha }}'\n"
    steps += "[steps.b]\nrun = 'echo ${depth} {{ depth }}'\n"
    steps += "[steps.c]\nshell = 'python'\nrun = 'print(1) # ${{ inputs.depth }}'\n"
    steps += "[steps.d]\nrun = \"echo '${{ parameters.depth }}'\"\n"
    assert project_of(tmp_path, steps).runnable("check").err.splitlines() == [
        "warning: runnable.toml: step a: run: `${{ github.sha }}` is not replaced in a script: write $GITHUB_SHA",
        "warning: runnable.toml: step c: run: `${{ inputs.depth }}` is not replaced in a script: write "
        'os.environ["depth"]',
        "warning: runnable.toml: step d: run: `${{ parameters.depth }}` is not replaced in a script: write $depth",
    ]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("parameters.depth", "write $depth"),
        ("steps.load.outputs.n", "write $n"),
        ("matrix.sample", "write $sample"),
        ("needs.load.outputs['n']", "`with` makes one"),
    ],
)
def test_a_script_with_an_expression_that_a_shell_cannot_read(tmp_path: Path, text: str, right: str) -> None:
    """Values reach a script as variables: an expression that the shell would stumble over stops before it runs."""
    steps = "[steps.load]\nrun = 'echo n=1 >> $RUNNABLE_OUTPUT; touch ran'\nreturns = ['n']\n"
    steps += f'[steps.a]\nrun = "echo ${{{{ {text} }}}}"\n'
    project = project_of(tmp_path, steps)
    for command in ("check", "run"):
        err = project.runnable(command, code=2).err
        assert f"[steps.a] run: `${{{{ {text} }}}}` is not replaced in a script" in err
        assert right in err
    assert not (project.folder / "ran").exists()


def test_the_path_of_a_pipeline_that_does_not_exist(tmp_path: Path) -> None:
    """A step's name in place of a path, a slip, and anything else: each hint says how to run the pipeline."""
    project = project_of(tmp_path, "[steps.fit]\nrun = 'true'\n")
    assert "`fit` is a step of runnable.toml: `runnable-ci run fit`" in project.runnable("check", "fit", code=2).err
    assert "did you mean `runnable.toml`?" in project.runnable("run", "runable.toml", code=2).err
    assert "the pipeline here is runnable.toml" in project.runnable("run", "zz.toml", code=2).err
    (project.folder / "runnable.toml").unlink()
    assert "init` writes one" in project.runnable("run", "zz.toml", code=2).err


def test_an_input_that_a_killed_run_has_aside(tmp_path: Path) -> None:
    """While a killed run has an input of the user's aside it is not missing: the next run finds it again."""
    script = "rm in.txt; [ -e dead ] || { touch dead; kill -9 $PPID; sleep 9; }; echo 7 > in.txt"
    steps = f"[steps.a]\nrun = '{script}'\n"
    project = project_of(tmp_path, f"{steps}catalog = {{ get = ['in.txt'], put = ['in.txt'] }}\n")
    project.write({"in.txt": "3\n"})
    project.runnable("run", code=-9)
    assert not project.read("in.txt")
    assert "in.txt" not in project.runnable("check").err
    project.runnable("run")
    assert project.read("in.txt") == "7\n"
