"""`runnable-ci diff`: what differs between two runs, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.condition import Judgement, judge, parse_condition
from runnable_ci.analysis.comparison.contents.compare import Reader
from runnable_ci.analysis.comparison.model import A_AND_B, RunComparison
from runnable_ci.analysis.comparison.requested import Requested, compare_requested_files, compare_requested_output
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.text import content_lines, lines_of
from runnable_ci.analysis.comparison.which import ComparedRun, RunFinder, run_finder
from runnable_ci.cli.context import make_redactor
from runnable_ci.config import Settings
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.pipeline.project import registry_of
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.steps.interpreter import find_interpreter
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console
from runnable_ci.vcs.git import Git
from runnable_ci.vcs.git_files import repository_root

DIFFERS = 3
"""Exit code with `--exit-code`, for runs that differ."""
FAILED = 1
"""Exit code where a condition of `--fail-if` holds."""
Form = Literal["text", "json", "markdown", "html"]


class DiffOptions(NamedTuple):
    """What is compared beside the record, how it is shown, and what decides the exit code."""

    form: Form = "text"
    exit_code: bool = False
    fail_if: Sequence[str] = ()
    files: Sequence[str] = ()
    """Names or globs of files whose contents are compared."""
    logs: Sequence[str] = ()
    """Steps of which it is compared what they printed; `all` for each that differs."""


class _Compared(NamedTuple):
    found: RunComparison
    judgements: Sequence[Judgement]
    files: Sequence[Requested]
    logs: Sequence[Requested]


def diff(
    layout: Layout,
    words: tuple[str, str | None],
    options: DiffOptions,
    *,
    settings: Settings,
    environ: Mapping[str, str],
) -> int:
    """Print what differs between two runs; return the exit code."""
    conditions = [parse_condition(text) for text in options.fail_if]  # what is wrong in them is said first
    workspace = layout.folder.parent
    needs_all = bool(options.files or options.logs)
    with opened_finder(layout, settings, environ, whole=needs_all) as finder:
        a, b = finder.pair(words)
        found = compared(a, b, workspace, environ)
        steps = [] if "all" in options.logs else options.logs
        answer = _Compared(
            found,
            [judge(condition, found) for condition in conditions],
            [*compare_requested_files(a, b, options.files, reader_of(workspace, environ))] if options.files else [],
            [*compare_requested_output(a, b, steps)] if options.logs else [],
        )
    _print(answer, options.form, make_redactor(settings, environ).text)
    if any(one.fails for one in answer.judgements):
        return FAILED
    return DIFFERS if options.exit_code and found.differs else 0


def opened_finder(
    layout: Layout, settings: Settings, environ: Mapping[str, str], *, whole: bool = False
) -> AbstractContextManager[RunFinder]:
    """Return what finds runs in a store, and in the registry that is set."""
    registries = Registries(settings, environ)

    def default_registry() -> Registry:
        return registries.named(None, in_pipeline=lambda: registry_of(layout.folder.parent))

    return run_finder(layout, registries, default_registry, whole=whole)


def compared(
    a: ComparedRun,
    b: ComparedRun,
    workspace: Path,
    environ: Mapping[str, str],
    names: tuple[str, str] = A_AND_B,
) -> RunComparison:
    """Return what differs between two runs, as sentences call them by `names`.

    The clone around the workspace tells what it knows of their commits.
    """
    return compare(a.read(), b.read(), compare_code(a.log, b.log, clone_around(workspace, environ)), names)


def clone_around(workspace: Path, environ: Mapping[str, str]) -> Git | None:
    """Return the clone around a folder; None where there is none."""
    root = repository_root(workspace, environ)
    return Git(str(root), environ) if root else None


def reader_of(workspace: Path, environ: Mapping[str, str]) -> Reader:
    """Return the project's own interpreter, which has what wrote its files; never one that a run names."""
    try:
        project = load_project(workspace)
        interpreter = find_interpreter(project.pipeline, project.workspace, environ)
    except RunnableError:
        interpreter = ""
    return Reader(interpreter or sys.executable, environ)


def _print(answer: _Compared, form: Form, redacted: Callable[[str], str]) -> None:
    match form:
        case "json":
            parts = {
                **asdict(answer.found),
                "differs": answer.found.differs,
                "conditions": [asdict(one) for one in answer.judgements],
                "contents": [_as_json(one) for one in answer.files],
                "printed": [_as_json(one) for one in answer.logs],
            }
            console.json(json.dumps(parts, indent=1, default=str))
        case "markdown":
            from runnable_ci.github.comparison import markdown  # the terminal does not need it

            text = markdown(answer.found, answer.judgements, [*answer.files, *answer.logs])
            console.out(*text.rstrip("\n").split("\n"))
        case "html":
            from runnable_ci.analysis.report.html import comparison_html  # it loads a template engine

            text = comparison_html(answer.found, answer.judgements, [*answer.files, *answer.logs], redacted=redacted)
            console.out(*text.rstrip("\n").split("\n"))
        case _:
            console.out(*lines_of(answer.found))
            for one in (*answer.files, *answer.logs):
                console.out("", *content_lines(one))
            if answer.judgements:
                console.out("", *map(_judged, answer.judgements))


def _as_json(one: Requested) -> dict[str, object]:
    return {"name": one.name, "said": one.said, "content": one.content and asdict(one.content)}


def _judged(one: Judgement) -> str:
    return f"{'fails' if one.fails else 'passes'}: {one.condition}  ({one.reason})"
