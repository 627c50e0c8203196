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


@history.command("runs")
def runs_command(
    source: option.RunsOf = None,
    status: option.OfStatus = "",
    branch: option.OfBranch = "",
    commit: option.OfCommit = "",
    tag: option.OfTag = "",
    pipeline: option.OfPipeline = "",
    since: option.Since = "",
    until: option.UntilTime = "",
    where: option.Where = [],  # noqa: B006 - typer copies it
    sort: option.Sort = "",
    reverse: option.Reverse = False,
    limit: option.Limit = None,
    experiments: _Experiments = False,
    plain_http: option.PlainHttp = False,
    store: option.Store = None,
    as_json: option.Json = False,
    as_csv: option.Csv = False,
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
    names: option.MetricNames = None,
    branch: option.OfBranch = "",
    pipeline: option.OfPipeline = "",
    since: option.Since = "",
    where: option.Where = [],  # noqa: B006 - typer copies it
    sort: option.Sort = "",
    limit: option.Limit = None,
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
def tag_command(run_id: option.RunId, label: option.Label, store: option.Store = None) -> None:
    """Label a run."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, tag=label)


@history.command("describe")
def describe_command(run_id: option.RunId, text: option.Description, store: option.Store = None) -> None:
    """Describe a run in words."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, description=text)


@history.command("pin")
def pin_command(run_id: option.RunId, off: option.Off = False, store: option.Store = None) -> None:
    """Keep a run: `gc` and `prune` never remove it."""
    from runnable_ci.cli.compare.notes import change as command

    command(open_store(store), run_id, settings=make_settings(), environ=os.environ, pinned=not off)


@history.command("rm")
def rm_command(
    run_ids: option.RunIds,
    force: option.Force = False,
    dry_run: option.DryDelete = False,
    store: option.Store = None,
) -> None:
    """Delete runs from the store, with what only they hold."""
    from runnable_ci.cli.compare.notes import remove as command

    command(open_store(store), run_ids, force=force, dry_run=dry_run)
