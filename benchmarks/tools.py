"""The same work, told to each tool in its own words."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

DONE = "done"
"""Every step appends a line to that file, so that they can be counted."""
PYTHON_STEP = f"""
def step():
    print("a step")
    with open("{DONE}", "a") as done:
        done.write("\\n")
"""
"""`work.py`, what python steps call."""


@dataclass(frozen=True)
class Step:
    """A step of a work: a shell command or, for a python step, none."""

    name: str
    command: str = ""
    needs: str = ""
    """The step before it, if it must wait for one."""
    gets: str = ""
    """The file, or the folder if its name ends with a slash, that it takes from the step before it."""
    puts: str = ""

    @property
    def shell(self) -> str:
        """What a shell does for it, which takes no python steps."""
        return self.command or "python -c 'import work; work.step()'"

    @property
    def logged(self) -> str:
        """The same with its output into a file, for a tool that starts a shell of its own."""
        return f"{{ {self.shell}; }} > {self.log} 2>&1"

    @property
    def log(self) -> str:
        """The file that the step's output goes to where the tool does not keep it itself."""
        return f"logs/{self.name}"


@dataclass(frozen=True)
class Tool:
    """A tool to compare with."""

    name: str
    tell: Callable[[Path, Sequence[Step], int], list[str]]
    """Write the steps into a folder for a number of jobs; the command that does them."""
    package: str = ""
    """What pip installs it from."""
    help: tuple[str, ...] = ()
    """The command that prints its help."""


def install(tool: Tool, cache: Path) -> Path:
    """The folder of the tool's programs, in a virtual environment of its own under `cache`."""
    folder = cache / (tool.name if tool.package else "python")
    if not (folder / "ready").exists():
        print(f"installing {tool.package or 'a bare python'} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=bool(tool.package), clear=True)
        if tool.package:
            subprocess.run([folder / "bin" / "pip", "install", "--quiet", tool.package], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def _bash(folder: Path, steps: Sequence[Step], jobs: int) -> list[str]:
    """Each step a `bash -c`, its output to a file; files are hashed and copied as a tool that keeps them must."""
    lines = []
    for step in steps:
        lines.append(f"bash -c {shlex.quote(step.shell)} > {step.log} 2>&1")
        if step.puts:
            lines.append(f"mkdir -p kept; find {step.puts} -type f -exec openssl dgst -sha256 {{}} + > kept/hashes")
            lines.append(f"cp -r {step.puts} kept/")
    if jobs > 1:
        (folder / "lines").write_text("\n".join(lines) + "\n")
        lines = [f"xargs -P {jobs} -d '\\n' -n 1 bash -c < lines"]
    (folder / "steps.sh").write_text("set -eo pipefail\n" + "\n".join(lines) + "\n")
    return ["bash", "steps.sh"]


def _runnable_ci(folder: Path, steps: Sequence[Step], jobs: int) -> list[str]:
    lines = ['name = "work"']
    for step in steps:
        lines.append(f"[steps.{step.name}]")
        lines.append(f"run = {json.dumps(step.command)}" if step.command else 'python = "work:step"')
        lines.append(f"needs = {json.dumps([step.needs] if step.needs else [])}")
        lines += [f"catalog.put = [{json.dumps(step.puts.rstrip('/'))}]"] * bool(step.puts)
        lines += [f"catalog.get = [{json.dumps(step.gets.rstrip('/'))}]"] * bool(step.gets)
    (folder / "runnable.toml").write_text("\n".join(lines) + "\n")
    return [str(Path(sys.executable).with_name("runnable-ci")), "run", "--jobs", str(jobs)]


def _doit(folder: Path, steps: Sequence[Step], jobs: int) -> list[str]:
    def files(name: str) -> list[str]:
        return [name + file.name for file in (folder.parent / "seed").iterdir()] if name.endswith("/") else [name]

    tasks = [
        {
            "name": step.name,
            "actions": [f"bash -c {shlex.quote(step.shell)} > {step.log} 2>&1"],
            "targets": [step.log, *(files(step.puts) if step.puts else [])],
            "file_dep": [*([f"logs/{step.needs}"] if step.needs else []), *(files(step.gets) if step.gets else [])],
        }
        for step in steps
    ]
    (folder / "dodo.py").write_text(f"def task_work():\n    yield from {tasks!r}\n")
    return ["doit", "run", *(["-n", str(jobs)] if jobs > 1 else [])]


def _snakemake(folder: Path, steps: Sequence[Step], jobs: int) -> list[str]:
    def file(name: str) -> str:
        return f"directory({name.rstrip('/')!r})" if name.endswith("/") else repr(name)

    rules = [f"rule all:\n    input: {[step.log for step in steps]!r}"]
    for step in steps:
        gets = ([repr(f"logs/{step.needs}")] if step.needs else []) + (
            [repr(step.gets.rstrip("/"))] if step.gets else []
        )
        puts = [repr(step.log), *([file(step.puts)] if step.puts else [])]
        shell = step.logged.replace("{", "{{").replace("}", "}}")
        rules.append(
            f"rule {step.name}:\n    input: {', '.join(gets)}\n    output: {', '.join(puts)}\n    shell: {shell!r}"
        )
    (folder / "Snakefile").write_text("\n".join(rules) + "\n")
    return ["snakemake", "--cores", str(jobs), "--quiet", "all"]


def _dvc(folder: Path, steps: Sequence[Step], _jobs: int) -> list[str]:
    """It does one stage at a time."""
    stages = {}
    for step in steps:
        gets = [f"logs/{step.needs}"] * bool(step.needs) + [step.gets.rstrip("/")] * bool(step.gets)
        puts = [step.log, *([step.puts.rstrip("/")] if step.puts else [])]
        stages[step.name] = {"cmd": step.logged, "deps": gets, "outs": puts}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\nanalytics = false\n")
    return ["dvc", "repro", "--quiet"]


def _runnable(folder: Path, steps: Sequence[Step], _jobs: int) -> list[str]:
    """Independent steps too are a chain: its branches, which it can run at once, take five times as long."""

    def task(step: Step) -> str:
        catalog = f"catalog=Catalog(get={_globs(step.gets)}, put={_globs(step.puts)})"
        if step.command:
            return f"ShellTask(name={step.name!r}, command={step.command!r}, {catalog})"
        return f"PythonTask(name={step.name!r}, function=step)"

    (folder / "pipeline.py").write_text(
        "from runnable import Catalog, Pipeline, PythonTask, ShellTask\nfrom work import step\n\n"
        f"def main():\n    pipeline = Pipeline(steps=[{', '.join(map(task, steps))}])\n"
        "    pipeline.execute()\n    return pipeline\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    return ["python", "pipeline.py"]


def _globs(name: str) -> list[str]:
    return [f"{name}*" if name.endswith("/") else name] if name else []


BASH = Tool("bash", _bash)
OURS = Tool("runnable-ci", _runnable_ci, help=(str(Path(sys.executable).with_name("runnable-ci")), "--help"))
OTHERS = (
    Tool("doit", _doit, "doit==0.37.0", help=("doit", "help")),
    Tool("Snakemake", _snakemake, "snakemake==9.27.1", help=("snakemake", "--help")),
    Tool("DVC", _dvc, "dvc==3.67.1", help=("dvc", "--help")),
    Tool("runnable", _runnable, "runnable==0.50.0", help=("runnable", "--help")),
)
