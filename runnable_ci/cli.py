"""The command line: options in, exit codes out. Each command's work is loaded when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from runnable_ci.errors import RunnableError

if TYPE_CHECKING:
    from runnable_ci.invocation import Options

app = typer.Typer(
    name="runnable-ci",
    help="Reproducible, resumable pipeline runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PipelinePath = Annotated[Path | None, typer.Argument(metavar="[PIPELINE]", help="A pipeline file or its folder.")]
FilePath = Annotated[Path | None, typer.Option("--file", "-f", help="The pipeline file or its folder.")]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="A run, or `latest`.")]
Params = Annotated[list[str], typer.Option("--param", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Steps at once.  [default: the cores]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Keep the steps' output to the log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done with each step, and why.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(application: typer.Typer) -> NoReturn:
    """Run the command line and leave the process; the only place that turns an error into text and exit code."""
    try:
        application()
    except RunnableError as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(e.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


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
) -> None:
    """Run a pipeline from its first step."""
    from runnable_ci.commands.run import run as command

    raise typer.Exit(
        command(
            pipeline,
            _options(jobs, quiet=quiet),
            run_id=run_id,
            tag=tag,
            params_file=params_file,
            params=param,
            dry_run=dry_run,
        )
    )


@app.command("retry")
def retry_command(
    run_id: RunId,
    file: FilePath = None,
    from_step: Annotated[
        str | None, typer.Option("--from", metavar="STEP", help="Run this step and all below.")
    ] = None,
    param: Params = [],  # noqa: B006 - typer copies it
    rerun_changed: Annotated[bool, typer.Option(help="Run steps again whose code changed.")] = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Go on with a run from its failed step."""
    from runnable_ci.commands.retry import Wishes
    from runnable_ci.commands.retry import retry as command

    wishes = Wishes(from_step, param, rerun_changed)
    raise typer.Exit(command(file, run_id, _options(jobs, quiet=quiet), wishes, dry_run=dry_run))


def _options(jobs: int | None, *, quiet: bool) -> Options:
    from runnable_ci.invocation import Options
    from runnable_ci.printer import Printer
    from runnable_ci.settings import load

    settings = load(os.environ)
    return Options(
        jobs=jobs or settings.jobs,
        environ=dict(os.environ),
        printer=Printer.of_process(quiet=quiet, no_colour="NO_COLOR" in os.environ),
    )
