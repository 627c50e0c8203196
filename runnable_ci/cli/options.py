"""Options and arguments that several commands have, with their help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from runnable_ci.cli.context import PublishWhen, minutes, publish_when, seconds

PROGRAM: dict[str, Any] = {
    "name": "runnable-ci",
    "help": "Reproducible, resumable pipeline runs.",
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""How the program as a whole reads its command line."""
PipelinePath = Annotated[Path | None, typer.Argument(metavar="PIPELINE", help="A pipeline file or its folder.")]
RunWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PIPELINE|STEP",
        show_default=False,
        help="A pipeline file or its folder; then steps, to run these only: others are taken from an earlier run.",
    ),
]
PipelineFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The pipeline file or its folder.  [default: the nearest one]"),
]
Until = Annotated[
    list[str], typer.Option("--until", metavar="STEP", help="Run this step and all that it needs; repeatable.")
]
Mock = Annotated[
    list[str],
    typer.Option(
        "--mock",
        metavar="STEP|all",
        help="Do not run this step, or any: it gives what it gave in the newest run that has it; repeatable.",
    ),
]
Patch = Annotated[
    list[str],
    typer.Option(
        "--patch",
        metavar="STEP=CODE",
        help="Run another function (module:function) or command in place of this step; repeatable.",
    ),
]
Sweep = Annotated[
    list[str],
    typer.Option(
        "--sweep",
        metavar="NAME=A,B,…",
        help="Make a run for each of these values of a parameter; of several, for each combination.",
    ),
]
Reuse = Annotated[
    str | None,
    typer.Option(
        "--reuse",
        metavar="never|RUN|BRANCH",
        help="Let results of this run, or of the runs of this branch, take the place of steps that would make the "
        "same; never: those of no other run.  [default: what the pipeline file says]",
    ),
]
FromRun = Annotated[
    str | None,
    typer.Option(
        "--from-run",
        metavar="RUN_ID",
        help="Take the results of steps that do not run from this run.  [default: the newest that has them]",
    ),
]
FilePath = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The pipeline file or its folder.  [default: the one the run was made from]"),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Resume a run though the machine that runs it gives signs of life.")
]
OtherPipeline = Annotated[
    bool,
    typer.Option(
        "--other-pipeline", help="With -f: accept another pipeline file than the run's, such as a renamed one."
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="A run id, or `latest`.")]
ParamsFiles = Annotated[
    list[Path],
    typer.Option("--params-file", metavar="FILE", help="Read parameters from a TOML, JSON or YAML file; repeatable."),
]
Params = Annotated[list[str], typer.Option("--param", "-p", metavar="NAME=VALUE", help="Set a parameter; repeatable.")]
EnvFiles = Annotated[
    list[Path],
    typer.Option("--env-file", metavar="FILE", help="Set the variables of a dotenv file; all are secret. Repeatable."),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"] | None,
    typer.Option("--log-level", case_sensitive=False, help="What steps are asked to log, by RUNNABLE_LOG_LEVEL."),
]
HelpInputs = Annotated[
    bool, typer.Option("--help-inputs", help="Print the pipeline's inputs and parameters, without running anything.")
]
AllowUnused = Annotated[
    bool, typer.Option("--allow-unused", help="Accept a parameter that no step takes and that looks misspelt.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Number of steps to run in parallel.  [default: number of CPUs]"),
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Run all steps on this executor of the pipeline file, or on this machine: local.  [default: what each "
        "step says]",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not print step output; only log it.")]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        parser=minutes,
        metavar="[=TIME]",
        show_default=False,
        help="Wait for another run in this folder, at most so long, such as 90s or 30m; a number is minutes (60).",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan, and why, without running anything.")]
Store = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder that contains the store.  [default: the folder of the pipeline file]"),
]
FromRegistry = Annotated[str | None, typer.Option(metavar="REGISTRY", help="Pull the run from this registry first.")]
FromSteps = Annotated[
    list[str],
    typer.Option("--from", metavar="STEP", help="Re-run this step and all steps that depend on it; repeatable."),
]
RerunChanged = Annotated[
    bool, typer.Option("--rerun-changed", help="Repeat finished steps that changed, however long they took.")
]


class ChangeKind(StrEnum):
    """What `--rerun` takes."""

    PACKAGES = "packages"
    CODE = "code"
    DATA = "data"


Rerun = Annotated[
    list[ChangeKind],
    typer.Option(
        "--rerun",
        metavar="packages|code|data",
        help="Repeat finished steps whose code or data changed, however long they took, or that ran with another "
        "Python, container image or package than now; repeatable.",
    ),
]
Accept = Annotated[
    list[str],
    typer.Option(
        metavar="STEP[:code|data]", help="Reuse this step though its code or data differ; needs --reason; repeatable."
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for --accept; kept in the run log.")]
RunOrReference = Annotated[
    str, typer.Argument(metavar="RUN_ID|REFERENCE", help="A run id, `latest`, or HOST/REPOSITORY:RUN_ID.")
]
Publish = Annotated[
    PublishWhen | None,
    typer.Option(
        "--publish",
        parser=publish_when,
        metavar="[=as-you-go]",
        show_default=False,
        help="Publish the run when it ends, whether it succeeded or not; with `as-you-go` after each step too.",
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        metavar="REGISTRY",
        help="Registry to publish to.  [default: RUNNABLE_CI_REGISTRY, else `registry` of the pipeline file]",
    ),
]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Allow plain HTTP for registries on other machines.")]
Writers = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Use only what these made of a run: branches (main, release/*), actor:NAME; or parts of it with "
        "all that is in them: name:WRITER or name:RUN_ID--WRITER, as tagged, sha256:DIGEST; `*` is everybody.  "
        "[default: in a job its own branch and the default branch, elsewhere everybody]",
    ),
]
Repo = Annotated[
    str | None,
    typer.Option(metavar="OWNER/NAME", help="The repository, or HOST/OWNER/NAME.  [default: the git remote]"),
]
Workflow = Annotated[str, typer.Option(metavar="FILE", help="The workflow to start, a file in .github/workflows.")]
Ref = Annotated[
    str | None, typer.Option(help="Branch, tag or commit with the fix.  [default: the current branch, if pushed]")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for the workflow run and exit with its status.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Print what is written until the run is over, also by another process.")
]
WatchSteps = Annotated[bool, typer.Option("--watch", help="Show the steps until the run is over, then the run.")]
Interval = Annotated[
    float,
    typer.Option(
        "--interval", parser=seconds, metavar="TIME", help="Polling interval of --watch; a number is seconds."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PullFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="REGISTRY", help="Registry to pull from.  [default: as `publish --to`]"),
]
OnlyLog = Annotated[
    Literal["log"] | None,
    typer.Option(help="Pull only the run log and what steps read, without files, objects and output."),
]
InitFolder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="The folder of the pipeline.  [default: the current folder]")
]
ImportFrom = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Import a dvc.yaml or a Snakefile: the pipeline file is written beside it."
    ),
]
ExtractTo = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Where to write it.  [default: its base name in the current folder]"),
]
WorkflowFile = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Where the workflow is.  [default: .github/workflows/PIPELINE.yml]"
    ),
]
CheckWorkflow = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit with 1 if the file is not what it would be.")
]
ReplaceOthers = Annotated[bool, typer.Option("--force", help="Replace a file that this command did not write.")]
ActionRef = Annotated[
    str | None,
    typer.Option(metavar="REF", help="With --github: version or commit of the action.  [default: v1]"),
]
CodeOf = Annotated[
    str | None, typer.Option("--step", help="Restore the code of this step.  [default: of the newest attempt]")
]
ForGitHub = Annotated[
    bool, typer.Option("--github", help="Write the workflows that run and retry the pipeline in GitHub Actions.")
]
OnlyWorkflow = Annotated[
    Literal["ci", "retry"] | None, typer.Option("--only", help="With --github: write only this workflow.")
]
DryDelete = Annotated[bool, typer.Option("--dry-run", "-n", help="Print what would be deleted.")]
FromStep = Annotated[
    str | None, typer.Option("--from", metavar="STEP", help="Re-run this step and all steps that depend on it.")
]
WorkflowRef = Annotated[
    str | None, typer.Option(help="Branch or tag that has the workflow.  [default: the default branch]")
]
Restore = Annotated[
    Literal["all", "needed"],
    typer.Option(help="Which files of reused steps to restore: all, or those that the steps to run may read."),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="End the run before this time is over, such as 5h30m, or before a moment, such as 2026-11-27T10:00:00Z, "
        "so that `retry` can resume it; the exit code is 75 then.  [default: what the pipeline file says]",
    ),
]
Checkpoint = Annotated[
    Literal["use", "drop"],
    typer.Option(help="Whether a step resumes from the checkpoint of its last attempt, or starts over."),
]
AsId = Annotated[
    str | None,
    typer.Option("--as", metavar="OTHER_ID", help="Publish a copy with this id, and keep it in the store."),
]

JobStep = Annotated[
    list[str],
    typer.Option(
        "--step",
        metavar="STEP",
        help="Of the run --run-id, which other jobs share, run this step: what it needs is taken as other jobs have "
        "published it. The first job begins the run; repeatable.",
    ),
]
Instances = Annotated[
    str | None,
    typer.Option(
        "--instances",
        metavar="A,B|K/N",
        show_default=False,
        help="With --step: only these instances of its matrix, by their keys, or the K-th of N parts of them.",
    ),
]
MatrixOf = Annotated[
    list[str],
    typer.Option(
        "--matrix-of",
        metavar="STEP",
        help="Print, as JSON and as the output `matrix` of a job, what --instances takes for each job of this step; "
        "repeatable.",
    ),
]
Collect = Annotated[
    bool,
    typer.Option(
        "--collect",
        help="Once all jobs of the run --run-id are over: settle what none of them ran, and end the run.",
    ),
]
PartsFrom = Annotated[
    list[Path],
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="Take what other jobs left from this folder, or the folders in it, in place of a registry; repeatable.",
    ),
]

_BARE = {"--wait": "--wait=60m", "--publish": "--publish=at-end"}


class WaitingCommand(TyperCommand):
    """A command whose `--wait` and `--publish` may come without a value.

    click's own optional values would take the word after it, such as a run id.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare option its value."""
        options = args[: args.index("--")] if "--" in args else args
        given = [_BARE.get(word, word) for word in options]
        return super().parse_args(ctx, given + args[len(options) :])
