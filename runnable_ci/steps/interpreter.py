"""Where steps run: the interpreter, its packages, the machine. Recorded once for all attempts that share it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.errors import StepError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.toml_file import names_in
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.steps.python import Source, find_module, find_source, is_put_before, search_path
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
_FIND = """
import sys, importlib.util
count = int(sys.argv[1])
sys.path[:0] = sys.argv[2:2 + count]
print(*[name for name in sys.argv[2 + count:] if importlib.util.find_spec(name) is None])
"""
Say = Callable[[str], None]
_COMPILE = """
import sys
for place, file in enumerate(sys.argv[1:]):
    try:
        compile(open(file, "rb").read(), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        sys.stdout.buffer.write(f"{place} {error}".encode(errors="replace"))
        break
"""


def _silent(_text: str) -> None:
    """Say nothing."""


def find_interpreter(pipeline: Pipeline, workspace: Path, environ: Mapping[str, str], say: Say = _silent) -> str:
    """Return the program that runs python steps: the named one, that of the project's environment, or that on PATH.

    A named one need not be there yet where an earlier step may make it. An environment that was activated
    (`VIRTUAL_ENV`) comes before that of the project. Raises `PipelineError` where the pipeline names one that is not
    there, or has python steps and there is none.
    """
    is_needed = any(map(_is_here, pipeline.steps.values())) or not any(it.container for it in pipeline.steps.values())
    if pipeline.python is not None and is_needed:  # else it is that of an image
        named = pipeline.python
        path = workspace / named if "/" in named else None
        is_program = path is not None and os.access(path, os.X_OK)
        found = str(path) if is_program else shutil.which(named, path=environ.get("PATH"))
        if found:
            return found
        problem = f'python = "{named}" is not found or not executable'
        if path is None or not _can_be_made(pipeline, workspace, named, problem, say):
            raise pipeline.place.error("", problem, _interpreter_hint(named, workspace), key="python")
        return str(path)
    own = workspace / PROJECT_INTERPRETER
    if not environ.get("VIRTUAL_ENV") and os.access(own, os.X_OK):
        return str(own)
    search = environ.get("PATH", os.defpath)
    found = shutil.which("python", path=search) or shutil.which("python3", path=search)
    if found is None and any(map(_is_here, pipeline.outlined().steps.values())):
        raise pipeline.place.error(
            "",
            "there is no `python` on PATH for the python and notebook steps",
            'set it at the top of the file: python = ".venv/bin/python"',
        )
    return found or ""


def _is_here(step: Step) -> bool:
    """Whether a step runs in an interpreter of this machine."""
    return step.is_interpreted and step.container is None


def chosen_interpreter_note(pipeline: Pipeline, workspace: Path, interpreter: str) -> str:
    """Return a line on an interpreter that nobody named; empty where it was, or nothing runs in it."""
    is_own = pipeline.python is None and interpreter == str(workspace / PROJECT_INTERPRETER)
    is_used = any(map(_is_here, pipeline.outlined().steps.values()))
    return f"note: python steps run in {PROJECT_INTERPRETER}" if is_own and is_used else ""


def _can_be_made(pipeline: Pipeline, workspace: Path, named: str, problem: str, say: Say) -> bool:
    """Return whether steps before each python step may make the interpreter; say so where that is not known."""
    from runnable_ci.steps.earlier import chance_of, misspelt  # nearly always all is there

    folder = named.partition("/bin/")[0]
    pipeline = pipeline.outlined()
    steps = list(filter(_is_here, pipeline.steps.values()))
    chances = {chance_of(pipeline, workspace, step, [folder]) for step in steps}
    if not steps or "none" in chances or (workspace / named).exists():
        return False
    if "unknown" in chances:
        if misspelt(folder, names_in(workspace)):
            return False
        say(f"warning: {pipeline.file}: {problem}; no step is known to make it")
    return True


def _interpreter_hint(named: str, workspace: Path) -> str:
    """Return a hint how to create an interpreter at that path."""
    from runnable_ci.steps.earlier import misspelt  # nearly always all is there

    folder, _, rest = named.rpartition("/bin/")
    if close := misspelt(folder, names_in(workspace)):
        return f"did you mean `{close}/bin/{rest}`?"
    return (
        f"python3 -m venv {folder} creates it"
        if folder and rest
        else "specify the path of an interpreter, or install it"
    )


def check_interpreter(pipeline: Pipeline, workspace: Path, environ: Mapping[str, str], say: Say = _silent) -> str:
    """Return the interpreter of python and notebook steps, after it was asked for what we can say nothing of.

    Those are what executes notebooks, modules that are not files of the workspace, and those whose syntax is not that
    of our interpreter. It is asked in the step's own folder and environment. Raises `PipelineError` for a step whose
    module it does not find, or cannot read; what an earlier step may make is only warned of, by `say`.
    """
    interpreter = find_interpreter(pipeline, workspace, environ, say)
    sources: dict[str, Source | None] = {}
    pipeline = pipeline.outlined()
    for step in (step for step in pipeline.steps.values() if step.kind == "python" and not step.container):
        with suppress(StepError):  # a function that an earlier step is to write; any other was refused before
            sources[step.name] = find_source(step, workspace)
    if not os.access(interpreter, os.X_OK):  # a step makes it
        return interpreter
    _check_syntax(pipeline, workspace, environ, interpreter, sources)
    foreign: dict[tuple[str, tuple[tuple[str, str], ...]], list[Step]] = {}
    for name, source in sources.items():
        if source is None:
            step = pipeline.steps[name]
            _check_submodule(pipeline, workspace, step)
            foreign.setdefault((step.working_directory, tuple(sorted(step.env.items()))), []).append(step)
    for (directory, env), steps in foreign.items():
        tops = {step.command.partition(":")[0].partition(".")[0]: step for step in reversed(steps)}
        folders = [str(folder) for folder in search_path(steps[0], workspace)]
        argv = [interpreter, "-c", _FIND, str(len(folders)), *folders, *tops]
        answer = check_output(argv, cwd=workspace / directory, env={**environ, **dict(env)}, timeout_s=30)
        for module in (answer or b"").decode(errors="replace").split():
            _refuse_module(pipeline, workspace, tops[module], module, interpreter, say)
    if any(step.kind == "notebook" for step in pipeline.steps.values()):
        from runnable_ci.steps.notebook.requirements import check_notebooks  # few pipelines have one

        check_notebooks(pipeline, workspace, environ, interpreter, say)
    return interpreter


def _check_syntax(
    pipeline: Pipeline,
    workspace: Path,
    environ: Mapping[str, str],
    interpreter: str,
    sources: Mapping[str, Source | None],
) -> None:
    strange = {
        str(source.file): name
        for name, source in sources.items()
        if source
        and not source.is_parsed
        and not is_put_before(pipeline, pipeline.steps[name], source.file.relative_to(workspace).as_posix())
    }
    if not strange:
        return
    answer = check_output([interpreter, "-c", _COMPILE, *strange], cwd=workspace, env=environ, timeout_s=30)
    place, _, problem = (answer or b"").decode(errors="replace").partition(" ")
    if problem:
        file, name = list(strange.items())[int(place)]
        raise pipeline.error(
            pipeline.steps[name],
            f"python: {Path(file).name} cannot be loaded: {problem}",
            f"as {interpreter} reads it",
            key="python",
        )


def _check_submodule(pipeline: Pipeline, workspace: Path, step: Step) -> None:
    """Raise `PipelineError` for a module within one that is a file, and so has none in it, such as `m.py`."""
    module, _, function = step.command.partition(":")
    above = module.rpartition(".")[0]
    file = find_module(step._replace(command=f"{above}:{function}"), workspace) if above else None
    if file is None or file.name == "__init__.py" or is_put_before(pipeline, step, f"{above.replace('.', '/')}.py"):
        return
    if not re.search(rb"__path__|\bmodules\b", file.read_bytes()):  # by these it may have modules nevertheless
        raise pipeline.error(
            step,
            f"python: {file.name} is a module, and has no module `{module.rpartition('.')[2]}` in it",
            f'write python = "{above}:{function}"',
            key="python",
        )


def _refuse_module(pipeline: Pipeline, workspace: Path, step: Step, module: str, interpreter: str, say: Say) -> None:
    """Raise `PipelineError` for a module that is not there, or warn where an earlier step may make or install it."""
    from runnable_ci.steps.earlier import chance_of, misspelt  # nearly always all is there

    folders = search_path(step, workspace)
    known = [
        path.parent.name if path.name == "__init__.py" else path.stem for folder in folders for path in _modules(folder)
    ]
    paths = [
        f"{folder.relative_to(workspace).as_posix()}/{name}".removeprefix("./")
        for folder in folders
        for name in (f"{module}.py", module)
    ]
    chance = chance_of(pipeline, workspace, step, paths)
    looked = ", ".join(map(str, folders))
    problem = f"there is no module `{module}`, neither in {looked} nor in the environment of {interpreter}"
    if chance in ("declared", "named"):
        return
    if chance == "none" or misspelt(module, known):
        hint = did_you_mean(module, known) or _where_it_is(module, workspace)
        raise pipeline.error(step, f"python: {problem}", hint, key="python")
    suggestion = did_you_mean(module, known)
    say(
        f"warning: {pipeline.file}: step {step.shown}: {problem}; no step is known to make it"
        f"{suggestion and f'; {suggestion}'}"
    )


def _modules(folder: Path) -> list[Path]:
    return [*folder.glob("*.py"), *folder.glob("*/__init__.py")]


def _where_it_is(module: str, workspace: Path) -> str:
    """Return a hint at the folder of the workspace that has the module, such as `src`; empty if there is none."""
    found = next((path for path in [*workspace.glob(f"*/{module}.py"), *workspace.glob(f"*/{module}/*.py")]), None)
    if found is None:
        return ""
    folder = found.relative_to(workspace).parts[0]
    return f'it is in the folder {folder}: let Python look there, env = {{ PYTHONPATH = "{folder}" }}'


def describe_system(workspace: Path, environ: Mapping[str, str], *, tool_version: str) -> Environment:
    """Describe what is the same for all steps, as the system tells it; nothing of an interpreter."""
    return Environment(
        tool_version=tool_version,
        os=f"{platform.system()} {platform.release()}",
        libc=_libc(),
        distribution=_distribution(),
        architecture=platform.machine(),
        cpu_count=os.cpu_count() or 0,
        lock_files=_lock_files(workspace),
        variables={name: environ[name] for name in VARIABLES if name in environ},
    )


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # another one, which does not say
        return ""


def _distribution() -> str:
    """Return such as `ubuntu 24.04`; of macOS its version."""
    if sys.platform == "darwin":
        return f"macos {platform.mac_ver()[0]}"
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{release['ID']} {release.get('VERSION_ID', '')}".strip()


def key_of(environment: Environment) -> str:
    """Return a short name for an environment: equal environments have equal keys, however full the disk is."""
    known = environment.model_dump(exclude={"machine": {"disk_free"}})
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def _lock_files(workspace: Path) -> dict[str, str]:
    found = {path.name: path for pattern in LOCK_FILES for path in workspace.glob(pattern) if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(found.items())}
