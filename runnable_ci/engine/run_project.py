"""The project that a run is resumed with: that of its own pipeline file, or of another one on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import RunInUseError, RunLogError, RunNotFoundError, UsageError
from runnable_ci.pipeline.command_line import file_option, http_option, is_default, of_registry, of_store
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity, tails
from runnable_ci.pipeline.project import Project, find_store
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import is_foreign
from runnable_ci.runs.reader import LATEST, newest_first, resolve_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.store.local import Layout
from runnable_ci.util.shell_command import command, path
from runnable_ci.vcs.git import COMMIT, Git
from runnable_ci.vcs.git_files import repository_root
from runnable_ci.vcs.tracked import is_tracked

if TYPE_CHECKING:
    from runnable_ci.runs.remote.pull import FoundRun
    from runnable_ci.runs.remote.writers import AcceptedWriters
    from runnable_ci.store.registry import Registry

_COMMITS_MAX = 3


class OpenedRun(NamedTuple):
    """A run whose log is here, and what it is resumed with."""

    run_id: str
    project: Project
    """Its store is the one that has the run."""
    registry: str | None
    """The registry that was named, and from which the log came just now."""
    notes: Sequence[str] = ()
    """Whose parts were not used."""
    accepted: AcceptedWriters | None = None
    """Whose parts may be used, also of those that the store has already; None: everybody's."""


def open_run(
    run: str,
    *,
    file: Path | None,
    other_pipeline: bool,
    environ: Mapping[str, str],
    source: tuple[Registry, str] | None = None,
    accepted: AcceptedWriters | None = None,
    layout: Layout | None = None,
    take_over: bool = False,
    only_look: bool = False,
) -> OpenedRun:
    """Return the run of an id or `latest`, and its project, or that of `file`.

    `source` is the registry to fetch its log from, as `accepted` writers wrote it, and what it is called there. The
    store is the one beside `file`, else `layout`, else that of the current folder; for a run from a registry it is
    beside its own file. `latest` with a `file` is the newest run of that pipeline. Raises `UsageError` for a run of
    another pipeline than `file`, unless `other_pipeline` allows it, and where its own file is not here; `RunInUseError`
    for a published run that is in progress, unless that is to be taken over, or nothing is done but to look.
    """
    if other_pipeline and file is None:
        raise UsageError("--other-pipeline needs the pipeline file", hint="name it with -f FILE")
    project = load_project(file).opened(environ) if file is not None else None
    layout = project.layout if project else layout or find_store(environ=environ)
    if source is not None:
        found, opened = _find_published(
            *source, project, layout, accepted, other_pipeline=other_pipeline, environ=environ
        )
        if not take_over and not only_look:
            _require_nobody_at_it(found, source)
        return _taken(found, opened, take_over=take_over)
    if project and run == LATEST and not other_pipeline:
        return OpenedRun(newest_run(project, environ=environ), project, None, accepted=accepted)
    run_id = resolve_id(layout, run)
    log = load_log(layout, run_id)
    if project is None:
        own = project_of(log, layout.folder.parent, typed=["retry", run], environ=environ, layout=layout)
        project = replace(own, layout=layout)
    elif not other_pipeline:
        require_same(project, log, typed=["retry", run], environ=environ, layout=layout)
    return OpenedRun(run_id, project, None, accepted=accepted)


def _require_nobody_at_it(found: FoundRun, source: tuple[Registry, str]) -> None:
    """Raise `RunInUseError` for a run in progress: it would be done twice."""
    if now := found.writer_now():
        registry, reference = source
        words = ("retry", f"{registry.label}{'@' if ':' in reference else ':'}{reference}", "--take-over")
        raise RunInUseError(
            f"run `{found.log.run_id}` is in progress: {now.writer}, {now.sign}",
            hint=f"wait for it; should its machine be gone: {command(*words, *http_option(registry.plain_http))}",
        )


def _taken(found: FoundRun, opened: OpenedRun, *, take_over: bool) -> OpenedRun:
    """Return an opened run, whose log is here from now on."""
    from runnable_ci.runs.remote.pull import take

    pulled = take(opened.project.layout, found, only_log=True, is_taken_over=take_over)
    return opened._replace(run_id=pulled.run_id, notes=pulled.refusals())


def _find_published(
    registry: Registry,
    reference: str,
    project: Project | None,
    layout: Layout,
    accepted: AcceptedWriters | None,
    *,
    other_pipeline: bool,
    environ: Mapping[str, str],
) -> tuple[FoundRun, OpenedRun]:
    """Return a published run, and what it is resumed with."""
    from runnable_ci.runs.remote.pull import find
    from runnable_ci.runs.remote.remote_index import SeveralRunsError
    from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters

    accepted = AcceptedWriters.named_by(reference) or accepted or EVERYBODY
    http = http_option(registry.plain_http)
    typed = ["retry", f"{registry.label}{'@' if ':' in reference else ':'}{reference}", *http]
    if project and reference == LATEST and not other_pipeline:
        found = _newest_published(project, registry, accepted, environ)
    else:
        try:
            found = find(registry, reference, accepted=accepted, layout=layout)
        except SeveralRunsError as e:
            option = file_option(project.file) if project else []
            e.hint = f"resume one of them by its digest: {command('retry', e.references[0], *option, *http)}"
            raise
    if project is None:
        own = project_of(found.log, layout.folder.parent, typed=typed, environ=environ, layout=None)
        project = own.opened(environ)
    elif not other_pipeline:
        require_same(project, found.log, typed=typed, environ=environ, layout=None)
    return found, OpenedRun(found.log.run_id, project, registry.label, accepted=accepted)


def _newest_published(
    project: Project, registry: Registry, accepted: AcceptedWriters, environ: Mapping[str, str]
) -> FoundRun:
    from runnable_ci.runs.remote.pull import find_newest

    found = find_newest(
        registry, project.layout, lambda log: is_of(project, log, environ=environ, layout=None), accepted=accepted
    )
    if found is None:
        raise RunNotFoundError(
            f"no runs of the pipeline {project.identity()} in {registry.label}",
            hint=f"`{of_registry(registry, 'runs', '--from', registry.label)}` lists all",
        )
    return found


def project_of(
    log: RunLog, folder: Path, *, typed: Sequence[str], environ: Mapping[str, str], layout: Layout | None
) -> Project:
    """Return the project of a run's own pipeline file, looked for from `folder`.

    `typed` are the command and the run as they were typed, for messages; `layout` is the store that has the run, None
    while only a registry does. Raises `UsageError` where the file is not here, or has another pipeline now.
    """
    run = PipelineIdentity.recorded(log.name, log.run_config)
    file = own_file(log, folder)
    if file and not (_is_from_here(log, layout) or is_default(file, folder) or is_tracked(file, environ)):
        raise UsageError(
            f"run `{log.run_id}` was made elsewhere, with the pipeline file {path(file)}, "
            "which git does not track here",
            hint=f"if you trust that file: {command(*typed, '-f', path(file))}",
        )
    if run.file and file is None:
        raise UsageError(
            f"run `{log.run_id}` belongs to the pipeline {run}, and that file does not exist in "
            f"{repository_root(folder) or folder}",
            hint=f"if it was renamed: {_renamed(typed, 'FILE')}",
        )
    project = load_project(file)
    if not is_of(project, log, environ=environ, layout=layout):
        raise UsageError(
            f"run `{log.run_id}` belongs to the pipeline {run}, and the one here is {project.identity()}",
            hint=f"if it is the same file under a new name: {_renamed(typed, path(project.file))}",
        )
    return project


def require_same(
    project: Project, log: RunLog, *, typed: Sequence[str], environ: Mapping[str, str], layout: Layout | None
) -> None:
    """Raise `UsageError` for a run of another pipeline than the project's."""
    if is_of(project, log, environ=environ, layout=layout):
        return
    run = PipelineIdentity.recorded(log.name, log.run_config)
    own = own_file(log, project.workspace)
    way = f"`{command(*typed, '-f', path(own))}` resumes it with its own file; " if own else ""
    raise UsageError(
        f"run `{log.run_id}` belongs to the pipeline {run}, not to {project.identity()}",
        hint=f"{way}if this one is the same file, renamed: {_renamed(typed, path(project.file))}",
    )


def _renamed(typed: Sequence[str], file: str) -> str:
    return command(*typed, "-f", file, "--other-pipeline")


def is_of(project: Project, log: RunLog, *, environ: Mapping[str, str], layout: Layout | None) -> bool:
    """Return whether a run is of the project's pipeline, as far as is known."""
    run, here = PipelineIdentity.recorded(log.name, log.run_config), project.identity()
    if here.is_same(run, is_known_here=False):
        return True
    return here.is_same(run, is_known_here=True) and _is_known_here(project.workspace, log, environ, layout)


def newest_run(project: Project, *, environ: Mapping[str, str]) -> str:
    """Return the newest run of the project's pipeline in its store. Raises `RunNotFoundError`."""
    layout = project.layout
    sealed = layout.manifests()
    for run_id in newest_first(layout, sealed):
        try:
            log = load_log(layout, run_id, sealed)
        except RunLogError:  # damaged: nobody knows of which pipeline
            continue
        if is_of(project, log, environ=environ, layout=layout):
            return run_id
    raise RunNotFoundError(
        f"no runs of the pipeline {project.identity()} in {layout.label}",
        hint=f"`{of_store(layout, 'runs')}` lists all",
    )


def own_file(log: RunLog, folder: Path) -> Path | None:
    """Return the pipeline file of a run, if it is here; a log may come from anywhere, and leads nowhere else."""
    run = PipelineIdentity.recorded(log.name, log.run_config)
    root = repository_root(folder)
    names = list(tails(run.file))
    if run.base == "repository" and root is not None:
        return _inside(root, names[0]) if names else None
    return next((file for name in names if (file := _inside(folder, name))), None)


def _inside(folder: Path, name: str) -> Path | None:
    try:
        file = (folder / name).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return file if file.is_file() and file.is_relative_to(folder.resolve()) else None


def _is_from_here(log: RunLog, layout: Layout | None) -> bool:
    """Return whether the run was made in this store, or came with it."""
    return layout is not None and not is_foreign(layout, log.run_id)


def _is_known_here(folder: Path, log: RunLog, environ: Mapping[str, str], layout: Layout | None) -> bool:
    """Return whether the run was made in this store, or from a commit of this repository."""
    if _is_from_here(log, layout):
        return True
    identities = [code for step in log.steps.values() for attempt in step.attempts for code in attempt.code_identities]
    identities += [code for invocation in log.invocations for code in invocation.code_identities]
    commits = {code.code_identifier for code in identities if COMMIT.fullmatch(code.code_identifier)}
    git = Git(str(folder), environ)
    return any(git.has_commit(commit) for commit in sorted(commits)[:_COMMITS_MAX])
