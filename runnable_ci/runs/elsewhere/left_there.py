"""Attempts that other machines have of runs whose own process may be gone: how each stands, and what it needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from runnable_ci.errors import RunInUseError, RunnableError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.artifact import referenced_digests
from runnable_ci.runs.elsewhere.fragment import read_fragment
from runnable_ci.runs.elsewhere.places import AttemptFolder, ElsewhereFolder
from runnable_ci.runs.model import PROCESSING, RunLog, StepLog
from runnable_ci.runs.paths import ELSEWHERE, in_flight, is_running
from runnable_ci.runs.reader import load, run_ids
from runnable_ci.store.local import Layout
from runnable_ci.util.files import remove_folder
from runnable_ci.util.text import listed, printable

State = Literal["waits", "runs", "ended"]
_SAYS: Final = {
    "waits": "`{step}` waits for a worker on {executor}",
    "runs": "`{step}` runs on {executor} ({host}) or was lost there",
    "ended": "`{step}` has ended on {executor} ({host})",
}

_AT_RETRY: Final = {
    "waits": "calls attempt {number} back, which no worker on {executor} has begun",
    "runs": "attaches to attempt {number} on {executor} ({host}), and runs again if it was lost there",
    "ended": "takes attempt {number}, which has ended on {executor} ({host})",
}


class LeftThere(NamedTuple):
    """An attempt whose end is not recorded."""

    step: str
    executor: str
    host: str
    """The machine that has it; empty where none has yet."""
    state: State
    folder: AttemptFolder
    writes_here: bool
    """Whether its worker writes into this store; else what it makes comes by a registry."""

    def __str__(self) -> str:
        """Return how it stands, as a part of a sentence."""
        return _SAYS[self.state].format(
            step=printable(self.step), executor=printable(self.executor), host=printable(self.host)
        )

    def at_retry(self) -> str:
        """Return what a retry does with it."""
        number = printable(self.folder.title.rpartition(".")[2])
        return _AT_RETRY[self.state].format(number=number, executor=printable(self.executor), host=printable(self.host))


def left_there(layout: Layout, log: RunLog) -> list[LeftThere]:
    """Return the attempts of a run that are elsewhere, and whose end its log does not have."""
    folder = ElsewhereFolder.of(layout, log.run_id)
    titles = sorted(in_flight(layout, log.run_id))
    return [_left(folder.attempt(title), log) for title in titles if not _is_recorded(title, log)]


def _is_recorded(title: str, log: RunLog) -> bool:
    name, _, number = title.rpartition(".")
    step = log.steps.get(name)
    last = step.attempts[-1] if step and step.attempts else None
    return last is None or last.status != PROCESSING or str(last.attempt_number) != number


def _left(folder: AttemptFolder, log: RunLog) -> LeftThere:
    name = folder.title.rpartition(".")[0]
    taken = folder.noted("taken")
    state: State = "ended" if folder.ended_by() else "runs" if taken else "waits"
    return LeftThere(
        name, log.steps[name].attempts[-1].executor, str(taken.get("host", "")), state, folder, not folder.noted("sent")
    )


def note_of(layout: Layout, log: RunLog) -> str:
    """Return what to say of a run whose process is gone and of which something is elsewhere; empty for any other."""
    left = left_there(layout, log) if in_flight(layout, log.run_id) and not is_running(layout, log.run_id) else []
    return f"{listed(map(str, left))}; {how(layout, log.run_id)}" if left else ""


def how(layout: Layout, run_id: str) -> str:
    """Return the command that continues such a run, and what it does."""
    return f"`{of_store(layout, 'retry', run_id)}` waits for it, then continues"


def how_to_end(layout: Layout, run_id: str) -> str:
    """Return what to do with such a run of which something may run yet, or be long gone."""
    return f"{how(layout, run_id)}: it finds out if the step is gone, and Ctrl-C in it ends the step"


class LeftOfRuns:
    """What is elsewhere of all runs of a store that are not being written."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.of: dict[str, list[LeftThere]] = {}
        """Run id → its attempts; of a run that cannot be read none is known."""
        self._unreadable: set[str] = set()
        known = set(run_ids(layout))
        for run_id in [folder.name for folder in self._folders() if folder.name in known]:
            try:
                left = [] if is_running(layout, run_id) else left_there(layout, load(layout, run_id))
            except RunnableError:
                self._unreadable.add(run_id)
                continue
            if left:
                self.of[run_id] = left

    def at_work(self, *, beside: str = "") -> RunInUseError | None:
        """Return the error that a worker may be writing into the store, unless it is on the machine `beside`."""
        for run_id, left in self.working().items():
            if busy := [one for one in left if one.host != beside]:
                return self._error(run_id, busy)
        return None

    def working(self) -> dict[str, list[LeftThere]]:
        """Return what workers may be at that write into the store and its workspace, by run id."""
        busy = {key: [it for it in left if it.state == "runs" and it.writes_here] for key, left in self.of.items()}
        return {run_id: left for run_id, left in busy.items() if left}

    def require_over(self, runs: Collection[str]) -> None:
        """Raise `RunInUseError` for a run of which something may run yet, or begin."""
        for run_id in runs:
            if open_ones := [one for one in self.of.get(run_id, ()) if one.state != "ended"]:
                raise self._error(run_id, open_ones)

    def needed(self, run_id: str) -> set[str]:
        """Return the sha256 (hex) of what attempts of a run made that no log names yet."""
        return {digest for one in self.of.get(run_id, ()) for digest in _made(one, run_id)}

    def needless(self, removed: Collection[str]) -> Iterator[Path]:
        """Yield the folders of runs that are gone or `removed`, and of attempts whose end is recorded."""
        known = set(run_ids(self._layout)) - set(removed)
        for folder in self._folders():
            if folder.name not in known or folder.name not in (*self.of, *self._unreadable):
                yield folder
            elif folder.name in self.of:
                left = {one.folder.path for one in self.of[folder.name]}
                yield from (path for path in sorted((folder / "attempts").iterdir()) if path not in left)

    def of_no_run(self) -> list[Path]:
        """Return the folders of runs that are gone."""
        found = self._folders()
        known = set(run_ids(self._layout)) if found else set()
        return [folder for folder in found if folder.name not in known]

    def kept(self, run_id: str) -> str:
        """Return what to say of a run that stays for what it has elsewhere."""
        return f"kept {run_id}: {listed(map(str, self.of[run_id]))}; {how(self._layout, run_id)}"

    def _folders(self) -> list[Path]:
        found = self._layout.own_folder(ELSEWHERE)
        return sorted(found.iterdir()) if found.is_dir() else []

    def _error(self, run_id: str, left: Collection[LeftThere]) -> RunInUseError:
        return RunInUseError(f"run {run_id}: {listed(map(str, left))}", hint=how_to_end(self._layout, run_id))


def require_free_of_others(layout: Layout, run_id: str) -> None:
    """Raise `UsageError` where a worker of another run may have a step of it yet: it works in the same workspace.

    Such a worker outlives the process of its run. It may be gone, too, which only that run's executor can say. What is
    left of runs that are no more is removed: nobody is to wait for it. Nothing but a run that begins may call this.
    """
    left = LeftOfRuns(layout)
    for folder in left.of_no_run():
        remove_folder(folder, through=layout.temporaries)
    for other, busy in left.working().items():
        if other != run_id:
            raise UsageError(
                f"run {other} may still work in {layout.folder.parent}: {listed(map(str, busy))}",
                hint=how_to_end(layout, other),
            )


def _made(left: LeftThere, run_id: str) -> set[str]:
    with suppress(RunnableError):  # it is damaged: who resumes the run says so
        if fragment := read_fragment(left.folder.fragment):
            step = StepLog(name=fragment.step, internal_name=fragment.step, attempts=[fragment.attempt])
            step.data_catalog = fragment.data_catalog
            return referenced_digests(RunLog(run_id=run_id, steps={step.name: step}, packs=fragment.packs))
    return set()
