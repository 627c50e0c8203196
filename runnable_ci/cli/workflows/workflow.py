"""`runnable-ci workflow`: write the workflow that spreads a run over jobs, or find that it is stale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import UsageError
from runnable_ci.github.job_graph.workflow_file import MARK, WorkflowSource, workflow_text
from runnable_ci.github.templates import FOLDER, LocalRepository, repository_of
from runnable_ci.pipeline.command_line import is_default
from runnable_ci.pipeline.project import FILE_NAME, Project
from runnable_ci.util.console import console
from runnable_ci.util.files import sweep, write_whole
from runnable_ci.util.shell_command import command, path

_NEXT = """\
next:
- Commit it and merge it into `{branch}`. In a job, `{check}` fails where it is stale.
- What your steps need is in none of its jobs yet: `setup` or `setup-action` in [workflow] of the pipeline file."""


def workflow(
    file: Path | None, output: Path | None, *, is_check: bool, is_forced: bool, environ: Mapping[str, str]
) -> int:
    """Write the workflow of a pipeline, or only compare; return the exit code.

    Raises `PipelineError` for a pipeline that cannot be spread, `UsageError` for a file that must not be replaced.
    """
    project = load_project(file)
    repository = repository_of(project.workspace, environ)
    source = WorkflowSource(project.pipeline, _from_root(project, repository))
    content = workflow_text(source).encode()
    target = output if output is not None else repository.root / FOLDER / f"{source.slug}.yml"
    there = _content(target)
    words = [*([] if is_default(project.file) else [path(project.file)]), *_options(output)]
    shown = path(target)
    if there == content:
        console.out(f"{shown} is up to date")
        return 0
    if is_check:
        problem = "does not exist" if there is None else f"is not what {project.pipeline.file} gives"
        again = ["--force"] if _is_others(there) else []
        console.err(f"error: {shown} {problem}", f"hint: `{command('workflow', *words, *again)}` writes it")
        return 1
    if _is_others(there) and not is_forced:
        raise UsageError(
            f"{shown} was not written by this command; it stays",
            hint=f"write to another file with `-o FILE`, or replace it: `{command('workflow', *words, '--force')}`",
        )
    _write(target, content)
    console.out(f"wrote {shown}")
    if there is None:
        said = project.pipeline.workflow
        is_set_up = said is not None and (said.setup or said.setup_action)
        check = command("workflow", *words, "--check")
        lines = _NEXT.format(branch=repository.default_branch, check=check).splitlines()
        console.out(*(lines[:-1] if is_set_up else lines))
        if not (said and said.on) and repository.default_branch != "main":
            console.err(
                f"note: it starts at pushes to `main`, and the default branch here is `{repository.default_branch}`: "
                "say `on` in [workflow] of the pipeline file"
            )
    return 0


def _from_root(project: Project, repository: LocalRepository) -> str:
    """Return the pipeline file from the root of the repository, or its folder where it is the usual file there."""
    root = repository.root.resolve()
    if not project.file.is_relative_to(root):
        raise UsageError(f"{project.pipeline.file} is outside the git repository", hint="name a file in it")
    is_usual = project.file.name == FILE_NAME or is_default(project.file, project.workspace)
    return (project.workspace if is_usual else project.file).relative_to(root).as_posix()


def _options(output: Path | None) -> list[str]:
    return [] if output is None else ["-o", path(output)]


def _content(target: Path) -> bytes | None:
    try:
        return target.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UsageError(f"{path(target)} cannot be read: {e.strerror}", hint="name another file with `-o FILE`") from e


def _is_others(content: bytes | None) -> bool:
    """Return whether a file is there that this command did not write."""
    return content is not None and not content.startswith(f"{MARK}\n".encode())


def _write(target: Path, content: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        write_whole(target, content)
    except OSError as e:
        raise UsageError(f"{path(target)} cannot be written: {e.strerror}", hint="nothing was written") from e
