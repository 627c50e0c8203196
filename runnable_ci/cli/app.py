"""The command line: options in, exit codes out. Each command's work is loaded when it is called."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from runnable_ci.cli import options as option
from runnable_ci.cli.compare.app import comparing
from runnable_ci.cli.compare.history import history
from runnable_ci.cli.context import make_options, make_settings, open_store, reuse_options

app = typer.Typer(**option.PROGRAM)


@app.callback(invoke_without_command=True)
def _program(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from runnable_ci.util.console import console
        from runnable_ci.version import VERSION

        console.out(VERSION)
        raise typer.Exit


@app.command("run", cls=option.WaitingCommand)
def run_command(
    words: option.RunWords = None,
    file: option.PipelineFile = None,
    until: option.Until = [],  # noqa: B006 - typer copies it
    from_run: option.FromRun = None,
    mock: option.Mock = [],  # noqa: B006 - typer copies it
    patch: option.Patch = [],  # noqa: B006 - typer copies it
    accept: option.Accept = [],  # noqa: B006 - typer copies it
    reason: option.Reason = "",
    run_id: Annotated[str | None, typer.Option(help="Set the run id.  [default: a generated name]")] = None,
    tag: Annotated[str, typer.Option(help="Label stored with the run.")] = "",
    params_file: option.ParamsFiles = [],  # noqa: B006 - typer copies it
    param: option.Params = [],  # noqa: B006 - typer copies it
    sweep: option.Sweep = [],  # noqa: B006 - typer copies it
    reuse: option.Reuse = None,
    help_inputs: option.HelpInputs = False,
    env_file: option.EnvFiles = [],  # noqa: B006 - typer copies it
    log_level: option.LogLevel = None,
    allow_unused: option.AllowUnused = False,
    jobs: option.Jobs = None,
    quiet: option.Quiet = False,
    dry_run: option.DryRun = False,
    wait_s: option.Wait = 0.0,
    time_budget: option.TimeBudget = None,
    executor: option.Executor = None,
    publish: option.Publish = None,
    to: option.To = None,
    plain_http: option.PlainHttp = False,
    step: option.JobStep = [],  # noqa: B006 - typer copies it
    instances: option.Instances = None,
    matrix_of: option.MatrixOf = [],  # noqa: B006 - typer copies it
    collect: option.Collect = False,
    parts_from: option.PartsFrom = [],  # noqa: B006 - typer copies it
    writers: option.Writers = None,
) -> None:
    """Run a pipeline from its first step, or only some of its steps."""
    from runnable_ci.cli import run as commands
    from runnable_ci.engine.options import RunOptions

    pipeline, steps = commands.split_words(words or [], file)
    if help_inputs:
        raise typer.Exit(commands.print_inputs(pipeline))
    make = partial(make_options, jobs, env_file, log_level, quiet=quiet, plain_http=plain_http)
    make = partial(make, wait_s=wait_s, time_budget=time_budget, executor=executor, writers=writers)
    options = make()
    run_options = RunOptions(run_id, tag, params_file, param, allow_unused=allow_unused)
    run_options = run_options._replace(reuse=reuse_options(reuse, options, is_new=True))
    part = commands.PartWords(steps, until, from_run, mock, patch, accept, reason)
    if any((step, instances is not None, matrix_of, collect, parts_from, writers)):
        from runnable_ci.cli.spread.run import SpreadWords, run_job

        job = SpreadWords(step, instances, matrix_of, collect, parts_from, writers, sweep, sys.argv[1:])
        raise typer.Exit(run_job(pipeline, options, run_options, job, part, dry_run=dry_run, publish=publish, to=to))
    run_options = part.added_to(run_options, options, typed=sys.argv[1:])
    command = partial(commands.sweep, make=make, sweeps=sweep) if sweep else commands.run
    raise typer.Exit(command(pipeline, options, run_options, dry_run=dry_run, publish=publish, to=to))


@app.command("retry", cls=option.WaitingCommand)
def retry_command(
    run_id: option.RunOrReference,
    file: option.FilePath = None,
    from_steps: option.FromSteps = [],  # noqa: B006 - typer copies it
    params_file: option.ParamsFiles = [],  # noqa: B006 - typer copies it
    param: option.Params = [],  # noqa: B006 - typer copies it
    allow_unused: option.AllowUnused = False,
    rerun_changed: option.RerunChanged = False,
    rerun: option.Rerun = [],  # noqa: B006 - typer copies it
    accept: option.Accept = [],  # noqa: B006 - typer copies it
    reason: option.Reason = "",
    other_pipeline: option.OtherPipeline = False,
    take_over: option.TakeOver = False,
    jobs: option.Jobs = None,
    quiet: option.Quiet = False,
    dry_run: option.DryRun = False,
    wait_s: option.Wait = 0.0,
    time_budget: option.TimeBudget = None,
    executor: option.Executor = None,
    from_registry: option.FromRegistry = None,
    writers: option.Writers = None,
    restore: option.Restore = "needed",
    checkpoint: option.Checkpoint = "use",
    mock: option.Mock = [],  # noqa: B006 - typer copies it
    patch: option.Patch = [],  # noqa: B006 - typer copies it
    env_file: option.EnvFiles = [],  # noqa: B006 - typer copies it
    log_level: option.LogLevel = None,
    publish: option.Publish = None,
    to: option.To = None,
    plain_http: option.PlainHttp = False,
) -> None:
    """Resume a run from its failed step."""
    from runnable_ci.cli.retry import retry as command
    from runnable_ci.engine.options import RetryOptions
    from runnable_ci.util.console import is_actions

    make = partial(make_options, jobs, env_file, log_level, quiet=quiet, plain_http=plain_http)
    options = make(wait_s=wait_s, writers=writers, time_budget=time_budget, executor=executor)
    retry_options = RetryOptions(
        from_steps,
        param,
        rerun_changed=rerun_changed,
        rerun=[kind.value for kind in rerun],
        registry=from_registry,
        other_pipeline=other_pipeline,
        take_over=take_over,
        restore_all=restore == "all",
        params_files=params_file,
        allow_unused=allow_unused,
        accept=accept,
        reason=reason,
        typed=[] if is_actions(os.environ) else sys.argv[1:],
        reuse=reuse_options(None, options, is_new=False),
        drops_checkpoints=checkpoint == "drop",
    )
    if mock or patch:
        from runnable_ci.engine.parts.mock_options import MockOptions

        retry_options = retry_options._replace(mocks=MockOptions(mock, patch))
    raise typer.Exit(command(file, run_id, options, retry_options, dry_run=dry_run, publish=publish, to=to))


@app.command("show")
def show_command(
    run_id: option.RunOrReference,
    step: Annotated[str | None, typer.Argument(help="Show only this step, with what it read.")] = None,
    reads: Annotated[bool, typer.Option("--reads", help="Print the whole record of what the step read.")] = False,
    watch: option.WatchSteps = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
    as_json: option.Json = False,
) -> None:
    """Show a run: steps, reasons, parameters, files, and what was read.

    With --json, print its run log.
    """
    if "/" in run_id:
        from runnable_ci.cli.show.published import show_published

        given = partial(show_published, settings=make_settings(plain_http), environ=os.environ)
        given(run_id, step, reads=reads, as_json=as_json, watched=watch)
        return
    from runnable_ci.cli.show.run import show as command

    command(open_store(store), run_id, step, reads=reads, as_json=as_json, watched=watch)


@app.command("logs")
def logs_command(
    run_id: option.RunOrReference,
    step: Annotated[str | None, typer.Argument(help="Print only this step, without prefixes.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Print this attempt.  [default: the last]")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print stdout only.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Print stderr only.")] = False,
    follow: option.Follow = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Print the output of the steps."""
    if "/" in run_id:
        from runnable_ci.cli.show.published import logs_published

        given = partial(logs_published, settings=make_settings(plain_http), environ=os.environ)
        given(run_id, step, attempt=attempt, stdout=stdout, stderr=stderr, followed=follow)
        return
    from runnable_ci.cli.show.output import logs as command

    command(open_store(store), run_id, step, attempt=attempt, stdout=stdout, stderr=stderr, followed=follow)


@app.command("catalog")
def catalog_command(
    run_id: option.RunId,
    get: Annotated[str | None, typer.Option(metavar="NAME", help="Extract this file.")] = None,
    to: option.ExtractTo = None,
    step: Annotated[str | None, typer.Option(help="The version that this step stored.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The version of this attempt.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    store: option.Store = None,
    as_json: option.Json = False,
) -> None:
    """List the files of a run, or extract one."""
    from runnable_ci.cli import catalog as commands

    if get is None:
        commands.catalog(open_store(store), run_id, as_json=as_json)
    else:
        commands.get_file(open_store(store), run_id, get, to=to, step=step, attempt=attempt, force=force)


@app.command("checkout")
def checkout_command(
    run_id: option.RunId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to create.")],
    step: option.CodeOf = None,
    store: option.Store = None,
) -> None:
    """Restore the exact code of a run into a new folder.

    Uncommitted changes and submodules are included.
    """
    from runnable_ci.cli.checkout import checkout as command

    raise typer.Exit(command(open_store(store), run_id, folder, step=step, environ=os.environ))


@app.command("publish")
def publish_command(
    run_id: option.RunId,
    as_id: option.AsId = None,
    to: option.To = None,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Publish a run to a registry and print its reference."""
    from runnable_ci.cli.registry import publish as command

    command(open_store(store), run_id, as_id=as_id, to=to, settings=make_settings(plain_http), environ=os.environ)


@app.command("pull")
def pull_command(
    run_id: option.RunOrReference,
    source: option.PullFrom = None,
    only: option.OnlyLog = None,
    writers: option.Writers = None,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Pull a published run into the store.

    After that, show, logs, catalog and retry work offline.
    """
    from runnable_ci.cli.registry import pull as command

    settings = make_settings(plain_http, writers)
    command(open_store(store), run_id, source=source, only_log=only == "log", settings=settings, environ=os.environ)


@app.command("dispatch")
def dispatch_command(
    run_id: option.RunId,
    workflow: option.Workflow = "retry.yml",
    ref: option.Ref = None,
    from_step: option.FromStep = None,
    param: option.Params = [],  # noqa: B006 - typer copies it
    file: option.FilePath = None,
    other_pipeline: option.OtherPipeline = False,
    rerun_changed: option.RerunChanged = False,
    checkpoint: option.Checkpoint = "use",
    accept: option.Accept = [],  # noqa: B006 - typer copies it
    reason: option.Reason = "",
    watch: option.Watch = False,
    every_s: option.Interval = 3.0,
    repo: option.Repo = None,
    workflow_ref: option.WorkflowRef = None,
) -> None:
    """Resume a published run in GitHub Actions.

    Prints the URL of the workflow run.
    """
    from runnable_ci.cli.dispatch import DispatchOptions, dispatch

    options = DispatchOptions(
        workflow=workflow,
        workflow_ref=workflow_ref,
        ref=ref,
        from_step=from_step,
        params=param,
        repo=repo,
        watching=watch,
        every_s=every_s,
        file=file,
        other_pipeline=other_pipeline,
        rerun_changed=rerun_changed,
        drops_checkpoints=checkpoint == "drop",
        accept=accept,
        reason=reason,
        typed=sys.argv[1:],
    )
    raise typer.Exit(dispatch(run_id, options, settings=make_settings(), environ=os.environ))


@app.command("rerun-failed")
def rerun_failed_command(
    github_run_id: Annotated[str, typer.Argument(metavar="GITHUB_RUN_ID", help="Id or URL of a workflow run.")],
    watch: option.Watch = False,
    every_s: option.Interval = 3.0,
    repo: option.Repo = None,
) -> None:
    """Re-run the failed jobs of a workflow run.

    They run at the same commit. Prints the URL of the workflow run.
    """
    from runnable_ci.cli.dispatch import rerun_failed as rerun

    raise typer.Exit(
        rerun(github_run_id, repo=repo, watching=watch, every_s=every_s, settings=make_settings(), environ=os.environ)
    )


@app.command("check")
def check_command(pipeline: option.PipelinePath = None) -> None:
    """Validate a pipeline file."""
    from runnable_ci.cli.init import check as command

    command(pipeline, os.environ)


@app.command("preflight")
def preflight_command(
    pipeline: option.PipelinePath = None,
    to: option.To = None,
    plain_http: option.PlainHttp = False,
    as_json: option.Json = False,
) -> None:
    """Check what a run needs: files, interpreter, git, registry, disk space."""
    from runnable_ci.cli.preflight import preflight as command

    raise typer.Exit(command(pipeline, to=to, settings=make_settings(plain_http), environ=os.environ, as_json=as_json))


@app.command("init")
def init_command(
    folder: option.InitFolder = None,
    source: option.ImportFrom = None,
    github: option.ForGitHub = False,
    only: option.OnlyWorkflow = None,
    action_ref: option.ActionRef = None,
) -> None:
    """Write a commented pipeline file, that of another tool's pipeline, or GitHub workflows."""
    from runnable_ci.cli.init import write as command

    command(folder, source=source, github=github, only=only, action_ref=action_ref, environ=os.environ)


@app.command("workflow")
def workflow_command(
    pipeline: option.PipelinePath = None,
    output: option.WorkflowFile = None,
    check: option.CheckWorkflow = False,
    force: option.ReplaceOthers = False,
) -> None:
    """Write a GitHub workflow that spreads a run over several jobs."""
    from runnable_ci.cli.workflows.workflow import workflow as command

    raise typer.Exit(command(pipeline, output, is_check=check, is_forced=force, environ=os.environ))


@app.command("action", hidden=True)
def action_command(
    phase: Annotated[Literal["earlier", "begin", "finish", "comment"], typer.Argument()],
    run_id: Annotated[str, typer.Option(help="Run id set by `begin`.")] = "",
) -> None:
    """Run one phase of the GitHub action."""
    from runnable_ci.github.action.phases import run_phase

    raise typer.Exit(run_phase(phase, os.environ, run_id))


@app.command("attempt", hidden=True)
def attempt_command(queue: str, worker: str, stays: bool = False, project: str | None = None) -> None:
    """Run attempts of a run that another machine controls; a run starts this itself."""
    from runnable_ci.cli.spread.attempt import work

    raise typer.Exit(work(queue, worker, stays=stays, project=project))


app.add_typer(history)
app.add_typer(comparing)
