"""`runnable-ci report`: a run as one page of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runnable_ci.analysis.comparison.which import LATEST_SUCCESS, ComparedRun, RunFinder, require_ended
from runnable_ci.analysis.report.collect import collect
from runnable_ci.analysis.report.html import html
from runnable_ci.analysis.report.page import page_of
from runnable_ci.cli.compare.diff import clone_around, opened_finder
from runnable_ci.cli.context import make_redactor
from runnable_ci.config import Settings
from runnable_ci.errors import RunnableError, RunNotFoundError, StoreError, UsageError
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.runs.model import PROCESSING
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.files import write_whole
from runnable_ci.util.shell_command import path as typed

NONE = "none"
"""As the run to compare with: no comparison."""
_PAGES: Final = "reports"


def report(
    layout: Layout,
    run: str,
    *,
    output: Path | None,
    against: str | None,
    settings: Settings,
    environ: Mapping[str, str],
) -> None:
    """Write the page of a run, compared with another one: by default with the newest other one that succeeded.

    The path of the page is printed.
    """
    workspace = layout.folder.parent
    with opened_finder(layout, settings, environ, whole=True) as finder:
        found = finder.run(run)
        other, note = _other(finder, found, against)
        git = clone_around(workspace, environ)
        redactor = make_redactor(settings, environ)
        beside = collect(found, other, git, environ=environ, redactor=redactor, other_note=note)
        page = page_of(found.log, beside, _needs(workspace, found))
    path = output or _default(layout, found.log.run_id)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name the file with -o, such as report.html")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint="make it, or name another place with -o")
    write_whole(path, html(page).encode(), through=path.parent)
    console.out(typed(path))


def _default(layout: Layout, run_id: str) -> Path:
    """Return where a page is written unless a person says it: in the store, where it makes no clone dirty."""
    layout.create()
    folder = layout.own_folder(_PAGES)
    folder.mkdir(exist_ok=True)
    return folder / f"{run_id}.html"


def _other(finder: RunFinder, run: ComparedRun, against: str | None) -> tuple[ComparedRun | None, str]:
    if against == NONE:
        return None, ""
    if against is not None:
        require_ended(run)
        return require_ended(finder.run(against, run.log.run_id)), ""
    if run.log.status == PROCESSING:
        return None, "The run is in progress: it is compared with another one when it has ended."
    try:
        return finder.before(run, LATEST_SUCCESS), ""
    except RunNotFoundError:
        return None, "There is no earlier run that succeeded, to compare with."
    except StoreError as e:
        return None, f"The last run that succeeded could not be read: {e.message}"


def _needs(workspace: Path, run: ComparedRun) -> dict[str, tuple[str, ...]] | None:
    """Return what each step needs, where the pipeline file still has the run's steps."""
    try:
        pipeline = load_project(workspace).pipeline
    except RunnableError:
        return None
    known = {name for name in run.log.steps if "." not in name}
    if pipeline.name != run.log.name or set(pipeline.steps) != known:
        return None
    return {step.name: step.needs for step in pipeline.steps.values()}
