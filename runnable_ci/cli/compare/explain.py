"""`runnable-ci explain`: why a run ended as it did, in one small document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runnable_ci.analysis.comparison.endings import ended_in_words, short_why
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.which import LATEST_SUCCESS, ComparedRun, RunFinder
from runnable_ci.analysis.explanation.explain import as_json, explanation
from runnable_ci.cli.compare.diff import compared, opened_finder
from runnable_ci.cli.context import make_redactor
from runnable_ci.config import Settings
from runnable_ci.engine.run_project import own_file
from runnable_ci.errors import RunNotFoundError
from runnable_ci.pipeline import command_line
from runnable_ci.runs.model import PROCESSING, SUCCESS
from runnable_ci.runs.reader import last_output
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.shell_command import command

_TAIL_BYTES = 32 * 1024


def explain(layout: Layout, run: str, *, as_document: bool, settings: Settings, environ: Mapping[str, str]) -> None:
    """Print why a run ended as it did, as text or with `as_document` as JSON of at most 32 KB."""
    workspace = layout.folder.parent
    with opened_finder(layout, settings, environ, whole=True) as finder:
        found = finder.run(run)
        other = _last_success(finder, found)
        document = explanation(
            found.log,
            _compared(other, found, workspace, environ) if other else None,
            outputs={
                name: last_output(found.layout, found.log, name, limit_bytes=_TAIL_BYTES)
                for name in found.log.failed_steps()
            },
            own_name=lambda file: _own_name(file, workspace),
            commands=_commands(layout, found, other),
            redacted=make_redactor(settings, environ).text,
        )
    if as_document:
        console.json(as_json(document))
    else:
        console.out(*_lines(document))


def _compared(other: ComparedRun, found: ComparedRun, workspace: Path, environ: Mapping[str, str]) -> RunComparison:
    return compared(other, found, workspace, environ, (f"run {other.log.run_id}", f"run {found.log.run_id}"))


def _last_success(finder: RunFinder, found: ComparedRun) -> ComparedRun | None:
    try:
        return finder.here(LATEST_SUCCESS, found.log)
    except RunNotFoundError:
        return None


def _own_name(file: str, workspace: Path) -> str:
    """Return the name of a file below the project's folder; empty for any other one, and for a package's."""
    path = (workspace / file).resolve()
    if not path.is_relative_to(workspace.resolve()):
        return ""
    parts = path.relative_to(workspace.resolve()).parts
    is_other = {"site-packages", ".venv", "venv", "node_modules", ".runnable"}.intersection(parts)
    return "" if is_other or not path.is_file() else "/".join(parts)


def _commands(layout: Layout, run: ComparedRun, other: ComparedRun | None) -> dict[str, str]:
    """Return the commands to continue with, whole."""
    log = run.log
    where = f"{run.where}:{log.run_id}" if run.where else log.run_id
    file = own_file(log, layout.folder.parent)
    found = {}
    if log.status == PROCESSING:
        show = ("show", where, "--watch")
        found["follow"] = command(*show) if run.where else command_line.of_store(layout, *show)
    elif log.status != SUCCESS:
        resume = command("retry", where) if run.where or file is None else command_line.retry(where, file, layout)
        found["resume"] = resume
        found["plan of the resume"] = f"{resume} --dry-run"
    found["output"] = command_line.of_store(layout, "logs", log.run_id)
    if other is not None:
        found["what changed"] = command_line.of_store(layout, "diff", other.log.run_id, log.run_id)
    return found


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    run = document["run"]
    yield f"run {run['run_id']}: {run['status']}" + (f", {run['message']}" if run.get("message") else "")
    for failure in document.get("failures", ()):
        yield ""
        place = f" at {failure['file']}:{failure['line']}" if failure.get("line") else ""
        how = failure.get("outcome", "failed")
        said = failure.get("exception") if how == "failed" else ""
        yield f"`{failure['label']}` {ended_in_words(how)}{place}: {said or short_why(failure.get('message', ''))}"
        yield from (f"  {line}" for line in failure.get("traceback", "").splitlines() or failure.get("last_lines", ()))
        if failure.get("differs"):
            yield "  differs from the last success:"
            yield from (f"    {one['says']}" for one in failure["differs"])
    if changed := document.get("changed"):
        yield ""
        yield f"since run {changed['since']['run_id']}, the last that succeeded:"
        yield from (f"  {line}" for line in (*changed["says"], *changed["commits"]))
    if skipped := document.get("steps", {}).get("skipped_because"):
        yield ""
        yield from (f"`{label}` did not run: {why}" for label, why in skipped.items())
    yield ""
    yield from (f"{what}: {how}" for what, how in document["commands"].items())
