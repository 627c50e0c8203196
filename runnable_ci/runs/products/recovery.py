"""What a killed process left in the workspace: files of an attempt without an end, and earlier ones set aside."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

from runnable_ci.errors import RunInUseError, RunNotFoundError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import AttemptSaved, Event, PackStored
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.paths import in_flight, is_running
from runnable_ci.runs.products.baseline import Baseline
from runnable_ci.runs.products.undo import move_back, undo
from runnable_ci.runs.products.unfinished import NOTE, Unfinished, unfinished
from runnable_ci.runs.reader import load
from runnable_ci.runs.recorder import Recorder, reopen
from runnable_ci.store.local import Layout
from runnable_ci.util.text import listed


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Recovery:
    """A workspace in which killed processes may have left what is not finished."""

    pipeline: Pipeline
    layout: Layout
    catalog: Callable[[RunLog], Catalog]
    say: Callable[[str], None]

    def recover(self) -> None:
        """Undo what attempts of this pipeline did that were killed, and record what they made; each change is said.

        A run that is being written is left alone. Raises `StoreError`, `RunLogError` where nobody can know it.
        """
        for run_id, items in groupby(unfinished(self.layout), key=lambda item: item.run_id):
            elsewhere = in_flight(self.layout, run_id)  # what may still run there is not undone here
            left = [item for item in items if f"{item.step}.{item.attempt}" not in elsewhere]
            if is_running(self.layout, run_id):
                continue
            try:
                with reopen(self.layout, load(self.layout, run_id)) as recorder:
                    self._recover_run(recorder, left, elsewhere)
            except RunNotFoundError:  # it was removed
                for item in left:
                    shutil.rmtree(item.folder)
            except RunInUseError:
                continue

    def _recover_run(self, recorder: Recorder, left: Iterable[Unfinished], elsewhere: Collection[str]) -> None:
        catalog = self.catalog(recorder.log)
        # Earlier files are put back last: they are nothing that the attempt wrote.
        for item in sorted(left, key=lambda item: not item.step):
            if item.step and item.step not in self.pipeline.steps:
                continue  # of another pipeline in this folder, which may have it yet
            if item.step and (item.folder / NOTE).exists():
                recorder.record(*_own_work(recorder.log, catalog, item))
            before = Baseline.load(item.folder, catalog.workspace)
            if before and item.step:
                recorder.record(*self._recover_attempt(recorder.log, catalog, item, before))
            elif before:
                self._put_back(recorder.log, catalog, {title.rpartition(".")[0] for title in elsewhere})
            shutil.rmtree(item.folder)

    def _recover_attempt(self, log: RunLog, catalog: Catalog, item: Unfinished, before: Baseline) -> list[Event]:
        """Return what is to be recorded of an attempt that was killed, once its changes are undone."""
        recorded = log.steps.get(item.step)
        attempt = recorded.attempts[-1] if recorded and recorded.attempts else None
        if not recorded or not attempt or attempt.attempt_number != item.attempt or not attempt.interrupted:
            return []  # its end was recorded
        place = catalog.run_folder / "replaced" / str(attempt.invocation) / f"{item.step}.{item.attempt}"
        killed = f"attempt {item.attempt} at `{item.step}` was killed"
        undone = undo(catalog, before, self.pipeline.steps[item.step], place, self.say)
        if undone.moved:
            # A person may have written some of them since: nobody else saw it.
            self.say(f"{killed}: moved to {place} what was written since it began: {listed(undone.moved)}")
        else:
            self.say(f"{killed}: it left no files")
        return [
            *(PackStored(digest=digest, pack=pack) for digest, pack in undone.packs.items()),
            AttemptSaved(step=item.step, attempt=attempt, data_catalog=[*recorded.data_catalog, *undone.entries]),
        ]

    def _put_back(self, log: RunLog, catalog: Catalog, elsewhere: Collection[str]) -> None:
        """Let steps that did not come to an end in the last invocation have the files that it had set aside."""
        for name in self.pipeline.steps:
            folder = catalog.run_folder / "replaced" / str(log.invocation) / name
            if name in elsewhere:
                continue
            if name in log.steps and any(_ended_in(a, log.invocation) for a in log.steps[name].attempts):
                continue
            files = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
            move_back(catalog, {path.relative_to(folder).as_posix(): path for path in files})


def _own_work(log: RunLog, catalog: Catalog, item: Unfinished) -> list[Event]:
    """Return what is to be recorded of the files in which a killed attempt kept its own work: they are no person's."""
    from runnable_ci.runs.checkpoints.in_workspace import own_files  # few steps keep any

    own = own_files(catalog, item.folder, f"{item.run_id}/{item.step}.{item.attempt}")
    recorded = log.steps.get(item.step)
    attempt = recorded.attempts[-1] if recorded and recorded.attempts else None
    if not recorded or not attempt or attempt.attempt_number != item.attempt or not attempt.interrupted:
        return []
    made = attempt.model_copy(update={"made": attempt.made | own})
    return [AttemptSaved(step=item.step, attempt=made, data_catalog=recorded.data_catalog)]


def _ended_in(attempt: StepAttempt, invocation: int) -> bool:
    return attempt.invocation == invocation and bool(attempt.end_time) and not attempt.interrupted
