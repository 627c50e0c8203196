"""One job of a run that several share: it takes what others have published, runs its steps, and publishes its part."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runnable_ci.cli.spread.places import open_place
from runnable_ci.cli.terminal import SilentPrinter
from runnable_ci.engine.new_run import prepare_run
from runnable_ci.engine.options import Options, RetryOptions, RunOptions, redacting_errors
from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.resume import look_ahead, resume_here
from runnable_ci.engine.session import RunSession
from runnable_ci.engine.spread.beginning import begin_here
from runnable_ci.engine.spread.instances import instances_in, require_instances
from runnable_ci.engine.spread.job import JobSteps, is_matrix, parts_of_matrix
from runnable_ci.engine.spread.lost import concluded
from runnable_ci.errors import RunNotFoundError, UsageError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.events import LogImported
from runnable_ci.runs.reader import check_run_id, load, run_ids
from runnable_ci.runs.recorder import reopen
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.console import console, is_actions
from runnable_ci.util.shell_command import command

if TYPE_CHECKING:
    from runnable_ci.cli.context import PublishWhen
    from runnable_ci.cli.run import PartWords


class SpreadWords(NamedTuple):
    """What the options of `run` say of the job that it is."""

    steps: Sequence[str] = ()
    instances: str | None = None
    """None: all."""
    matrix_of: Sequence[str] = ()
    collects: bool = False
    sources: Sequence[Path] = ()
    """The folders that other jobs left."""
    writers: str | None = None
    sweep: Sequence[str] = ()
    typed: Sequence[str] = ()
    """The command as it was typed, for messages."""

    def require_sound(self, run_options: RunOptions, part: PartWords) -> str:
        """Return the run's id. Raises `UsageError` where it is missing, or an option has no place beside another."""
        option = "--collect" if self.collects else "--step" if self.steps else "--matrix-of"
        if not (self.steps or self.collects or self.matrix_of):
            lonely = "--instances" if self.instances is not None else "--from" if self.sources else "--writers"
            raise UsageError(f"{lonely} is for a job of a run that several share", hint="name its steps: --step NAME")
        if self.collects and (self.steps or self.instances is not None or self.matrix_of):
            raise UsageError("--collect runs no step", hint="collect in a job of its own, after all others")
        given = {
            "STEP": part.steps,
            "--until": part.until,
            "--from-run": part.from_run,
            "--mock": part.mock,
            "--patch": part.patch,
            "--sweep": self.sweep,
        }
        for other in (name for name, value in given.items() if value):
            raise UsageError(f"{other} is for a whole run, {option} for a job of a run that several share")
        if run_options.run_id is None:
            raise UsageError(
                f"{option} needs the id of the run that the jobs share",
                hint=f"give all of them the same: {command('run', '--run-id', 'ID', option, *self.steps[:1])}",
            )
        check_run_id(run_options.run_id)
        return run_options.run_id

    def job(self, pipeline: Pipeline) -> JobSteps:
        """Return the job's own steps. Raises `UsageError`."""
        for name in self.matrix_of:
            JobSteps.of([name], None, pipeline)
            if not is_matrix(name, pipeline):
                raise UsageError(f"--matrix-of: the step `{name}` has no matrix")
        return JobSteps(collects=True) if self.collects else JobSteps.of(self.steps, self.instances, pipeline)


def run_job(
    file: Path | None,
    options: Options,
    run_options: RunOptions,
    words: SpreadWords,
    part: PartWords,
    *,
    dry_run: bool = False,
    publish: PublishWhen | None = None,
    to: str | None = None,
) -> int:
    """Run the steps of one job, or collect what all have done; the exit code is that of these steps, or of the run.

    What changed in the code or the data of its steps makes them run again, as another job may have no terminal to ask.
    """
    run_id = words.require_sound(run_options, part)
    project = load_project(file).opened(options.environ)
    job = words.job(project.pipeline)
    session = RunSession.of(project, options)
    layout = project.layout
    with (
        redacting_errors(session.redactor(project.pipeline.parameters)),
        session.in_workspace(run_id, "run") as holding,
    ):
        place = open_place(project, options, words.sources, to, publish)
        place.bring(layout, run_id)
        is_new = run_id not in run_ids(layout)
        if is_new and job.collects:
            raise RunNotFoundError(
                f"no job has published anything of run `{run_id}` in {place.label}",
                hint="begin it with a job that runs steps: --step NAME",
            )
        retry = _retry_options(job, run_options, part, place.registry)._replace(typed=words.typed)
        if job.keys:
            require_instances(_planned(_silent(holding), run_id, run_options, retry, is_new=is_new), job)
        if dry_run:
            console.out(*_planned(holding, run_id, run_options, retry, is_new=is_new).lines())
            return 0
        code = 0
        if job.names or job.collects:
            joined = place.joined(holding)
            if job.collects:
                _conclude(layout, run_id)
            code = begin_here(joined, run_id, run_options, retry, job) if is_new else resume_here(joined, run_id, retry)
            code = place.publish(layout, run_id, code)
        if words.matrix_of:
            is_first = is_new and not job.names
            _tell_matrix(holding, run_id, run_options, retry, words.matrix_of, is_new=is_first)
    return code


def _planned(session: RunSession, run_id: str, run_options: RunOptions, retry: RetryOptions, *, is_new: bool) -> Plan:
    if not is_new or retry.job is None:
        return look_ahead(session, run_id, retry).plan
    part = session.with_pipeline(retry.job.part_of(session.project.pipeline))
    return prepare_run(part, run_options).plan()


def _retry_options(job: JobSteps, run_options: RunOptions, part: PartWords, registry: str | None) -> RetryOptions:
    return RetryOptions(
        params=run_options.params,
        params_files=run_options.params_files,
        allow_unused=run_options.allow_unused,
        rerun_changed=True,
        registry=registry,
        accept=part.accept,
        reason=part.reason,
        again=_in_another_run,
        reuse=run_options.reuse,
        job=job,
    )


def _in_another_run(step: str) -> str:
    """Return how a job runs a step that it would reuse: secrets are in no log, so who takes one is in the same job."""
    return f"a new run, with another --run-id, runs `{step}`; a secret that it returns is for steps of the same job"


def _conclude(layout: Layout, run_id: str) -> None:
    """Record that what is in flight of the run was lost: all its jobs are over."""
    log = load(layout, run_id)
    with reopen(layout, log) as recorder:
        over = concluded(recorder.log, time=now())
        if over is not recorder.log:
            recorder.record(LogImported(run_log=over))


def _silent(session: RunSession) -> RunSession:
    options = replace(session.options, printer=SilentPrinter.of_process(quiet=True))
    return replace(session, options=options)


def _tell_matrix(
    session: RunSession,
    run_id: str,
    run_options: RunOptions,
    retry: RetryOptions,
    steps: Sequence[str],
    *,
    is_new: bool,
) -> None:
    """Print the instances of steps; of a run that `is_new`, those that parameters and files alone give."""
    found = {}
    for step in steps:
        alone = retry._replace(job=JobSteps([step]))
        found[step] = instances_in(_planned(_silent(session), run_id, run_options, alone, is_new=is_new), step)
    for step, known in found.items():
        if known.why_none:
            session.options.printer.say(f"no instances: {known.why_none}", step=step)
    text = json.dumps({step: parts_of_matrix(known.keys) for step, known in found.items()})
    if is_actions(os.environ) and (path := os.environ.get("GITHUB_OUTPUT")):
        from runnable_ci.github import commands as workflow  # few runs are in a job

        workflow.append(Path(path), workflow.assignments({"matrix": text}))
    console.out(text)
