"""One attempt that is elsewhere, as this side follows it: its messages, its fragment, or that it is lost."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from runnable_ci.engine.attempt import AttemptResult
from runnable_ci.engine.elsewhere.guard import end_left
from runnable_ci.engine.elsewhere.life import LifeSeen
from runnable_ci.engine.elsewhere.messages import MessageReader
from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.checkpoints.contents import remove as remove_checkpoint
from runnable_ci.runs.checkpoints.in_workspace import end as end_checkpoint
from runnable_ci.runs.checkpoints.in_workspace import own_files
from runnable_ci.runs.elsewhere.fragment import Fragment, read_fragment
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.events import EnvironmentRecorded, Event
from runnable_ci.runs.model import CatalogEntry, Pack, RunOutcome, StepAttempt
from runnable_ci.runs.output import recover
from runnable_ci.runs.products.baseline import Baseline
from runnable_ci.runs.products.step_products import StepProducts
from runnable_ci.runs.products.unfinished import UNFINISHED, title_of
from runnable_ci.steps.interpreter import key_of
from runnable_ci.util.clock import format_timestamp, now
from runnable_ci.util.text import seconds_between

REASON_S: Final = 3.0
"""How long a scheduler may take to say why it ended a job."""
_SIGNALLED: Final = frozenset(
    code for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT) for code in (-number, 128 + number)
)
"""Exit codes of what a signal ended, also as a shell says it."""
_CLOCKS_AGREE_S: Final = 1.0
"""Clocks that differ by less are taken to be right."""
_SECONDS_MAX: Final = 1e9


@dataclass(slots=True, eq=False, repr=False)
class CheckpointElsewhere:
    """What is to be removed of a checkpoint once an attempt is recorded which kept it on another machine."""

    products: StepProducts
    outcome: Callable[[], str]
    """How the attempt ended."""

    @property
    def _note(self) -> Path:
        return note_of(self.products)

    def start(self, pid: int) -> None:
        """The far side has done it."""

    def end(self, *, succeeded: bool) -> None:
        """The far side has done it."""

    def forget(self) -> None:
        """Drop what is needed no more."""
        end_checkpoint(self._note)
        if self.outcome() == "succeeded":
            remove_checkpoint(self.products.of.catalog, self.products.step.name)


def note_of(products: StepProducts) -> Path:
    """Return the folder of what an attempt found before it began."""
    catalog = products.of.catalog
    title = title_of(catalog.run_folder.name, products.step.name, products.number)
    return catalog.layout.folder / UNFINISHED / title


@dataclass(slots=True, eq=False, repr=False)
class Flight:
    """An attempt that is elsewhere."""

    step: Step
    attempt: StepAttempt
    """As it was begun."""
    products: StepProducts
    folder: AttemptFolder
    executor: str
    queue: str
    learned: int
    """How much the redactor had learned when its ticket was written."""
    reader: MessageReader
    is_attached: bool = False
    """An earlier invocation began it."""
    worker: str = ""
    """Who has it; empty as long as it waits."""
    life: LifeSeen | None = None
    """The sign of life of its worker, once no launcher leads to that any more."""
    stopped_s: float | None = None
    """When it was asked to end."""
    landed_s: float | None = None
    """When its fragment was first seen, where why it ended was to be found out."""
    waited_s: float = 0
    """How long it waited for a worker."""
    why: str = ""
    land: Callable[[Fragment], None] = lambda _fragment: None
    """Has in the workspace what an attempt made, where that is not there already."""

    def begin(self) -> None:
        """Have what the attempt makes known as made by a step while it runs."""
        of, step = self.products.of, self.step
        for title, patterns in (
            (self.products.title, step.put),
            (f"{self.products.title}/checkpoint", step.checkpoint),
        ):
            if patterns:
                before = of.catalog.files.find(patterns, is_strict=False).all_names()
                of.catalog.products.begin(title, patterns, before)

    def prepare(self, share: Share, setting: int) -> None:
        """Make its folder, before anyone may take its ticket."""
        shutil.rmtree(self.folder.path, ignore_errors=True)
        self.folder.path.mkdir(mode=0o700)
        self.folder.note(
            "note",
            step=self.step.name,
            attempt=self.attempt.attempt_number,
            executor=self.executor,
            queue=self.queue,
            share=list(share),
            setting=setting,
        )

    def taken(self) -> bool:
        """Return whether a worker has it, and know which."""
        if not self.worker:
            self.worker = str(self.folder.noted("taken").get("worker", ""))
        return bool(self.worker)

    def unsealed(self) -> str:
        """Return why its worker left without a fragment, where that could still say it."""
        return "no space left for its result" if self.folder.unsealed.exists() else ""

    def landed(self, reason: Callable[[str], str | None]) -> AttemptResult | None:
        """Return the result that the far side sealed; None as long as there is none.

        `reason` tells of a worker why its scheduler ended it: empty where it did not, None where it cannot tell.
        """
        try:
            fragment = read_fragment(self.folder.fragment)
        except RunnableError as e:
            return self.lost(e.message)
        if fragment is None:
            return None
        attempt, begun = fragment.attempt, self.attempt
        if (fragment.step, attempt.attempt_number) != (self.step.name, begun.attempt_number):
            return self.lost("its fragment is of another attempt")
        is_signalled = attempt.outcome == "cancelled" or attempt.exit_code in _SIGNALLED
        if is_signalled and self.stopped_s is None and self.taken():
            why = reason(self.worker)
            if self.landed_s is None:
                self.landed_s = time.monotonic()
            if why == "" and time.monotonic() - self.landed_s < REASON_S:
                return None  # what ended it may come to be known
            if why or attempt.outcome == "cancelled":
                attempt.end("failed", f"ended on {self.executor}: {why or 'its worker was asked to end'}")
                attempt.exit_code = -signal.SIGTERM
        self.reader.read()
        return self._ended(attempt, fragment)

    def _ended(self, attempt: StepAttempt, fragment: Fragment) -> AttemptResult:
        events: list[Event] = []
        if fragment.environment is not None:
            attempt.environment = key_of(fragment.environment)
            events = [EnvironmentRecorded(key=attempt.environment, environment=fragment.environment)]
        attempt = attempt.model_copy(update=self._own_fields())
        attempt.end_time = end_by_own_clock(attempt, fragment.seconds, now())
        attempt.waited_s = max(0.0, round(_length(attempt) - fragment.seconds, 3)) if fragment.is_started else 0
        products = self.products
        products.is_started = fragment.is_started
        if not fragment.is_started:
            products.of.put_back(self.step.name)
        products.of.catalog.products.catch_up()
        try:
            self.land(fragment)
        except (RunnableError, OSError) as e:
            return self.lost(f"what it made cannot be used: {e}", "failed")
        return self._finished(attempt, fragment.data_catalog, events=events, fragment=fragment)

    def _own_fields(self) -> dict[str, object]:
        """Return what this side alone knows of the attempt."""
        of_code = ("code_identities", "code_state", "code_seen")
        names = (*of_code, "invocation", "reason", "definition", "executor", "resources")
        return {name: getattr(self.attempt, name) for name in names}

    def lost(self, why: str, outcome: RunOutcome = "interrupted") -> AttemptResult:
        """Give the attempt up: what it wrote is undone, and its result counts no more, should there be one later."""
        attempt, products = self.attempt.model_copy(), self.products
        end_left(self.folder)  # before what it wrote is undone
        self.reader.read()
        said = f": {why}" if why else ""
        attempt.end(outcome, f"lost on {self.executor}{said}" if outcome == "interrupted" else why)
        attempt.interrupted = outcome == "interrupted"
        attempt.end_time = now()
        attempt.waited_s = self.waited_s if self.taken() else _length(attempt)
        attempt.not_seen = "it was lost" if self.taken() else "no worker had begun it"
        catalog = products.of.catalog
        catalog.products.catch_up()
        outputs = catalog.run_folder / "logs"
        attempt.log = recover(outputs, products.title, through=catalog.layout.temporaries)
        entries: list[CatalogEntry] = []
        packs: dict[str, Pack] = {}
        with suppress(RunnableError, OSError):  # what it wrote is still there then, and named by nobody
            if self.step.checkpoint:
                title = f"{catalog.run_folder.name}/{products.title}"
                attempt.made = attempt.made | own_files(catalog, note_of(products), title)
            products.before = Baseline.load(note_of(products), catalog.workspace)
            products.is_started = products.before is not None
            entries, packs = products.fail()
        finished = self._finished(attempt, entries)
        finished.packs = packs
        return finished

    def _finished(
        self,
        attempt: StepAttempt,
        entries: list[CatalogEntry],
        *,
        events: list[Event] | None = None,
        fragment: Fragment | None = None,
    ) -> AttemptResult:
        if self.step.checkpoint:
            self.products.checkpoint = CheckpointElsewhere(self.products, lambda: attempt.outcome)
        seconds = fragment.seconds if fragment else _length(attempt)
        return AttemptResult(
            self.step,
            attempt,
            self.products,
            entries,
            fragment.packs if fragment else {},
            seconds=seconds,
            learned=self.learned,
            events=events or [],
            is_attached=self.is_attached,
        )

    def forget(self) -> None:
        """Drop its files, once its end is recorded."""
        catalog = self.products.of.catalog
        for title in (self.products.title, f"{self.products.title}/checkpoint"):
            catalog.products.end(title)
        shutil.rmtree(note_of(self.products), ignore_errors=True)
        shutil.rmtree(self.folder.path, ignore_errors=True)


def end_by_own_clock(attempt: StepAttempt, took_s: float, moment: str) -> str:
    """Return when an attempt ended, which began by the clock of this machine and ended by that of another one.

    That is neither before it can have done what took so long, nor after this `moment`.
    """
    passed_s = seconds_between(attempt.start_time, moment)
    if passed_s is None or not 0 <= took_s < _SECONDS_MAX:
        return attempt.end_time
    length_s = _length(attempt)
    ended_s = min(max(length_s, took_s), max(passed_s, took_s))
    if abs(ended_s - length_s) < _CLOCKS_AGREE_S:
        return attempt.end_time
    return format_timestamp(datetime.fromisoformat(attempt.start_time).timestamp() + ended_s)


def _length(attempt: StepAttempt) -> float:
    return seconds_between(attempt.start_time, attempt.end_time) or 0.0
