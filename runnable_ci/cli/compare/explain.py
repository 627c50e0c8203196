"""`runnable-ci explain`: why a run ended as it did, in one small document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runnable_ci.analysis.comparison.endings import ended_in_words, short_why
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.which import LATEST_SUCCESS, ComparedRun, RunFinder, command_on
from runnable_ci.analysis.explanation.explain import as_json, changed_parameters, explanation
from runnable_ci.cli.compare.diff import compared, opened_finder
from runnable_ci.cli.context import make_redactor
from runnable_ci.config import Settings
from runnable_ci.engine.run_project import own_file
from runnable_ci.errors import RunNotFoundError, StoreError
from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline import command_line
from runnable_ci.redaction.redactor import MASK
from runnable_ci.runs.model import PROCESSING, SUCCESS
from runnable_ci.runs.reader import last_output
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console

_TAIL_BYTES = 32 * 1024
_OPTIONS_MAX = 500
"""Characters of the options for parameters."""
_OF_OTHERS = frozenset({"site-packages", "dist-packages", ".venv", "venv", "node_modules", ".runnable"})
_LIBRARY = re.compile(r"/lib(?:64)?/python[\d.]+/")


def explain(layout: Layout, run: str, *, as_document: bool, settings: Settings, environ: Mapping[str, str]) -> None:
    """Print why a run ended as it did, as text or with `as_document` as JSON of at most 32 KB."""
    workspace, redacted = layout.folder.parent, make_redactor(settings, environ).text
    with opened_finder(layout, settings, environ, whole=True) as finder:
        found = finder.run(run)
        other, not_compared = _last_success(finder, found)
        comparison = _compared(other, found, workspace, environ) if other else None
        document = explanation(
            found.log,
            comparison,
            not_compared=not_compared,
            outputs={
                name: last_output(found.layout, found.log, name, limit_bytes=_TAIL_BYTES)
                for name in found.log.failed_steps()
            },
            own_name=lambda step, file: _own_name(file, workspace, found.read().reads.get(step)),
            commands=_commands(layout, found, other, _options(changed_parameters(comparison), redacted)),
            redacted=redacted,
        )
    if as_document:
        console.json(as_json(document))
    else:
        console.out(*_lines(document))


def _compared(other: ComparedRun, found: ComparedRun, workspace: Path, environ: Mapping[str, str]) -> RunComparison:
    return compared(other, found, workspace, environ, (f"run {other.log.run_id}", f"run {found.log.run_id}"))


def _last_success(finder: RunFinder, found: ComparedRun) -> tuple[ComparedRun | None, str]:
    """Return the run to compare with, or why there is none."""
    try:
        return finder.before(found, LATEST_SUCCESS), ""
    except RunNotFoundError:
        return None, "there is no earlier run that succeeded"
    except StoreError as e:
        return None, f"the last run that succeeded could not be read: {e.message}"


def _own_name(file: str, workspace: Path, read: ReadSet | None) -> str:
    """Return the name of a file below the project's folder; empty for any other one, and for a package's.

    A step that ran in another folder names its files as they are there: by their ends they are those that it read.
    """
    path = (workspace / file).resolve()
    if path.is_relative_to(workspace.resolve()):
        parts = path.relative_to(workspace.resolve()).parts
        return "/".join(parts) if path.is_file() and not _OF_OTHERS.intersection(parts) else ""
    if _OF_OTHERS.intersection(path.parts) or _LIBRARY.search(file) or read is None:
        return ""
    return max((name for name in read.files if f"/{file}".endswith(f"/{name}")), key=len, default="")


def _commands(layout: Layout, run: ComparedRun, other: ComparedRun | None, options: Sequence[str]) -> dict[str, str]:
    """Return the commands to continue with, whole; `options` give parameters the values of the `other` run."""
    log = run.log
    found = {}
    if log.status == PROCESSING:
        found["follow"] = command_on(layout, "show", run, "--watch")
    elif log.status != SUCCESS:
        found["resume"] = _resume(layout, run)
        found["plan of the resume"] = _resume(layout, run, "--dry-run")
        if other is not None and options:
            found[f"resume as in run {other.log.run_id}"] = _resume(layout, run, *options)
    found["output"] = command_on(layout, "logs", run)
    if other is not None:
        found["what changed"] = command_on(layout, "diff", other, run)
    return found


def _resume(layout: Layout, run: ComparedRun, *options: str) -> str:
    file = own_file(run.log, layout.folder.parent)
    if file is not None and not run.registry:
        return command_line.retry(run.log.run_id, file, layout, *options)
    return command_on(layout, "retry", run, *options)


def _options(parameters: Mapping[str, Any], redacted: Callable[[str], str]) -> list[str]:
    """Return the options that give parameters these values; none where one is secret, or they are long."""
    typed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    found = [word for name, text in typed.items() for word in ("--param", f"{name}={text}")]
    text = "\n".join(found)
    return [] if len(text) > _OPTIONS_MAX or MASK in redacted(text) else found


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    run = document["run"]
    yield f"run {run['run_id']}: {run['status']}" + (f", {run['message']}" if run.get("message") else "")
    for failure in document.get("failures", ()):
        yield ""
        place = f":{failure['line']}" if failure.get("line") else ""
        place = f", cell {failure['cell']}" if failure.get("cell") else place
        where = f" at {failure['file']}{place}" if place else ""
        how = failure.get("outcome", "failed")
        said = failure.get("exception") if how == "failed" else ""
        yield f"`{failure['label']}` {ended_in_words(how)}{where}: {said or short_why(failure.get('message', ''))}"
        yield from (f"  {line}" for line in failure.get("traceback", "").splitlines() or failure.get("last_lines", ()))
        if failure.get("differs"):
            yield "  differs from the last success:"
            yield from (f"    {one['says']}" for one in failure["differs"])
    if changed := document.get("changed"):
        yield ""
        since = changed["since"]
        of = f", of another branch, {since['of_branch']}" if since.get("of_branch") else ""
        yield f"since run {since['run_id']}, the last that succeeded{of}:"
        yield from (f"  {line}" for line in (*changed["says"], *changed["commits"]))
    if why := document.get("failures") and document.get("not_compared"):
        yield from ("", f"not compared: {why}")
    if skipped := document.get("steps", {}).get("skipped_because"):
        yield ""
        yield from (f"`{label}` did not run: {why}" for label, why in skipped.items())
    yield ""
    yield from (f"{what}: {how}" for what, how in document["commands"].items())
