"""The command line: options in, exit codes out. Each command's work is loaded when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runnable_ci.cli.context import make_options, make_settings
from runnable_ci.errors import UsageError

if TYPE_CHECKING:
    from runnable_ci.util.process_output import Stream

app = typer.Typer(
    name="runnable-ci",
    help="Reproducible, resumable pipeline runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PipelinePath = Annotated[Path | None, typer.Argument(metavar="PIPELINE", help="A pipeline file or its folder.")]
FilePath = Annotated[
    Path | None, typer.Option("--file", "-f", help="The pipeline file or its folder.  [default: the run's own]")
]
OtherPipeline = Annotated[
    bool,
    typer.Option("--other-pipeline", help="With -f: of another pipeline file, such as a renamed one."),
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="A run, or `latest`.")]
Params = Annotated[list[str], typer.Option("--param", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Steps at once.  [default: the cores]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Keep the steps' output to the log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done with each step, and why.")]
Store = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The folder with the store.  [default: that of the pipeline file]")
]
RunOrReference = Annotated[
    str, typer.Argument(metavar="RUN_ID|REFERENCE", help="A run, `latest`, or HOST/REPOSITORY:RUN_ID.")
]
Publish = Annotated[bool, typer.Option("--publish", help="Publish the run when it is over, however it ended.")]
To = Annotated[
    str | None,
    typer.Option(metavar="REGISTRY", help="Publish there.  [default: RUNNABLE_CI_REGISTRY, else the pipeline file's]"),
]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="Speak plain http to a registry on another machine.  [else: this one only]")
]
Repo = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="The repository, or HOST/OWNER/NAME.  [default: of the git remote]"),
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow its jobs; its result is the exit code.")]
Interval = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often --watch looks.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from runnable_ci.util.console import console
        from runnable_ci.version import VERSION

        console.out(VERSION)
        raise typer.Exit


@app.command("run")
def run_command(
    pipeline: PipelinePath = None,
    run_id: Annotated[str | None, typer.Option(help="Set the run id.  [default: a new name]")] = None,
    tag: Annotated[str, typer.Option(help="A word of your own, kept in the run log.")] = "",
    params_file: Annotated[Path | None, typer.Option(help="TOML or JSON file of parameters.")] = None,
    param: Params = [],  # noqa: B006 - typer copies it
    jobs: Jobs = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    publish: Publish = False,
    to: To = None,
    plain_http: PlainHttp = False,
) -> None:
    """Run a pipeline from its first step."""
    from runnable_ci.cli.run import run as command

    raise typer.Exit(
        command(
            pipeline,
            make_options(jobs, quiet=quiet, plain_http=plain_http),
            run_id=run_id,
            tag=tag,
            params_file=params_file,
            params=param,
            dry_run=dry_run,
            publish=publish or to is not None,
            to=to,
        )
    )


@app.command("retry")
def retry_command(
    run_id: RunOrReference,
    file: FilePath = None,
    from_steps: Annotated[
        list[str], typer.Option("--from", metavar="STEP", help="Run this step and all below; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    param: Params = [],  # noqa: B006 - typer copies it
    rerun_changed: Annotated[bool, typer.Option(help="Run steps again whose code changed.")] = False,
    other_pipeline: OtherPipeline = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
    from_registry: Annotated[
        str | None, typer.Option(metavar="REGISTRY", help="Pull the run from there first.")
    ] = None,
    restore: Annotated[
        Literal["all", "needed"],
        typer.Option(
            help="Which files of reused steps to bring back: all, or those that the steps which run may read."
        ),
    ] = "needed",
    publish: Publish = False,
    to: To = None,
    plain_http: PlainHttp = False,
) -> None:
    """Go on with a run from its failed step, here or pulled from a registry."""
    from runnable_ci.cli.retry import Wishes
    from runnable_ci.cli.retry import retry as command

    wishes = Wishes(
        from_steps,
        param,
        rerun_changed,
        from_registry,
        publish or to is not None,
        to,
        other_pipeline=other_pipeline,
        restore_all=restore == "all",
    )
    options = make_options(jobs, quiet=quiet, plain_http=plain_http)
    raise typer.Exit(command(file, run_id, options, wishes, dry_run=dry_run))


@app.command("runs")
def runs_command(
    source: Annotated[
        str | None, typer.Option("--from", metavar="REGISTRY", help="List the runs that are published there.")
    ] = None,
    plain_http: PlainHttp = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the runs, newest last."""
    from runnable_ci.cli import runs as commands
    from runnable_ci.pipeline.project import find_store

    if source is None:
        commands.runs(find_store(store), as_json=as_json)
    else:
        commands.runs_of_registry(source, settings=make_settings(plain_http), environ=os.environ, as_json=as_json)


@app.command("show")
def show_command(run_id: RunId, store: Store = None, as_json: Json = False) -> None:
    """Show a run: steps, reasons, parameters, files. With --json its run log."""
    from runnable_ci.cli.show import show as command
    from runnable_ci.pipeline.project import find_store

    command(find_store(store), run_id, as_json=as_json)


@app.command("logs")
def logs_command(
    run_id: RunId,
    step: Annotated[str | None, typer.Argument(help="Only this step, without prefixes.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt.  [default: the last]")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only what went to stdout.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only what went to stderr.")] = False,
    store: Store = None,
) -> None:
    """Print what the steps wrote."""
    from runnable_ci.cli.logs import logs as command
    from runnable_ci.pipeline.project import find_store

    stream: Stream | None = None if stdout == stderr else "o" if stdout else "e"
    command(find_store(store), run_id, step, attempt=attempt, stream=stream)


@app.command("catalog")
def catalog_command(
    run_id: RunId,
    get: Annotated[str | None, typer.Option(metavar="NAME", help="Write this file out.")] = None,
    to: Annotated[Path | None, typer.Option(metavar="PATH", help="Where to.  [default: its base name here]")] = None,
    step: Annotated[str | None, typer.Option(help="The version that this step put.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The version of this attempt.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the files of a run, or write one out."""
    from runnable_ci.cli import catalog as commands
    from runnable_ci.pipeline.project import find_store

    if get is None:
        commands.catalog(find_store(store), run_id, as_json=as_json)
    else:
        commands.get_file(find_store(store), run_id, get, to=to, step=step, attempt=attempt, force=force)


@app.command("checkout")
def checkout_command(
    run_id: RunId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
    step: Annotated[str | None, typer.Option(help="The code of this step.  [default: of the newest attempt]")] = None,
    store: Store = None,
) -> None:
    """Rebuild the exact code of a run, with its uncommitted changes and its submodules."""
    from runnable_ci.cli.checkout import checkout as command
    from runnable_ci.pipeline.project import find_store

    raise typer.Exit(command(find_store(store), run_id, folder, step=step, environ=os.environ))


@app.command("publish")
def publish_command(
    run_id: RunId,
    as_id: Annotated[
        str | None, typer.Option("--as", metavar="OTHER_ID", help="Publish a copy that has this id, and keep it here.")
    ] = None,
    to: To = None,
    plain_http: PlainHttp = False,
    store: Store = None,
) -> None:
    """Send a run to a registry; prints its reference."""
    from runnable_ci.cli.publish import publish as command
    from runnable_ci.pipeline.project import find_store

    command(find_store(store), run_id, as_id=as_id, to=to, settings=make_settings(plain_http), environ=os.environ)


@app.command("pull")
def pull_command(
    run_id: RunOrReference,
    source: Annotated[
        str | None, typer.Option("--from", metavar="REGISTRY", help="Where from.  [default: as --to of publish]")
    ] = None,
    only: Annotated[Literal["log"] | None, typer.Option(help="The run log, without files, objects and output.")] = None,
    plain_http: PlainHttp = False,
    store: Store = None,
) -> None:
    """Fetch a published run; then show, logs, catalog and retry work offline."""
    from runnable_ci.cli.pull import pull as command
    from runnable_ci.pipeline.project import find_store

    settings = make_settings(plain_http)
    command(find_store(store), run_id, source=source, only_log=only == "log", settings=settings, environ=os.environ)


@app.command("dispatch")
def dispatch_command(
    run_id: RunId,
    workflow: Annotated[
        str, typer.Option(metavar="FILE", help="The workflow in .github/workflows to start.")
    ] = "retry.yml",
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag or commit with the fix.  [default: the branch here, if pushed]")
    ] = None,
    from_step: Annotated[
        str | None, typer.Option("--from", metavar="STEP", help="Run this step and all below.")
    ] = None,
    param: Params = [],  # noqa: B006 - typer copies it
    file: FilePath = None,
    other_pipeline: OtherPipeline = False,
    watch: Watch = False,
    interval: Interval = 3.0,
    repo: Repo = None,
    workflow_ref: Annotated[
        str | None, typer.Option(help="Branch or tag to take the workflow from.  [default: the default branch]")
    ] = None,
) -> None:
    """Go on with a published run in GitHub Actions; prints the URL of the workflow run."""
    from runnable_ci.cli.dispatch import Wishes
    from runnable_ci.cli.dispatch import dispatch as command
    from runnable_ci.config import load

    wishes = Wishes(
        workflow=workflow,
        workflow_ref=workflow_ref,
        ref=ref,
        from_step=from_step,
        params=param,
        repo=repo,
        watching=watch,
        every_s=interval,
        file=file,
        other_pipeline=other_pipeline,
    )
    raise typer.Exit(command(run_id, wishes, settings=load(os.environ), environ=os.environ))


@app.command("rerun-failed")
def rerun_failed_command(
    github_run_id: Annotated[str, typer.Argument(metavar="GITHUB_RUN_ID", help="A workflow run's number or URL.")],
    watch: Watch = False,
    interval: Interval = 3.0,
    repo: Repo = None,
) -> None:
    """Run the failed jobs of a workflow run again, at the same commit; prints its URL."""
    from runnable_ci.cli.rerun_failed import rerun_failed as command
    from runnable_ci.config import load

    raise typer.Exit(
        command(
            github_run_id,
            repo=repo,
            watching=watch,
            every_s=interval,
            settings=load(os.environ),
            environ=os.environ,
        )
    )


@app.command("gc")
def gc_command(
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Keep the N newest runs.")] = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Remove only runs older: 12h, 30d, 8w.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be removed.")] = False,
    store: Store = None,
) -> None:
    """Remove old runs, and content that no run holds any more."""
    from runnable_ci.cli.gc import gc as command
    from runnable_ci.pipeline.project import find_store

    command(find_store(store), keep=keep, older_than=older_than, dry_run=dry_run)


@app.command("prune")
def prune_command(
    source: Annotated[
        str | None, typer.Option("--from", metavar="REGISTRY", help="Where.  [default: as --to of publish]")
    ] = None,
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Keep the N newest runs.")] = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help="Remove only runs older: 12h, 30d, 8w.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be removed.")] = False,
    plain_http: PlainHttp = False,
) -> None:
    """Remove old runs from a registry."""
    from runnable_ci.cli.prune import prune as command
    from runnable_ci.pipeline.project import store_folder

    settings = make_settings(plain_http)
    command(
        store_folder(),
        source=source,
        keep=keep,
        older_than=older_than,
        dry_run=dry_run,
        settings=settings,
        environ=os.environ,
    )


@app.command("check")
def check_command(pipeline: PipelinePath = None) -> None:
    """Validate a pipeline file."""
    from runnable_ci.cli.check import check as command

    command(pipeline, os.environ)


@app.command("init")
def init_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="The folder of the pipeline.  [default: here]")
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Write the workflows that run and retry the pipeline in GitHub Actions.")
    ] = False,
    only: Annotated[
        Literal["ci", "retry"] | None, typer.Option(help="With --github: write this workflow alone.")
    ] = None,
    action_ref: Annotated[
        str | None, typer.Option(metavar="REF", help="With --github: a version or commit of the action.  [default: v1]")
    ] = None,
) -> None:
    """Write a commented starter file, or the workflows for GitHub."""
    if github:
        from runnable_ci.cli.init_github import init_github

        init_github(folder, action_ref=action_ref, only=only, environ=os.environ)
        return
    if only is not None or action_ref is not None:
        raise UsageError("--only and --action-ref are for --github")
    from runnable_ci.cli.init import init as command

    command(folder or Path())


@app.command("action", hidden=True)
def action_command(
    phase: Annotated[Literal["begin", "finish"], typer.Argument()],
    run_id: Annotated[str, typer.Option(help="The run that `begin` named.")] = "",
) -> None:
    """Do the work of a step of the GitHub action."""
    if phase == "finish":
        from runnable_ci.github.action.finish import finish

        raise typer.Exit(finish(os.environ, run_id))
    from runnable_ci.github.action.begin import begin, environment
    from runnable_ci.util.process import become

    if words := begin(os.environ):
        again = [sys.executable, "-I", "-m", "runnable_ci", *words]
        raise typer.Exit(become(again, environment(os.environ, words)))
