"""Move runs: `runnable-ci publish` sends one to a registry, `pull` fetches one into the local store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.cli.terminal import watching
from runnable_ci.config import Settings
from runnable_ci.engine.code.untracked import notes
from runnable_ci.engine.run_project import own_file
from runnable_ci.errors import BlobMissingError, RunnableError, StoreError, UsageError
from runnable_ci.github.accepted_writers import accepted_writers
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.pipeline.project import Project, registry_of
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.runs.remote.contributions import read_contributions
from runnable_ci.runs.remote.publish import IdTakenError, Published, require_room
from runnable_ci.runs.remote.publish import publish as publish_run
from runnable_ci.runs.remote.pull import Pulled, forget, keep_as, missing_blobs, read_origin
from runnable_ci.runs.remote.pull import pull as pull_run
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.runs.remote.remote_index import SeveralRunsError, find_occupant
from runnable_ci.runs.reuse.candidates import publish_entries
from runnable_ci.runs.reuse.held_contents import fetch_held, read_held
from runnable_ci.runs.run_identity import describe_beginning, run_identity
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console, is_actions
from runnable_ci.util.shell_command import command
from runnable_ci.util.signals import since_cancelled_s
from runnable_ci.util.text import format_size, listed

if TYPE_CHECKING:
    from runnable_ci.cli.context import PublishWhen
    from runnable_ci.engine.options import Options
    from runnable_ci.engine.session import RunSession
    from runnable_ci.runs.model import RunLog

GRACE_S = 6.0
"""GitHub's runner sends its second signal 7.5 s after the first."""
LEAST_S = 1.0


def publish(
    layout: Layout, run: str, *, as_id: str | None, to: str | None, settings: Settings, environ: Mapping[str, str]
) -> None:
    """Publish a run, or a copy of it that has the id `as_id`; its reference is printed."""
    own_id = run_id = resolve_id(layout, run)
    is_new = False
    if as_id is not None and as_id != run_id:
        is_new = keep_as(layout, run_id, as_id)
        run_id = as_id
    try:
        console.out(publish_known(layout, run_id, to, settings, environ))
    except UsageError as e:
        if is_new:  # what is refused leaves nothing
            forget(layout, run_id)
        if isinstance(e, IdTakenError) and run_id != own_id:
            where = [*(["--to", to] if to else []), *http_option(settings.plain_http)]
            again = of_store(layout, "publish", own_id, "--as", "OTHER_ID", *where)
            e.hint = f"choose an id that no other run has there: {again}"
        raise


def publish_known(layout: Layout, run_id: str, to: str | None, settings: Settings, environ: Mapping[str, str]) -> str:
    """Publish a run of a store; its reference."""
    log = load(layout, run_id)
    file = own_file(log, layout.folder.parent) or layout.folder.parent
    registries = Registries(settings, environ)
    registry = registries.named(to, in_pipeline=lambda: registry_of(file))
    for note in notes(log):
        console.err(note)
    with watching("sent") as watch:
        elsewhere = registries.recorded
        published = publish_run(layout, run_id, registry, environ=environ, watch=watch, open_registry=elsewhere)
    indexed = publish_entries(layout, run_id, registry, published.manifest.digest, environ=environ)
    console.err(*published.notes, *indexed, _sent(published))
    return published.reference


@dataclass(frozen=True, slots=True)
class PublishOnExit:
    """Publishes a run when it is over, however it ended."""

    registry: Registry
    environ: Mapping[str, str]
    say: Callable[..., None]
    is_default: bool
    """Whether the registry need not be named."""
    elsewhere: Callable[[str], Registry]
    """Opens registries that hold what the run took from others."""
    open: Callable[[], Registry]
    """Opens the registry once more."""
    when: PublishWhen = "at-end"

    @classmethod
    def of(cls, project: Project, to: str | None, options: Options, when: PublishWhen) -> PublishOnExit:
        """Make a publication at exit. Raises `UsageError`, before anything runs, where no registry is set."""
        registries = Registries(options.settings, options.environ)
        open_registry = partial(registries.named, to, in_pipeline=lambda: project.pipeline.registry)
        registry = open_registry()
        if registry.advice:
            options.printer.say(f"note: {registry.advice.hint}")
        is_default = registry.label == registries.default(in_pipeline=lambda: project.pipeline.registry)
        say = options.printer.say
        return cls(registry, options.environ, say, is_default, registries.recorded, open_registry, when)

    def joined(self, session: RunSession) -> RunSession:
        """Return the session of a run that is published while it runs, where that is asked for."""
        if self.when == "at-end":
            return session
        from runnable_ci.engine.outliving.live import published_live
        from runnable_ci.runs.live.publisher import LivePublisher

        def make(layout: Layout, run_id: str, say: Callable[[str], None]) -> LivePublisher:
            registry = self.open()
            return LivePublisher(layout, run_id, registry, environ=self.environ, say=say, elsewhere=self.elsewhere)

        beside = partial(published_live, make=make, say=self.say)
        return replace(session, options=replace(session.options, beside=beside))

    def require_room(self, run_id: str) -> None:
        """Raise `UsageError` for a run id that is too long to be published."""
        require_room(run_id, self.environ)

    def require_free(self, run_id: str, mine: RunLog | None = None) -> None:
        """Raise `UsageError` where another run than `mine` has that id in the registry: better said before the work.

        That is a request or two. Where the registry does not answer the run is not kept from its work. Nor is it where
        another process publishes it at its end, which decides then.
        """
        self.require_room(run_id)
        if self.when == "until-end":
            return
        try:
            found = find_occupant(self.registry, run_id, tries=1)
        except StoreError as e:
            self.say(f"note: cannot check whether {self.registry.label} has a run `{run_id}`: {e.message}")
            return
        if found is None or (mine is not None and found.identity == run_identity(mine)):
            return
        what = "already a" if mine is None else "another"
        raise UsageError(
            f"there is {what} run `{run_id}` in {self.registry.label}, {describe_beginning(found.annotations)}",
            hint="set another id: --run-id" if mine is None else self._copy_hint(run_id),
        )

    def _copy_hint(self, run_id: str) -> str:
        to = [] if self.is_default else ["--to", self.registry.label]
        more = [*to, *http_option(self.registry.plain_http)]
        copy = command("publish", run_id, "--as", "OTHER_ID", *more)
        return f"publish a copy under an id that is free, then retry that: {copy}"

    def publish(self, layout: Layout, run_id: str, code: int) -> int:
        """Return the exit code: that of the run, or 1 where the run succeeded and publishing it failed."""
        if self.when == "until-end":
            return code
        try:
            log = load(layout, run_id)
            for note in notes(log) if log.invocation > 1 else ():  # a first invocation has just said it
                self.say(note)
            limit_s = self._limit_s()
            with watching("sent") as watch:
                published = publish_run(
                    layout,
                    run_id,
                    self.registry,
                    environ=self.environ,
                    watch=watch,
                    limit_s=limit_s,
                    open_registry=self.elsewhere,
                )
            # There is no time for that where a runner is about to kill us, and the next publish makes up for it.
            digest = published.manifest.digest if limit_s is None else ""
            indexed = publish_entries(layout, run_id, self.registry, digest, environ=self.environ) if digest else []
        except RunnableError as e:
            to = [] if self.is_default else ["--to", self.registry.label]
            again = of_store(layout, "publish", run_id, *to, *http_option(self.registry.plain_http))
            self.say(*e.lines(), f"run {run_id} is in the local store; to try again: {again}")
            return code or 1
        self.say(*published.notes, *indexed, f"published {published.reference}: {_sent(published)}")
        return code

    def _limit_s(self) -> float | None:
        """Return how long publishing may take; None without a limit, as where no runner is going to kill us."""
        cancelled_s = since_cancelled_s()
        if cancelled_s is None or not is_actions(self.environ):
            return None
        return max(LEAST_S, GRACE_S - cancelled_s)


def _sent(published: Published) -> str:
    sent = published.sent
    return "already up to date" if sent is None else f"sent {format_size(sent.size_bytes)} in {sent.blobs} blobs"


def pull(
    layout: Layout, run: str, *, source: str | None, only_log: bool, settings: Settings, environ: Mapping[str, str]
) -> None:
    """Pull a run by its id, `latest` or a reference; its id is printed."""
    workspace, registries = layout.folder.parent, Registries(settings, environ)
    if source is None and _is_only_here(layout, run):
        _fetch_taken(layout, run, registries)
        return
    registry, reference = locate(layout, run, source, registries, workspace)
    try:
        with watching("fetched") as watch:
            accepted = accepted_writers(settings, environ)
            pulled = pull_run(layout, registry, reference, accepted=accepted, only_log=only_log, watch=watch)
    except SeveralRunsError as e:
        more = [*(["--only", "log"] if only_log else []), *http_option(registry.plain_http)]
        e.hint = f"pull one of them by its digest: {of_store(layout, 'pull', e.references[0], *more)}"
        raise
    written_by = [f"written by {writer}" for writer in pulled.others]
    console.err(*pulled.refusals(), *written_by, summary(pulled, registry.label))
    console.out(pulled.run_id)


def _is_only_here(layout: Layout, run: str) -> bool:
    """Return whether a run was made here and never published, while contents that it took from others are elsewhere."""
    held = read_held(layout, run)
    return bool(held) and read_origin(layout, run) is None and not read_contributions(layout, run).published


def _fetch_taken(layout: Layout, run_id: str, registries: Registries) -> None:
    """Have all that a run took from others. Raises `BlobMissingError` where it is gone, `StoreError`."""
    held, contents = read_held(layout, run_id), layers(load(layout, run_id)).values()
    with watching("fetched") as watch:
        fetched = fetch_held(layout, held, contents, registries.recorded, watch)
    where = listed(origin.registry for origin in held)
    if missing := missing_blobs(layout, contents):
        raise BlobMissingError(
            f"{missing[0].digest}, which run `{run_id}` took from another, is not in {where} any more",
            hint=f"`{of_store(layout, 'retry', run_id)}` runs the steps again that made what is needed",
        )
    console.err(f"run {run_id}, contents of other runs from {where}: fetched {format_size(fetched.size_bytes)}")
    console.out(run_id)


def locate(
    layout: Layout, run: str, source: str | None, registries: Registries, workspace: Path
) -> tuple[Registry, str]:
    """Return the registry, and the run id, `latest`, tag, digest or `RUN_ID@DIGEST` in it."""
    if "/" in run:
        return registries.run(run, source)
    origin = read_origin(layout, run.partition("@")[0])
    if origin is not None and source is None:
        return registries.recorded(origin.registry), run
    return registries.named(source, in_pipeline=lambda: registry_of(workspace)), run


def summary(pulled: Pulled, where: str) -> str:
    """Return what was fetched and what was left, in one line."""
    writers = f", merged from {pulled.writers} writers" if pulled.writers > 1 else ""
    left = f", {format_size(pulled.left.size_bytes)} not downloaded" if pulled.left.blobs else ""
    return f"run {pulled.run_id} from {where}{writers}: fetched {format_size(pulled.fetched.size_bytes)}{left}"
