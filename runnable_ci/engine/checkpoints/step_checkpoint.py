"""The checkpoint of one attempt: restored before it, kept while it runs, and once more when it has not succeeded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from runnable_ci.errors import RunnableError
from runnable_ci.runs.checkpoints import in_workspace
from runnable_ci.runs.checkpoints.contents import KeptFiles, remove
from runnable_ci.runs.checkpoints.keeper import Keeper
from runnable_ci.runs.events import AttemptSaved, Event
from runnable_ci.runs.files.checkpoint_model import Checkpoint, CheckpointUse
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.products.step_products import StepProducts
from runnable_ci.runs.products.unfinished import UNFINISHED, title_of
from runnable_ci.util.process import Supervisor
from runnable_ci.util.text import format_size, listed, pluralize

_SIGNALS = 128
"""A shell adds the signal that ended a command to this."""
_MADE_MAX = 1_000
_UNFIT_SAID = 3


@dataclass(slots=True, eq=False, repr=False)
class StepCheckpoint:
    """What an attempt keeps of its own work."""

    products: StepProducts
    attempt: StepAttempt
    keeper: Keeper
    note: Path
    """The folder of what was there before."""
    _begun_s: float = field(default_factory=time.monotonic)
    _is_started: bool = False

    def start(self, pid: int) -> None:
        """Keep what the process writes, and all that it starts."""
        self._is_started = True
        self.keeper.start(pid)

    def end(self, *, succeeded: bool) -> None:
        """Note in the attempt what it leaves, now that its process has ended."""
        self.keeper.stop()
        if not self._is_started:
            return
        attempt, code, sight = self.attempt, self.attempt.exit_code, self.products.sight
        if not succeeded:
            is_complete = code is not None and 0 <= code <= _SIGNALS
            placed = sight.trace.placed if sight and sight.trace else ()
            self.keeper.keep_last(is_complete=is_complete, placed=placed)
            attempt.checkpoint = self.keeper.newest
        catalog = self.products.of.catalog
        own = in_workspace.own_files(catalog, self.note, f"{catalog.run_folder.name}/{self.products.title}")
        attempt.made |= dict(islice(own.items(), max(0, _MADE_MAX - len(attempt.made))))
        self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        step, keeper = self.products.step, self.keeper
        if self.attempt.checkpoint is None:
            keeper.look_once()
        if unmatched := [f"`{glob}`" for glob in step.checkpoint if glob not in keeper.matched]:
            verb = "match" if len(unmatched) > 1 else "matches"
            self.products.of.say(f"note: `checkpoint` has {listed(unmatched)}, which {verb} no file", step=step.shown)
        for problem in islice(keeper.unfit.values(), _UNFIT_SAID):
            self.products.of.say(f"note: not in the checkpoint: {problem.message}", step=step.shown)
        if (more := len(keeper.unfit) - _UNFIT_SAID) > 0:
            self.products.of.say(f"note: not in the checkpoint: {more} more such", step=step.shown)

    def forget(self) -> None:
        """Drop what is needed no more, once the attempt is recorded."""
        catalog, step = self.products.of.catalog, self.products.step
        catalog.products.end(_title(self.products))
        in_workspace.end(self.note)
        if self.attempt.outcome == "succeeded":
            remove(catalog, step.name)

    def report(self, made: Checkpoint, recorded: Callable[[], None]) -> None:
        """Have a generation recorded, which is whole."""
        known = {
            "checkpoint": made,
            "input_parameters": self.attempt.input_parameters,
            "function_hash": self.attempt.function_hash,
        }
        name = self.products.step.name

        def events(log: RunLog, once_recorded: list[Callable[[], None]]) -> list[Event]:
            once_recorded.append(recorded)
            past = log.steps[name]
            attempt = past.attempts[-1].model_copy(update=known)
            return [AttemptSaved(step=name, attempt=attempt, data_catalog=past.data_catalog)]

        self.products.of.report(name, events)


def _title(products: StepProducts) -> str:
    return f"{products.title}/checkpoint"


def begin_checkpoint(products: StepProducts, attempt: StepAttempt, supervisor: Supervisor) -> StepCheckpoint:
    """Have the workspace as the checkpoint has it from which an attempt resumes, and keep what it writes.

    Without one, nothing of an earlier attempt is there: neither of this run nor of another one.
    """
    of, step = products.of, products.step
    catalog, contents = of.catalog, KeptFiles(of.catalog, step.name)
    until_s = time.monotonic() + step.timeout_s if step.timeout_s else float("inf")

    def say(text: str) -> None:
        of.say(text, step=step.shown)

    def took(seconds: float) -> None:
        of.keeping_s = max(of.keeping_s, seconds)

    keeper = Keeper(
        catalog,
        contents,
        step.checkpoint,
        step.checkpoint_s,
        report=lambda made, recorded: found.report(made, recorded),  # noqa: PLW0108 - it is made below
        say=say,
        is_ending=lambda: supervisor.cancelled_by is not None or time.monotonic() >= until_s,
        took=took,
    )
    note = catalog.layout.folder / UNFINISHED / title_of(catalog.run_folder.name, step.name, products.number)
    found = StepCheckpoint(products, attempt, keeper, note)
    _restore(found, contents, say)
    in_workspace.begin(catalog, step, note, keeper.restored)
    theirs = catalog.files.find(step.checkpoint, is_strict=False).all_names() - keeper.restored.keys()
    catalog.products.begin(_title(products), step.checkpoint, theirs)
    return found


def _restore(found: StepCheckpoint, contents: KeptFiles, say: Callable[[str], None]) -> None:
    products, attempt, keeper = found.products, found.attempt, found.keeper
    of, used = products.of, attempt.checkpoint_used
    earlier = {it.attempt_number: it for it in products.past.attempts} if products.past else {}
    kept = earlier[used.attempt].checkpoint if used and used.attempt in earlier else None
    files = dict(kept.files) if kept else {}
    if missing := contents.missing(files):
        say(f"the checkpoint of attempt {used.attempt if used else 0} is lost: {listed(missing)} is in no store")
        files, used, attempt.checkpoint_used = {}, None, None
    in_workspace.clear(of.catalog, products.step, files, of.folder / products.step.name, say)
    try:
        in_workspace.restore(of.catalog, contents, files)
    except RunnableError as e:
        say(f"the checkpoint of attempt {used.attempt if used else 0} cannot be used: {e.message}")
        in_workspace.clear(of.catalog, products.step, {}, of.folder / products.step.name, say)
        attempt.checkpoint_used = None
        return
    keeper.restored = files
    for name, file in files.items():
        if not file.kind:
            keeper.know(name, file)
    if used and kept:
        say(_described(used, kept))


def _described(used: CheckpointUse, kept: Checkpoint) -> str:
    size = format_size(sum(file.size for file in kept.files.values()))
    text = f"resumes from the checkpoint of attempt {used.attempt}: {pluralize(len(kept.files), 'file')}, {size}"
    if used.is_foreign:
        what = " and ".join(used.differs) or "code or values"
        text += f"; its {what} differed from now: retry --checkpoint drop starts over"
    return text
