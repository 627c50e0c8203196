"""`runnable-ci init` and `check`: write a pipeline file or workflows, and find mistakes in what is there."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w

from runnable_ci.engine.preflight import expression_warnings, load_project, missing_parameters, needs, require_inputs
from runnable_ci.errors import PipelineError, StoreError, UsageError
from runnable_ci.github.api.repository import of_folder
from runnable_ci.github.templates import ACTION, DEFAULT_REF, FOLDER, Name, repository_of, workflow
from runnable_ci.pipeline.project import FILE_NAME, find_file
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Step
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.store.opening import STORE_NAME
from runnable_ci.util.console import console
from runnable_ci.util.files import sweep, write_whole
from runnable_ci.util.github_host import GITHUB
from runnable_ci.util.shell_command import command, in_folder
from runnable_ci.util.text import pluralize

_STARTER = """\
# A pipeline of runnable-ci. `runnable-ci check` validates it, `runnable-ci run` runs it.
{name}
{python}
# Steps take parameters by name. `runnable-ci run --param greeting=hi` changes one.
[parameters]
greeting = "hello"

# A shell step: parameters are environment variables. It returns values as lines in $RUNNABLE_OUTPUT,
# and stores files by `put`; both are part of the run.
[steps.prepare]
run = '''
echo "$greeting" > greeting.txt
echo "characters=$(wc -c < greeting.txt)" >> "$RUNNABLE_OUTPUT"
'''
returns = {{ characters = "metric" }}
catalog = {{ put = ["greeting.txt"] }}

# It starts when the step above it has finished; `needs = ["prepare"]` means the same.
[steps.report]
run = "cat greeting.txt"
catalog = {{ get = ["greeting.txt"] }}

# A python step calls a function of your code, unchanged. Arguments are filled by name from the parameters.
# [steps.train]
# python = "my_module:train"
# returns = {{ model = "object", score = "metric" }}
"""


def write(
    folder: Path | None,
    *,
    source: Path | None,
    github: bool,
    only: Name | None,
    action_ref: str | None,
    environ: Mapping[str, str],
) -> None:
    """Write a pipeline file, that of another tool's `source` if there is one, or with `github` the workflows for one.

    Raises `UsageError`.
    """
    if source is not None and (github or folder not in (None, source.parent)):
        raise UsageError("--from takes no folder and no --github", hint="the pipeline file is written beside FILE")
    if github:
        init_github(folder, action_ref=action_ref, only=only, environ=environ)
    elif only is not None or action_ref is not None:
        raise UsageError("--only and --action-ref need --github")
    elif source is not None:
        init_from(source)
    else:
        file = init(folder or Path())
        console.out(f"wrote {file}; next: {in_folder(file.parent, 'run')}")


def init(folder: Path, content: bytes | None = None) -> Path:
    """Write a pipeline file, by default a commented starter, and keep the store out of git; return its path.

    Raises `UsageError` where there is one.
    """
    file = folder / FILE_NAME
    if file.exists():
        raise UsageError(f"{file} already exists", hint=f"`{in_folder(folder, 'check')}` validates it")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    sweep(folder)
    write_whole(file, starter(folder) if content is None else content)
    ignore_store(folder / ".gitignore")
    return file


def init_from(source: Path) -> None:
    """Write the pipeline file of another tool's pipeline beside it, and say how much of that has no counterpart.

    Raises `UsageError` for what cannot be understood, and where there is a pipeline file already.
    """
    from runnable_ci.cli.importers.formats import import_pipeline

    imported = import_pipeline(source)
    text = imported.text(command("init", "--from", source.name))
    try:
        resolve(tomllib.loads(text), file=FILE_NAME, default_name="", text=text)
    except PipelineError as e:
        raise UsageError(f"{source} cannot be imported as it is: {e.message}", hint=e.hint) from e
    file = init(imported.folder, text.encode())
    count = sum(map(len, imported.notes.values()))
    console.out(
        f"wrote {file}; next: {in_folder(file.parent, 'check')}",
        *([f"{pluralize(count, 'comment')} in it say what is different here"] if count else []),
    )


def starter(folder: Path) -> bytes:
    """Return the content of a starter file for a folder."""
    environment = folder / ".venv" / "bin" / "python"
    python = tomli_w.dumps({"python": ".venv/bin/python"}) if environment.exists() else ""
    name = tomli_w.dumps({"name": folder.resolve().name}).strip()
    return _STARTER.format(name=name, python=python).encode()


def ignore_store(path: Path) -> None:
    """Add the store to a `.gitignore`, unless it is listed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not {STORE_NAME, f"{STORE_NAME}/", f"/{STORE_NAME}/"}.intersection(map(str.strip, lines)):
        write_whole(path, "".join(f"{line}\n" for line in [*lines, f"{STORE_NAME}/"]).encode())


_NEXT = """\
next:
- Add what your steps need to the workflows (a Python, packages), and merge them into `{branch}`: GitHub shows the
  button of retry.yml, and accepts its dispatches, once it is on the default branch.
{registry}
- After a failure: "Re-run failed jobs", or with a fix: {dispatch}
"""


_REGISTRY = """\
- Runs are published to ghcr.io/OWNER/REPOSITORY/runs. The first one creates the package; its settings decide who may
  read it. If publishing is denied (403): "Manage Actions access" there, add the repository with the role Write."""
_NO_REGISTRY = """\
- Set a registry for the runs: `registry` in the pipeline file, or `registry:` where the workflows use the action.
  ghcr.io belongs to github.com, and {host} is another server."""


def init_github(folder: Path | None, *, action_ref: str | None, only: Name | None, environ: Mapping[str, str]) -> None:
    """Write the workflows of a repository, and a starter file where there is no pipeline yet.

    The pipeline is that of `folder`, by default of the current folder or the nearest one above it. All is written or
    nothing; a file that is there with just this content stays. Raises `UsageError` for one with other content.
    """
    start = (folder or Path()).resolve()
    if not start.is_dir():
        raise UsageError(f"there is no folder {folder}")
    repository = repository_of(start, environ)
    found = _pipeline_folder(folder, repository.root)
    names: tuple[Name, ...] = ("ci", "retry") if only is None else (only,)
    new = {
        repository.root / FOLDER / f"{name}.yml": workflow(
            name,
            action_ref=DEFAULT_REF if action_ref is None else action_ref,
            default_branch=repository.default_branch,
            pipeline=(found or start).relative_to(repository.root).as_posix(),
        ).encode()
        for name in names
    }
    again = ["--action-ref", action_ref] if action_ref is not None else []
    new = {path: content for path, content in new.items() if not _is_there(path, content, only, start, again)}
    if found is None:
        new[start / FILE_NAME] = starter(start)
    _write_all(new)
    if found is None:
        ignore_store(start / ".gitignore")
    written = ", ".join(os.path.relpath(path) for path in new)
    console.out(f"wrote {written}" if written else "nothing to do")
    dispatch = command("dispatch", "RUN_ID", "--ref", "BRANCH")
    remote = of_folder(str(repository.root), environ)
    host = remote.host if remote else GITHUB
    registry = _REGISTRY if host == GITHUB else _NO_REGISTRY.format(host=host)
    console.out(*_NEXT.format(branch=repository.default_branch, registry=registry, dispatch=dispatch).splitlines())


def _pipeline_folder(folder: Path | None, root: Path) -> Path | None:
    try:
        found = find_file(folder).parent
    except PipelineError:
        return None
    return found if found.is_relative_to(root) else None


def _is_there(path: Path, content: bytes, only: Name | None, folder: Path, again: Sequence[str]) -> bool:
    if not path.exists():
        return False
    if path.is_file() and path.read_bytes() == content:
        return True
    lines = content.decode()
    step = lines[lines.index(f"      - uses: {ACTION}") :]
    other = "retry" if path.stem == "ci" else "ci"
    alone = in_folder(folder, "init", "--github", "--only", other, *again)
    also = "" if only else f"\n`{alone}` writes only {other}.yml"
    raise UsageError(
        f"{os.path.relpath(path)} already exists with other content; nothing was written",
        hint=f"move it away, or add this to one of its jobs that has `packages: write`:\n{step.rstrip()}{also}",
    )


def _write_all(new: Mapping[Path, bytes]) -> None:
    """Write new files; none stays if one cannot be written."""
    written: list[Path] = []
    try:
        for path, content in new.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            write_whole(path, content)
            written.append(path)
    except (OSError, StoreError) as e:
        for path in written:
            path.unlink()
        if isinstance(e, StoreError):
            raise
        raise UsageError(f"{os.path.relpath(path)} cannot be written: {e.strerror}", hint="nothing was written") from e


def check(file: Path | None, environ: Mapping[str, str]) -> None:
    """Find every mistake that can be found without running a step; print what the pipeline is otherwise."""
    project = load_project(file)
    interpreter = check_interpreter(project.pipeline, project.workspace, environ, console.err)
    require_inputs(project, project.pipeline.steps, console.err)
    if any(executor.project for executor in project.pipeline.executors.values()):
        from runnable_ci.cli.context import make_options  # few have machines that share no folder with this one
        from runnable_ci.engine.elsewhere.apart.requirements import require_registry

        require_registry(project, project.pipeline.steps, make_options(None, quiet=True, plain_http=False))
    for warning in expression_warnings(project.pipeline):
        console.err(warning)
    steps, outlined = project.pipeline.steps.values(), project.pipeline.outlined()
    console.out(f"{project.pipeline.file}: {project.pipeline.name}, {pluralize(len(steps), 'step')}")
    for step in steps:
        after = f" after {', '.join(step.needs)}" if step.needs else ""
        console.out(f"  {step.name}: {_described(step)}{after}")
    if any(step.is_interpreted for step in outlined.steps.values()):
        console.out(f"python steps run in {interpreter}")
    for name, absent in missing_parameters(outlined, project.workspace, project.pipeline.parameters).items():
        shown = outlined.steps[name].shown
        console.err(f"note: step {shown}: {needs(outlined, name, absent)}: specify it when you start a run")


def _described(step: Step) -> str:
    """Return what a step is: its kind, or that of its branches, and how these come about."""
    branching = step.branching
    if branching is None:
        return step.kind
    inner = [_described(one) for one in branching.body.values()]
    what = inner[0] if [*branching.body] == [step.name] else ", ".join(branching.body)
    if branching.matrix is not None:
        return f"{what}, for each {', '.join(branching.matrix.names()) or 'instance'}"
    return f"{what}, until {branching.loop.until}" if branching.loop else what
