"""Where steps run: the interpreter, its packages, the machine. Recorded once for all attempts that share it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from runnable_ci.errors import PipelineError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.model import Environment
from runnable_ci.steps.probe import Answer, ask
from runnable_ci.steps.python import find_source
from runnable_ci.util.process import check_output

LOCK_FILES = (
    *("requirements*.txt", "pyproject.toml", "poetry.lock", "uv.lock", "pdm.lock", "pylock*.toml", "Pipfile.lock"),
    *("environment.y*ml", "conda-lock.y*ml", "pixi.lock", "renv.lock", "package-lock.json", "Cargo.lock", "go.sum"),
)
VARIABLES = (
    *("CI", "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED", "CONDA_DEFAULT_ENV", "CUDA_VISIBLE_DEVICES"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("GITHUB_ACTOR", "GITHUB_EVENT_NAME", "GITHUB_HEAD_REF", "GITHUB_JOB", "GITHUB_REF", "GITHUB_REPOSITORY"),
    *("GITHUB_RUN_ATTEMPT", "GITHUB_RUN_ID", "GITHUB_RUN_NUMBER", "GITHUB_SERVER_URL", "GITHUB_SHA"),
    *("GITHUB_TRIGGERING_ACTOR", "GITHUB_WORKFLOW_REF", "GITHUB_WORKFLOW_SHA", "ImageOS", "ImageVersion"),
    *("RUNNER_ARCH", "RUNNER_ENVIRONMENT", "RUNNER_NAME", "RUNNER_OS"),
)
PROJECT_INTERPRETER = ".venv/bin/python"
"""Where tools lay a project's own environment."""
_FIND = "import sys,importlib.util as u;print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
_COMPILE = """
import sys
for place, file in enumerate(sys.argv[1:]):
    try:
        compile(open(file, "rb").read(), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        sys.stdout.buffer.write(f"{place} {error}".encode(errors="replace"))
        break
"""


def find_interpreter(pipeline: Pipeline, workspace: Path, environ: Mapping[str, str]) -> str:
    """Return the program that runs python steps: the named one, that of the project's environment, or that on PATH.

    An environment that was activated (`VIRTUAL_ENV`) comes before that of the project.
    Raises `PipelineError` where the pipeline names one that is not there, or has python steps and there is none.
    """
    if pipeline.python is not None:
        named = pipeline.python
        path = workspace / named if "/" in named else None
        is_program = path is not None and os.access(path, os.X_OK)
        found = str(path) if is_program else shutil.which(named, path=environ.get("PATH"))
        if not found:
            raise PipelineError(
                f'{pipeline.file}: python = "{named}" is not found or not executable', hint=_interpreter_hint(named)
            )
        return found
    own = workspace / PROJECT_INTERPRETER
    if not environ.get("VIRTUAL_ENV") and os.access(own, os.X_OK):
        return str(own)
    search = environ.get("PATH", os.defpath)
    found = shutil.which("python", path=search) or shutil.which("python3", path=search)
    if found is None and any(step.kind == "python" for step in pipeline.steps.values()):
        raise PipelineError(
            f"{pipeline.file}: there is no `python` on PATH for the python steps",
            hint='set it at the top of the file: python = ".venv/bin/python"',
        )
    return found or ""


def chosen_interpreter_note(pipeline: Pipeline, workspace: Path, interpreter: str) -> str:
    """Return a line on an interpreter that nobody named; empty where it was, or nothing runs in it."""
    is_own = pipeline.python is None and interpreter == str(workspace / PROJECT_INTERPRETER)
    is_used = any(step.kind == "python" for step in pipeline.steps.values())
    return f"note: python steps run in {PROJECT_INTERPRETER}" if is_own and is_used else ""


def _interpreter_hint(named: str) -> str:
    """Return a hint how to create an interpreter at that path."""
    folder, _, rest = named.rpartition("/bin/")
    return (
        f"python3 -m venv {folder} creates it"
        if folder and rest
        else "specify the path of an interpreter, or install it"
    )


def check_interpreter(pipeline: Pipeline, workspace: Path, environ: Mapping[str, str]) -> str:
    """Return the interpreter of python steps, after it was asked for the modules that we can say nothing of.

    Those are modules that are not files of the workspace, and those whose syntax is not that of our interpreter. Raises
    `PipelineError` for a step whose module it does not find, or cannot read.
    """
    interpreter = find_interpreter(pipeline, workspace, environ)
    sources = {step.name: find_source(step, workspace) for step in pipeline.steps.values() if step.kind == "python"}
    strange = {str(source.file): name for name, source in sources.items() if source and not source.is_parsed}
    if strange:
        answer = check_output([interpreter, "-c", _COMPILE, *strange], cwd=workspace, env=environ, timeout_s=30)
        place, _, problem = (answer or b"").decode(errors="replace").partition(" ")
        if problem:
            file, name = list(strange.items())[int(place)]
            raise PipelineError(
                f"{pipeline.file}: [steps.{name}] python: {Path(file).name} cannot be loaded: {problem}",
                hint=f"as {interpreter} reads it",
            )
    foreign = {
        pipeline.steps[name].command.partition(":")[0].partition(".")[0]: pipeline.steps[name]
        for name, source in sources.items()
        if source is None
    }
    if foreign:
        answer = check_output([interpreter, "-c", _FIND, *foreign], cwd=workspace, env=environ, timeout_s=30)
        for module in (answer or b"").decode(errors="replace").split():
            step = foreign[module]
            folder = workspace / step.working_directory
            raise PipelineError(
                f"{pipeline.file}: [steps.{step.name}] python: there is no module `{module}`, neither in {folder} nor "
                f"in the environment of {interpreter}",
                hint=did_you_mean(module, [path.stem for path in folder.glob("*.py")]),
            )
    return interpreter


def describe(interpreter: str, workspace: Path, environ: Mapping[str, str], *, tool_version: str) -> Environment:
    """Describe the environment as it is now, as the interpreter and the system tell it."""
    answer = ask(interpreter, workspace, environ) if interpreter else Answer()
    return Environment(
        tool_version=tool_version,
        os=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        cpu_count=os.cpu_count() or 0,
        interpreter=answer.executable,
        interpreter_version=answer.version,
        packages=dict(sorted(answer.packages.items())),
        lock_files=_lock_files(workspace),
        variables={name: environ[name] for name in VARIABLES if name in environ},
    )


def key_of(environment: Environment) -> str:
    """Return a short name for an environment: equal environments have equal keys."""
    return hashlib.sha256(json.dumps(environment.model_dump(), sort_keys=True).encode()).hexdigest()[:12]


def _lock_files(workspace: Path) -> dict[str, str]:
    found = {path.name: path for pattern in LOCK_FILES for path in workspace.glob(pattern) if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(found.items())}
