"""Commands on many runs, and what people note of them: options in, exit codes out."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from runnable_ci.cli import options as option
from runnable_ci.cli.context import form_of, known_store, make_settings, open_store

history = typer.Typer()

_Experiments = Annotated[
    bool, typer.Option("--experiments", help="Also what `reproduce`, `why` and `bisect` made, marked as such.")
]
_OfStatus = Annotated[str, typer.Option("--status", help="`succeeded`, `failed`, `running`.", show_default=False)]
_OfBranch = Annotated[str, typer.Option("--branch", metavar="BRANCH", help="Of this branch or tag of the code.")]
_OfCommit = Annotated[str, typer.Option("--commit", metavar="SHA", help="Of a commit that begins so.")]
_OfTag = Annotated[str, typer.Option("--tag", metavar="LABEL", help="With this label.")]
_OfPipeline = Annotated[str, typer.Option("--pipeline", metavar="NAME", help="Of this pipeline.")]
_Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Begun since then: 2026-11-01, 30m, 12h, 8w.")]
_UntilTime = Annotated[str, typer.Option("--until", metavar="TIME", help="Begun until then.")]
_Where = Annotated[
    list[str],
    typer.Option(
        metavar="CONDITION",
        help="Metrics and parameters, such as 'score > 0.9 && parameters.lr == 0.1'.  Repeatable.",
    ),
]
_Sort = Annotated[
    str, typer.Option(metavar="NAME", help="By a metric, a parameter, `duration` or `run`.  [default: started]")
]
_Reverse = Annotated[bool, typer.Option("--reverse", help="The other way round.")]
_Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N of them.")]
_Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, a column for each parameter and metric.")]
_MetricNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", show_default=False, help="Metrics.  [default: all]")
]
_RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID", help="Run ids, or `latest`.")]
_Label = Annotated[str, typer.Argument(metavar="LABEL", help="The label; '' takes it away.")]
_Description = Annotated[str, typer.Argument(metavar="TEXT", help="The description; '' takes it away.")]
_Off = Annotated[bool, typer.Option("--off", help="Take the pin away.")]
_Force = Annotated[bool, typer.Option("--force", help="Also what is pinned.")]
_RunsOf = Annotated[str | None, typer.Option("--from", metavar="REGISTRY", help="List the runs in this registry.")]
_PruneFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="REGISTRY", help="Registry to delete from.  [default: as `publish --to`]"),
]
_Keep = Annotated[int | None, typer.Option(min=0, metavar="N", help="Keep the N newest runs.")]
_OlderThan = Annotated[str | None, typer.Option(metavar="AGE", help="Delete only runs older than this: 30m, 12h, 8w.")]
_Evict = Annotated[bool, typer.Option("--evict", help="Delete content that a registry holds: what was published.")]


@history.command("runs")
def runs_command(
    source: _RunsOf = None,
    status: _OfStatus = "",
    branch: _OfBranch = "",
    commit: _OfCommit = "",
    tag: _OfTag = "",
    pipeline: _OfPipeline = "",
    since: _Since = "",
    until: _UntilTime = "",
    where: _Where = [],  # noqa: B006 - typer copies it
    sort: _Sort = "",
    reverse: _Reverse = False,
    limit: _Limit = None,
    experiments: _Experiments = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
    as_json: option.Json = False,
    as_csv: _Csv = False,
) -> None:
    """List runs, newest last; only those for which all that is asked holds."""
    from runnable_ci.analysis.history.query import Query
    from runnable_ci.cli.show import listing as commands

    query = Query(status, branch, commit, tag, pipeline, since, until, where, sort, reverse, limit, experiments)
    form: Literal["json", "csv", "table"] = form_of({"json": as_json, "csv": as_csv}, "table")
    if source is None:
        commands.runs(open_store(store), query, form=form)
    else:
        settings = make_settings(plain_http)
        commands.runs_of_registry(source, query, known_store(store), settings=settings, environ=os.environ, form=form)


@history.command("metrics")
def metrics_command(
    names: _MetricNames = None,
    branch: _OfBranch = "",
    pipeline: _OfPipeline = "",
    since: _Since = "",
    where: _Where = [],  # noqa: B006 - typer copies it
    sort: _Sort = "",
    limit: _Limit = None,
    experiments: _Experiments = False,
    store: option.Store = None,
    as_json: option.Json = False,
) -> None:
    """Print metrics over runs, newest last, with a bar each."""
    from runnable_ci.analysis.history.query import Query
    from runnable_ci.cli.compare.metrics import metrics as command

    query = Query(
        branch=branch,
        pipeline=pipeline,
        since=since,
        where=where,
        sort=sort,
        limit=limit,
        experiments=experiments,
    )
    command(open_store(store), names or [], query, as_json=as_json)


@history.command("tag")
def tag_command(run_id: option.RunId, label: _Label, store: option.Store = None) -> None:
    """Label a run."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, tag=label)


@history.command("describe")
def describe_command(run_id: option.RunId, text: _Description, store: option.Store = None) -> None:
    """Describe a run in words."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, description=text)


@history.command("pin")
def pin_command(run_id: option.RunId, off: _Off = False, store: option.Store = None) -> None:
    """Keep a run: `gc` and `prune` never remove it."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, pinned=not off)


@history.command("rm")
def rm_command(
    run_ids: _RunIds,
    force: _Force = False,
    dry_run: option.DryDelete = False,
    store: option.Store = None,
) -> None:
    """Delete runs from the store, with what only they hold."""
    from runnable_ci.cli.compare.notes import remove as command

    command(open_store(store), run_ids, force=force, dry_run=dry_run)


@history.command("gc")
def gc_command(
    keep: _Keep = None,
    older_than: _OlderThan = None,
    evict: _Evict = False,
    dry_run: option.DryDelete = False,
    store: option.Store = None,
) -> None:
    """Delete old runs and unreferenced blobs."""
    from runnable_ci.cli.cleanup import gc as command

    evict_by = (make_settings(), os.environ) if evict else None
    command(open_store(store), keep=keep, older_than=older_than, evict_by=evict_by, dry_run=dry_run)


@history.command("prune")
def prune_command(
    source: _PruneFrom = None,
    keep: _Keep = None,
    older_than: _OlderThan = None,
    dry_run: option.DryDelete = False,
    plain_http: option.PlainHttp = False,
) -> None:
    """Delete old runs from a registry."""
    from runnable_ci.cli.cleanup import prune as command

    settings = make_settings(plain_http)
    command(source=source, keep=keep, older_than=older_than, dry_run=dry_run, settings=settings, environ=os.environ)
