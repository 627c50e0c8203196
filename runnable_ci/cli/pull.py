"""`runnable-ci pull`: a published run into the local store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runnable_ci.cli.progress import watching
from runnable_ci.config import Settings
from runnable_ci.pipeline.project import registry_of
from runnable_ci.runs.command_line import http_option, of_store
from runnable_ci.runs.registry_config import Registries
from runnable_ci.runs.remote_index import SeveralRunsError
from runnable_ci.runs.sync import Pulled, read_origin
from runnable_ci.runs.sync import pull as pull_run
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console
from runnable_ci.util.text import size


def pull(
    layout: Layout, run: str, *, source: str | None, only_log: bool, settings: Settings, environ: Mapping[str, str]
) -> None:
    """Pull a run by its id, `latest` or a reference; its id is printed."""
    workspace = layout.folder.parent
    registry, reference = locate(layout, run, source, Registries(settings, environ), workspace)
    try:
        with watching("fetched") as watch:
            pulled = pull_run(layout, registry, reference, only_log=only_log, watch=watch)
    except SeveralRunsError as e:
        more = [*(["--only", "log"] if only_log else []), *http_option(registry.plain_http)]
        e.hint = f"pull one of them by its digest: {of_store(layout, 'pull', e.references[0], *more)}"
        raise
    console.err(summary(pulled, registry.label))
    console.out(pulled.run_id)


def locate(
    layout: Layout, run: str, source: str | None, registries: Registries, workspace: Path
) -> tuple[Registry, str]:
    """The registry that is meant, and the run id, `latest`, tag or digest in it."""
    if "/" in run:
        return registries.run(run, source)
    origin = read_origin(layout, run)
    if origin is not None and source is None:
        return registries.recorded(origin.registry), run
    return registries.named(source, in_pipeline=lambda: registry_of(workspace)), run


def summary(pulled: Pulled, where: str) -> str:
    """What was fetched and what was left, in one line."""
    writers = f", merged from {pulled.writers} writers" if pulled.writers > 1 else ""
    left = f", left {size(pulled.left.size_bytes)} behind" if pulled.left.blobs else ""
    return f"run {pulled.run_id} from {where}{writers}: fetched {size(pulled.fetched.size_bytes)}{left}"
