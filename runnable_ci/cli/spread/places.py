"""Where jobs that share a run leave their parts of it for each other: a registry, or folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runnable_ci.cli.registry import PublishOnExit
from runnable_ci.engine.options import Options
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.carried.folders import bring, layouts_in, leave
from runnable_ci.runs.remote.pull import find, take
from runnable_ci.runs.remote.remote_index import find_occupant
from runnable_ci.store.local import Layout
from runnable_ci.util.shell_command import path
from runnable_ci.util.text import format_size

if TYPE_CHECKING:
    from runnable_ci.cli.context import PublishWhen

_FOLDER_BEGINS = (".", "/", "~")
"""No registry's name does."""
_REFUSALS_SHOWN_MAX = 3


class MeetingPlace(Protocol):
    """Where a job finds the run, and leaves its part."""

    @property
    def label(self) -> str:
        """How a message names it."""

    @property
    def registry(self) -> str | None:
        """The registry that was named."""

    def bring(self, layout: Layout, run_id: str) -> None:
        """Merge what others have left into the store; nothing where there is none."""

    def joined(self, session: RunSession) -> RunSession:
        """Return the session, published while it runs where that is possible."""

    def publish(self, layout: Layout, run_id: str, code: int) -> int:
        """Leave the run for others; return the exit code, 1 where only that failed."""


@dataclass(frozen=True, slots=True)
class RegistryPlace:
    """A registry: what other jobs publish while this one runs is there too."""

    publication: PublishOnExit
    options: Options
    registry: str | None

    @property
    def label(self) -> str:
        """How a message names it."""
        return self.publication.registry.label

    def bring(self, layout: Layout, run_id: str) -> None:
        """Merge what accepted writers have published; what is in flight is not waited for."""
        from runnable_ci.github.accepted_writers import accepted_by_a_part

        registry = self.publication.registry
        if find_occupant(registry, run_id) is None:
            return
        accepted = accepted_by_a_part(self.options.settings, self.options.environ)
        with self.options.transfer_progress("fetched") as watch:
            found = find(registry, run_id, accepted=accepted, layout=layout)
            pulled = take(layout, found, only_log=True, watch=watch, is_taken_over=True)
        refusals = pulled.refusals()
        more = [f"and {len(refusals) - _REFUSALS_SHOWN_MAX} more"] if len(refusals) > _REFUSALS_SHOWN_MAX else []
        for note in [*refusals[:_REFUSALS_SHOWN_MAX], *more]:
            self.options.printer.say(f"note: {note}")

    def joined(self, session: RunSession) -> RunSession:
        """Return the session, published after each step."""
        return self.publication.joined(session)

    def publish(self, layout: Layout, run_id: str, code: int) -> int:
        """Publish the run as it is here."""
        return self.publication.publish(layout, run_id, code)


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """Folders that something else carries from one job to the next."""

    sources: Sequence[Layout]
    target: Path | None
    options: Options
    environ: Mapping[str, str]
    registry: None = None

    @property
    def label(self) -> str:
        """How a message names it."""
        return ", ".join(source.label for source in self.sources) or "the folders of other jobs"

    def bring(self, layout: Layout, run_id: str) -> None:
        """Merge what the folders have."""
        count = bring(layout, self.sources, run_id)
        if count:
            self.options.printer.say(f"run {run_id}: merged from {count} parts in {self.label}")

    def joined(self, session: RunSession) -> RunSession:
        """Return the session as it is: a folder is written at the end."""
        return session

    def publish(self, layout: Layout, run_id: str, code: int) -> int:
        """Write the run into the folder."""
        if self.target is None:
            return code
        try:
            sent = leave(layout, run_id, self.target, self.sources, self.environ)
        except RunnableError as e:
            self.options.printer.say(*e.lines(), f"run {run_id} is in the local store alone")
            return code or 1
        size = format_size(sent.size_bytes)
        self.options.printer.say(f"run {run_id} left in {path(self.target)}: {size} in {sent.blobs} blobs")
        return code


def open_place(
    project: Project, options: Options, sources: Sequence[Path], to: str | None, publish: PublishWhen | None
) -> MeetingPlace:
    """Return where the jobs of a run meet. Raises `UsageError` where nobody says where."""
    is_folder = to is not None and to.startswith(_FOLDER_BEGINS)
    if sources and to is not None and not is_folder:
        raise UsageError(
            f"--from {path(sources[0])} and --to {to}: jobs meet in folders or in a registry",
            hint="name a folder to leave this job's part in: --to ./FOLDER",
        )
    if sources or is_folder:
        target = Path(to).expanduser() if to is not None else None
        return FolderPlace(layouts_in(sources), target, options, options.environ)
    when = publish or options.settings.publish or "as-you-go"
    return RegistryPlace(PublishOnExit.of(project, to, options, when), options, to)
