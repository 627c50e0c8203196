"""Commands that look at several runs at once: options in, exit codes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from runnable_ci.cli import options as option
from runnable_ci.cli.context import form_of, make_options, make_settings, open_store

comparing = typer.Typer()

_RUN_WORDS = "A run id, `latest`, `latest-success`, a branch, or HOST/REPOSITORY:RUN_ID."
_AnyRun = Annotated[str, typer.Argument(metavar="RUN", help=_RUN_WORDS)]
_ReportFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="The page.  [default: .runnable/reports/RUN_ID.html]"),
]
_Against = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|none", help="The run to compare with.  [default: the newest one before it that succeeded]"
    ),
]
_EnvironmentOf = Annotated[
    Literal["here", "recorded"],
    typer.Option(help="The packages that are here, or a virtual environment of the recorded versions, by uv or pip."),
]
_RelativeTolerance = Annotated[
    float, typer.Option("--rtol", min=0.0, help="Numbers are near if |b - a| is at most atol + rtol * |a|.")
]
_AbsoluteTolerance = Annotated[float, typer.Option("--atol", min=0.0, help="See --rtol.")]
_Times = Annotated[
    int,
    typer.Option(
        min=1, max=100, metavar="N", help="Make it so often, and find the step that is not the same each time, and why."
    ),
]
_SkipSteps = Annotated[
    list[str],
    typer.Option("--skip", metavar="STEP", help="Leave this step out: it gives what it gave in the run; repeatable."),
]
_IncludeSteps = Annotated[
    list[str],
    typer.Option(
        "--include", metavar="STEP", help="Run this step though it looks like a deploy, or was mocked; repeatable."
    ),
]
_PublishVerdict = Annotated[
    bool, typer.Option("--publish", help="Publish the run that was made, to the registry that has the first one.")
]
_VerdictTo = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="REGISTRY",
        help="Publish it there.  [default: the registry of the first run, else as `publish`]",
    ),
]
_FirstRun = Annotated[str, typer.Argument(metavar="A", help=_RUN_WORDS)]
_SecondRun = Annotated[str, typer.Argument(metavar="B", help="The run that it is compared with, named likewise.")]
_OtherRun = Annotated[
    str | None,
    typer.Argument(
        metavar="B",
        show_default="latest",
        help="The run that it is compared with, named likewise; where A is the newest, the last success is A.",
    ),
]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown.")]
_Html = Annotated[bool, typer.Option("--html", help="Print one self-contained page of HTML.")]
_ContentsOf = Annotated[
    list[str],
    typer.Option("--file", metavar="NAME", help="Compare what is in these files, by name or glob.  Repeatable."),
]
_LogsOf = Annotated[
    list[str], typer.Option("--logs", metavar="STEP|all", help="Compare what this step printed.  Repeatable.")
]
_FailIf = Annotated[
    list[str],
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="Exit with 1 if this holds of B's metrics, such as 'score < base - 0.01'; `base` is A's.  Repeatable.",
    ),
]
_DiffersCode = Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if the runs differ.")]
_MetricName = Annotated[str, typer.Option("--metric", metavar="NAME", help="The metric that moved.")]
_WhyPlanOnly = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what differs and which runs it takes, and make none.")
]
_GoodEnd = Annotated[
    str, typer.Option("--good", metavar="A", help="A commit or a run for which the condition does not hold.")
]
_BadEnd = Annotated[str, typer.Option("--bad", metavar="B", help="A later one for which it holds.")]
_BisectIf = Annotated[
    str,
    typer.Option("--if", metavar="CONDITION", help="On metrics, such as 'score < 0.9'; `base` is the good one's."),
]
_FirstParent = Annotated[
    bool, typer.Option("--first-parent", help="Follow only the first parent of merges, as `git bisect` has it.")
]
_BisectPlanOnly = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say how many commits are tried at most, and try none.")
]


@comparing.command("diff")
def diff_command(
    first: _FirstRun = "latest-success",
    second: _OtherRun = None,
    as_json: option.Json = False,
    markdown: _Markdown = False,
    html: _Html = False,
    exit_code: _DiffersCode = False,
    fail_if: _FailIf = [],  # noqa: B006 - typer copies it
    file: _ContentsOf = [],  # noqa: B006 - typer copies it
    logs: _LogsOf = [],  # noqa: B006 - typer copies it
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Compare two runs: what differs, and which difference explains the others."""
    from runnable_ci.cli.compare.diff import DiffOptions
    from runnable_ci.cli.compare.diff import diff as command

    forms: dict[Literal["json", "markdown", "html", "text"], bool]
    forms = {"json": as_json, "markdown": markdown, "html": html}
    options = DiffOptions(form_of(forms, "text"), exit_code, fail_if, file, logs)
    settings = make_settings(plain_http)
    raise typer.Exit(command(open_store(store), (first, second), options, settings=settings, environ=os.environ))


@comparing.command("report")
def report_command(
    run: _AnyRun = "latest",
    output: _ReportFile = None,
    against: _Against = None,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Write a run as one page of HTML, with graph, timeline, files and what changed."""
    from runnable_ci.cli.compare.report import report as command

    settings = make_settings(plain_http)
    command(open_store(store), run, output=output, against=against, settings=settings, environ=os.environ)


@comparing.command("explain")
def explain_command(
    run: _AnyRun = "latest",
    as_json: option.Json = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Say why a run failed: where, what differs from the last success, how to resume.

    With --json, print one document of at most 32 KB.
    """
    from runnable_ci.cli.compare.explain import explain as command

    settings = make_settings(plain_http)
    command(open_store(store), run, as_document=as_json, settings=settings, environ=os.environ)


@comparing.command("reproduce")
def reproduce_command(
    run: _AnyRun = "latest",
    environment: _EnvironmentOf = "here",
    rtol: _RelativeTolerance = 0.0,
    atol: _AbsoluteTolerance = 0.0,
    times: _Times = 1,
    skip: _SkipSteps = [],  # noqa: B006 - typer copies it
    include: _IncludeSteps = [],  # noqa: B006 - typer copies it
    publish: _PublishVerdict = False,
    to: _VerdictTo = None,
    param: option.Params = [],  # noqa: B006 - typer copies it
    jobs: option.Jobs = None,
    quiet: option.Quiet = False,
    as_json: option.Json = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Make a run again from its recorded code, values and inputs, and say whether it comes out.

    Exit code 0: reproduced, or within the tolerance; 1: different; 3: on other hardware or with other packages; 4: not
    comparable.
    """
    from runnable_ci.analysis.comparison.contents.compare import Tolerance
    from runnable_ci.analysis.reproduction.again import ReproduceOptions
    from runnable_ci.cli.compare.reproduce import Publication
    from runnable_ci.cli.compare.reproduce import reproduce as command

    options = make_options(jobs, quiet=quiet, plain_http=plain_http)
    asked = ReproduceOptions(environment, Tolerance(rtol, atol), param, times, skip, include)
    publication = Publication(publish or to is not None, to)
    raise typer.Exit(command(open_store(store), run, options, asked, publication, as_json=as_json))


@comparing.command("why")
def why_command(
    first: _FirstRun,
    second: _SecondRun,
    metric: _MetricName,
    dry_run: _WhyPlanOnly = False,
    param: option.Params = [],  # noqa: B006 - typer copies it
    jobs: option.Jobs = None,
    quiet: option.Quiet = False,
    as_json: option.Json = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Say which of code, data, values and packages moved a metric, by runs put together from two others.

    Exit code 0: one of them did, or several; 1: none of them; 4: of one it could not be seen.
    """
    from runnable_ci.analysis.attribution.why import WhyOptions
    from runnable_ci.cli.compare.why import why as command

    options, words = make_options(jobs, quiet=quiet, plain_http=plain_http), (first, second)
    asked = WhyOptions(metric, param)
    raise typer.Exit(command(open_store(store), words, options, asked, is_dry=dry_run, as_json=as_json))


@comparing.command("bisect")
def bisect_command(
    good: _GoodEnd,
    bad: _BadEnd,
    condition: _BisectIf,
    first_parent: _FirstParent = False,
    dry_run: _BisectPlanOnly = False,
    param: option.Params = [],  # noqa: B006 - typer copies it
    jobs: option.Jobs = None,
    quiet: option.Quiet = False,
    as_json: option.Json = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
) -> None:
    """Find the first commit for which a condition on metrics holds, running only what changed.

    Exit code 0: it is found; 4: commits that cannot be tried hide which one it is.
    """
    from runnable_ci.analysis.attribution.bisection.bisect import BisectOptions
    from runnable_ci.analysis.comparison.condition import parse_condition
    from runnable_ci.cli.compare.bisect import bisect as command

    options = make_options(jobs, quiet=quiet, plain_http=plain_http)
    asked = BisectOptions(parse_condition(condition), param, first_parent)
    raise typer.Exit(command(open_store(store), good, bad, options, asked, is_dry=dry_run, as_json=as_json))
