"""`runnable-ci run`: a new run of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from runnable_ci.engine.new_run import prepare_run, unused_id
from runnable_ci.engine.options import Options, RunOptions
from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import STOPPED_IN_TIME, PipelineError, RunnableError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.pipeline.inputs import input_lines
from runnable_ci.pipeline.project import find_file
from runnable_ci.pipeline.schema import STEP_NAME
from runnable_ci.runs.model import RunLog
from runnable_ci.util.console import console, is_actions
from runnable_ci.util.shell_command import command

if TYPE_CHECKING:
    from runnable_ci.cli.context import PublishWhen
    from runnable_ci.runs.remote.writers import AcceptedWriters

_SIGNALLED: Final = 128
"""Above this an exit code is that of a signal."""


def split_words(words: Sequence[str], file: Path | None) -> tuple[Path | None, Sequence[str]]:
    """Return the pipeline file or folder, and the names of steps, that the words of `run` name.

    The first word is a pipeline where it is written as a path, or is one that is there; but a folder without a
    pipeline may be called like a step. All are steps where the pipeline is named by -f.
    """
    if not words or file is not None:
        return file, words
    path = Path(words[0])
    is_path = path.is_file() or not (STEP_NAME.fullmatch(words[0]) or _is_label(path))
    if is_path or _has_pipeline(path) or not _has_pipeline(None):
        return path, words[1:]
    return None, words


def _is_label(path: Path) -> bool:
    from runnable_ci.runs.branches.labels import group_of  # few words need it

    return bool(group_of(str(path))) and not path.exists()


def _has_pipeline(folder: Path | None) -> bool:
    try:
        find_file(folder)
    except PipelineError:
        return False
    return True


class PartWords(NamedTuple):
    """What the options of `run` say of its steps: which run, which are mocked, and whose results the others have."""

    steps: Sequence[str]
    until: Sequence[str]
    from_run: str | None
    mock: Sequence[str]
    patch: Sequence[str]
    accept: Sequence[str]
    reason: str

    def added_to(self, run_options: RunOptions, options: Options, *, typed: Sequence[str]) -> RunOptions:
        """Return the options of a run with these. Raises `UsageError` for one that would have no effect."""
        self._require_effect(typed)
        if self.steps or self.until:
            from runnable_ci.engine.parts.step_selection import PartialOptions, StepSelection

            selection, accepted = StepSelection(self.steps, self.until), _accepted(options)
            part = PartialOptions(selection, self.from_run, self.accept, self.reason, typed, accepted)
            run_options = run_options._replace(part=part)
        if self.mock or self.patch:
            from runnable_ci.engine.parts.mock_options import MockOptions

            run_options = run_options._replace(mocks=MockOptions(self.mock, self.patch, self.from_run))
        return run_options

    def _require_effect(self, typed: Sequence[str]) -> None:
        accepting = "--accept" if self.accept else "--reason" if self.reason else ""
        for option in ("" if self.mock else self.from_run and "--from-run", accepting):
            if option and not self.steps:
                raise UsageError(
                    f"{option} is for a run of some steps, which takes results of an earlier one",
                    hint=f"name the steps to run: {command(*typed, 'STEP')}",
                )


def _accepted(options: Options) -> AcceptedWriters | None:
    if options.settings.writers is None and not is_actions(options.environ):
        return None
    from runnable_ci.github.accepted_writers import accepted_writers

    return accepted_writers(options.settings, options.environ)


def print_inputs(file: Path | None) -> int:
    """Print the inputs and parameters of a pipeline; the exit code."""
    pipeline = load_project(file).pipeline
    console.out(*input_lines(pipeline.parameters, pipeline.inputs, secrets=pipeline.secrets))
    return 0


def run(
    file: Path | None,
    options: Options,
    run_options: RunOptions,
    *,
    dry_run: bool = False,
    publish: PublishWhen | None = None,
    to: str | None = None,
) -> int:
    """Run the pipeline of `file`, and publish the run if requested or if `to` is set; return the exit code."""
    project = load_project(file).opened(options.environ)
    new_run = prepare_run(RunSession.of(project, options), run_options)
    if dry_run:
        planned = new_run.plan()
        if options.time_budget or project.pipeline.time_budget:
            from runnable_ci.engine.outliving.outlook import say_what_does_not_fit  # most runs have time

            say_what_does_not_fit(new_run.session, RunLog(run_id=""), planned)
        console.out(*planned.lines())
        return 0
    when = publish or options.settings.publish or (None if to is None else "at-end")
    if when is None:
        return new_run.execute()[1]
    from runnable_ci.cli.registry import PublishOnExit

    publication = PublishOnExit.of(project, to, options, when)
    if run_options.run_id is not None:
        publication.require_free(run_options.run_id)
    run_id, exit_code = replace(new_run, session=publication.joined(new_run.session)).execute()
    return publication.publish(project.layout, run_id, exit_code)


def sweep(
    file: Path | None,
    options: Options,
    run_options: RunOptions,
    *,
    make: Callable[[], Options],
    sweeps: Sequence[str],
    dry_run: bool = False,
    publish: PublishWhen | None = None,
    to: str | None = None,
) -> int:
    """Make a run for each combination of the values of `sweeps`, one after the other; return the exit code.

    A run that fails keeps the others from nothing; one that is cancelled or ended in time is the last. All of them are
    checked before the first one begins. `make` returns the options of each.
    """
    from runnable_ci.cli.terminal import SilentPrinter
    from runnable_ci.engine.parts.sweep import swept_runs

    project = load_project(file).opened(options.environ)
    base = run_options.run_id or unused_id(project)
    common = run_options._replace(tag=run_options.tag or base)
    planned = [
        (it, common._replace(run_id=it.run_id, params=[*common.params, *it.params]))
        for it in swept_runs(sweeps, common.params, base)
    ]
    silent = replace(options, printer=SilentPrinter.of_process(quiet=True))
    for _, one in planned:
        new_run = prepare_run(RunSession.of(project, silent), one)
        if one.part is not None:
            new_run.plan()
    failed = 0
    for number, (swept, one) in enumerate(planned, start=1):
        show = console.out if dry_run else console.err
        show(*([""] if number > 1 else []), f"run {number} of {len(planned)}: {swept}")
        options = make() if number > 1 else options
        try:
            code = run(file, options, one, dry_run=dry_run, publish=publish, to=to)
        except RunnableError as e:
            options.printer.say(*map(options.redactor.text, e.lines()))
            code = e.exit_code
        if code > _SIGNALLED or code == STOPPED_IN_TIME:
            return code
        failed += bool(code)
    if not dry_run:
        ended = f"{failed} of {len(planned)} runs failed" if failed else f"{len(planned)} runs succeeded"
        console.err("", f"sweep {base}: {ended}; `{of_store(project.layout, 'runs')}` lists them")
    return int(failed > 0)
